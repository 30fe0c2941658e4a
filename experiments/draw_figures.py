"""Draw figures/ and the tables of docs/results.md from data/results/ alone: `make figures`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pecrs_lib import figures
from pecrs_lib.data import bundled
from pecrs_lib.figures import diagrams
from pecrs_lib.figures.beyond_figures import (
    learning_curve_figure,
    reliability_figure,
    variants_figure,
)
from pecrs_lib.figures.catalogue_figures import search_figure
from pecrs_lib.figures.paper_figures import (
    differences_figure,
    grid_figure,
    turns_figure,
    verdicts_figure,
)
from pecrs_lib.figures.scaling_figures import scaling_figure
from pecrs_lib.reproduction.better import better_text
from pecrs_lib.reproduction.claims import findings
from pecrs_lib.reproduction.confidence import reliability
from pecrs_lib.reproduction.evidence import Results
from pecrs_lib.reproduction.findings import Files, read_files
from pecrs_lib.reproduction.layout import wide
from pecrs_lib.reproduction.report import baselines_text, markdown, summary
from pecrs_lib.reproduction.report_tables import against_baselines, verdicts
from pecrs_lib.reproduction.runs import NEEDS, read_runs
from pecrs_lib.reproduction.tables import TABLES
from pecrs_lib.reproduction.variant_tables import VARIANT_TABLES
from pecrs_lib.widgets.explorer import Setting
from pecrs_lib.widgets.explorer_widget import explorer_figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAPER, OUT = ROOT / "data" / "results", ROOT / "data" / "paper", ROOT / "figures"
PAGE = ROOT / "docs" / "results.md"
PARTS = {"inspired": "inspired.json", "minireel": "minireel_pecrs.json"}  # of docs/results.md


def results_table(record: dict[str, Any]) -> str:
    """The recall table as Markdown, all and novel targets, and a line that says what it is."""
    lines = [
        f"{record['data']}: {record['n_items']:,} items, {record['n_dialogues']} dialogues, "
        "recall in percent [95 % interval over dialogues].",
        "",
        "| system | targets | n | R@1 | R@10 | R@50 | Unique |",
        "|---|---|---|---|---|---|---|",
    ]
    for targets in ("all", "novel"):
        for row in record["rows"]:
            if row["targets"] != targets:
                continue
            cells = [
                f"{c['value']:.1f} [{c['low']:.1f}, {c['high']:.1f}]"
                for c in (row[f"R@{k}"] for k in (1, 10, 50))
            ]
            name = [row["system"], targets, str(row["n"]), *cells, str(row["Unique"])]
            lines.append(f"| {' | '.join(name)} |")
    return "\n".join(lines) + "\n"


def write_block(page: str, part: str, text: str) -> str:
    """`page` with what stands between the marks of `part` replaced."""
    marked = re.compile(rf"(<!-- {part}: [^\n]*-->\n).*?(<!-- end of {part} -->)", re.DOTALL)
    return marked.sub(lambda m: f"{m[1]}{text}{m[2]}", page)


def reproduction_text(files: Files) -> str:
    """The verdicts in numbers, the main rows of Table 2, and how far counts beside PECRS get."""
    texts = [summary(findings(files))]
    for name, results in files.columns.items():
        if results.main:
            table = TABLES["2"](results)
            rows = table[table["ours"].notna() & (table["row"] != "Random")]
            texts += [
                f"{name}, {len(results.main)} seeds, recall in percent: the paper | ours "
                "[95 % interval over dialogues].",
                markdown(wide(rows)).replace("– \\| ", ""),  # no number of the paper
                baselines_text(name, against_baselines(results)),
            ]
    return "\n\n".join([*texts, *better_text(files)]) + "\n"


def limits_figure(study: dict[str, Any]) -> Figure:
    """R@50 of every variant of `experiments.limits`, its first seed, on all targets."""
    cells = {
        name: next(r["R@50"] for r in found["rows"] if r["targets"] == "all")
        for name, found in study["variants"].items()
    }
    best = max(
        (r for r in study["baselines"] if r["targets"] == "all"), key=lambda r: r["R@50"]["value"]
    )
    cells[f"(baseline) {best['system']}"] = best["R@50"]
    return diagrams.bars_figure(
        {name: c["value"] for name, c in cells.items()},
        "Recall@50 on INSPIRED's development set (%)",
        {name: (c["low"], c["high"]) for name, c in cells.items()},
    )


def backbones_figure() -> Figure:
    """Held-out perplexity of the bundled backbones over the tokens read, stage after stage."""
    figure, ax = figures.axes_of()
    for folder, marker in zip(sorted(bundled("backbone").iterdir()), "os", strict=True):
        rows: list[tuple[float, dict[str, float]]] = []
        for stage in ("general", "dialogue"):
            before, end = rows[-1][0] if rows else 0, len(rows)
            curve = json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))["curve"]
            rows += [(before + row["tokens"], row["held_out_perplexity"]) for row in curve]
        for name, style in (("ReDial valid", "-"), ("INSPIRED dev", "--")):
            ax.plot(
                [tokens / 1e6 for tokens, _ in rows], [of[name] for _, of in rows], style,
                marker=marker, markevery=[end - 1, len(rows) - 1], label=f"{folder.name}, {name}",
            )  # fmt: skip
    ax.set(xlabel="million tokens read (marks: end of a stage)", ylabel="perplexity per token")
    ax.set_yscale("log")
    ax.set_yticks([10, 20, 40, 80], ["10", "20", "40", "80"])
    ax.minorticks_off()
    ax.legend()
    return figure


def decoding_figure(path: Path) -> Figure:
    """ROUGE-1 against Dist@2 of every strategy: the paper's Table 8 beside ours."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    paper = pd.read_csv(PAPER / "table_8.csv", index_col="strategy")
    tables = {
        "paper (ReDial)": {name: (r["ROUGE-1"], r["Dist@2"]) for name, r in paper.iterrows()},
        "ours (MiniReel)": {
            r["strategy"]: (r["ROUGE-1"]["value"], r["Dist@2 per sentence"])
            for r in rows if r["model"] == "trained"
        },
    }  # fmt: skip
    return figures.strategies_figure(tables, "ROUGE-1 (%)", "Dist@2 per sentence")


