"""Draw figures/ and the README's results table from data/results/ alone: `make figures`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pecrs_lib import figures

ROOT = Path(__file__).resolve().parents[1]
RESULTS, OUT = ROOT / "data" / "results", ROOT / "figures"
MARKED = re.compile(r"(<!-- results: [^\n]*-->\n).*?(<!-- end of results -->)", re.DOTALL)


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


def write_readme(readme: str, record: dict[str, Any]) -> str:
    """`readme` with the part between the marks replaced."""
    table = results_table(record)
    return MARKED.sub(lambda m: f"{m[1]}{table}{m[2]}", readme)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    drawn = []
    inspired = RESULTS / "inspired.json"
    if inspired.exists():
        record = json.loads(inspired.read_text(encoding="utf-8"))
        for targets in ("all", "novel"):
            name = f"inspired_{targets}.png"
            figures.save(figures.recall_figure(record["rows"], targets=targets), OUT / name)
            drawn.append(name)
        readme = ROOT / "README.md"
        readme.write_text(write_readme(readme.read_text(encoding="utf-8"), record), "utf-8")
        drawn.append("the table of README.md")
    bench = RESULTS / "bench_one_pass.json"
    if bench.exists():
        report = json.loads(bench.read_text(encoding="utf-8"))
        figures.save(figures.cost_figure(report), OUT / "one_pass.png")
        drawn.append("one_pass.png")
    print("drawn:", ", ".join(drawn) or "nothing, data/results is empty")


if __name__ == "__main__":
    main()