def zero_shot_figure(record: dict[str, Any]) -> Figure:
    """Table 7 measured: lists of language models beside PECRS and rules, all and novel targets."""
    rows = {(row["system"], row["targets"]): row for row in record["rows"]}
    names = [
        "Popularity", "Mentioned, then popular", "PECRS, seed 0", "gpt-4: list of 20",
        "gpt-3.5-turbo: list of 20", "vicuna: list of 20", "baize: list of 20",
        "reel-small: log-likelihood, sum",
    ]  # fmt: skip
    panels = {
        f"Recall@{k} on INSPIRED (%)": {
            f"{targets} targets": [rows[name, targets][f"R@{k}"] for name in names]
            for targets in ("all", "novel")
        }
        for k in (1, 10)
    }
    return figures.dots_figure(names, panels)


def run_figures(results: Results) -> dict[str, Figure]:
    """Of the runs on one data set, by file name; none of what has no run."""
    made = {
        "ablations": differences_figure(TABLES["5"](results), results.dataset),
        "grid": grid_figure(TABLES["figure-3"](results)),
        "turns": turns_figure(TABLES["figure-4"](results)),
    }
    if results.main and all("confidence" in run["points"] for run in results.main):
        made["reliability"] = reliability_figure(reliability(results))
    for name, draw in {
        "learning-curve": learning_curve_figure,
        "official": variants_figure,
    }.items():
        if any(variant in results.runs for variant in NEEDS[name][1:]):
            made[name.replace("-", "_")] = draw(VARIANT_TABLES[name](results))
    return made


def main() -> None:
    OUT.mkdir(exist_ok=True)
    drawn = []
    for part, name in PARTS.items():
        record = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        for targets in ("all", "novel"):
            picture = f"{part}_{targets}.png"
            figures.save(figures.recall_figure(record["rows"], targets=targets), OUT / picture)
            drawn.append(picture)
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(write_block(text, part, results_table(record)), encoding="utf-8")
        drawn.append(f"the page's table of {part}")
    files = read_files(RESULTS)
    text = write_block(PAGE.read_text(encoding="utf-8"), "report", reproduction_text(files))
    PAGE.write_text(text, encoding="utf-8")
    drawn.append("the page's summary of the report")
    figures.save(diagrams.flow_diagram(), OUT / "flow.png")
    drawn.append("flow.png")
    grid, cost = (RESULTS / f"explorer_{name}.json" for name in ("grid", "cost"))
    picture = explorer_figure(
        json.loads(grid.read_text(encoding="utf-8")), json.loads(cost.read_text(encoding="utf-8")),
        Setting(16),
    )  # fmt: skip
    figures.save(picture, OUT / "explorer.png")
    drawn.append("explorer.png")
    study = json.loads((RESULTS / "inspired_limits.json").read_text(encoding="utf-8"))
    figures.save(limits_figure(study), OUT / "inspired_limits.png")
    figures.save(backbones_figure(), OUT / "backbones.png")
    runs = json.loads((RESULTS / "losses.json").read_text(encoding="utf-8"))["runs"]
    figures.save(figures.losses_figure(runs), OUT / "losses.png")
    figures.save(decoding_figure(RESULTS / "decoding.json"), OUT / "decoding.png")
    asked = json.loads((RESULTS / "zero_shot.json").read_text(encoding="utf-8"))
    figures.save(zero_shot_figure(asked), OUT / "zero_shot.png")
    large = json.loads((RESULTS / "large_catalogue.json").read_text(encoding="utf-8"))
    figures.save(search_figure(large), OUT / "large_catalogue.png")
    drawn.append("large_catalogue.png")
    drawn += ["inspired_limits.png", "backbones.png", "losses.png", "decoding.png", "zero_shot.png"]
    runs_made = Results.of(read_runs(RESULTS / "runs"), "inspired", "cpu", "reel-small")
    pictures = run_figures(runs_made)
    pictures["verdicts"] = verdicts_figure(verdicts(findings(files)), judged_only=True)
    for name, picture in pictures.items():
        figures.save(picture, OUT / f"{name}.png")
        drawn.append(f"{name}.png")
    bench = RESULTS / "bench_one_pass.json"
    if bench.exists():
        report = json.loads(bench.read_text(encoding="utf-8"))
        figures.save(figures.cost_figure(report), OUT / "one_pass.png")
        drawn.append("one_pass.png")
    scaling = json.loads((RESULTS / "bench_scaling.json").read_text(encoding="utf-8"))
    figures.save(scaling_figure(scaling), OUT / "scaling.png")
    drawn.append("scaling.png")
    print("drawn:", ", ".join(drawn) or "nothing, data/results is empty")


if __name__ == "__main__":
    main()
