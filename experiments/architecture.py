"""How the code hangs together: `docs/architecture.md`, its picture and its tables.

    python -m experiments.architecture

The walk in the page is a doctest, the tables come from the modules themselves; `make test` runs the
one and compares the other.
"""

from __future__ import annotations

import ast
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from pecrs_lib import figures

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pecrs_lib"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: written by experiments.architecture -->", "<!-- end of modules -->"
Place = tuple[int, int]
THINGS: dict[str, tuple[Place, str]] = {  # column and row, and what it is
    "films.jsonl": ((0, 0), "a file"), "Catalogue": ((1, 0), "N films"),
    "ItemFeatures": ((2, 0), "(all tokens, D)"), "v": ((3, 0), "(N, D)"),
    "test.jsonl": ((0, 1), "a file"), "Dialogue": ((1, 1), "who said what"),
    "Window": ((2, 1), "(T,) ids, slots"), "Batch": ((3, 1), "(B, T), mask"),
    "hidden": ((4, 1), "(B, T, D)"), "Ranking": ((5, 1), "(Q, M)"),
    "NextTurn": ((6, 1), "films, whether to"), "Reply": ((7, 1), "text, film"),
    "Losses": ((5, 2), "Eq 3–5, 7, 8"), "weights": ((6, 2), "LoRA, heads"),
    "run/": ((7, 2), "checkpoints"),
    "Ranked": ((5, 3), "ranks, −log p"), "table": ((6, 3), "recall [interval]"),
    "picture": ((7, 3), "PNG, widget"),
}  # fmt: skip
WAYS = (  # from, to, the modules that lead there
    ("films.jsonl", "Catalogue", "data"), ("Catalogue", "ItemFeatures", "items\nencoding"),
    ("ItemFeatures", "v", "heads"), ("test.jsonl", "Dialogue", "data"),
    ("Dialogue", "Window", "context"), ("Window", "Batch", "packing"),
    ("v", "Batch", ""), ("Batch", "hidden", "model\nbackbone\nattention"),
    ("hidden", "Ranking", "ranking\nindex"), ("Ranking", "NextTurn", "recommend"),
    ("NextTurn", "Reply", "generation\ndecoding"),
    ("hidden", "Losses", "batches\nlosses"), ("Losses", "weights", "training\noptimizer"),
    ("weights", "run/", "checkpoint"),
    ("hidden", "Ranked", "protocol"), ("Ranked", "table", "assessment\nevaluation"),
    ("table", "picture", "figures\nwidgets"),
)  # fmt: skip


def walk_figure() -> Figure:
    """What a dialogue becomes on its way, and the modules that make it so."""
    figure, ax = figures.axes_of(size=(13.4, 5.2))
    ax.set_axis_off()
    ax.set(xlim=(-0.1, 14.2), ylim=(-6.6, 0.9))
    at = {name: (1.85 * column, -1.85 * row) for name, ((column, row), _) in THINGS.items()}
    for name, (x, y) in at.items():
        shade = "#dfe8f3" if THINGS[name][0][1] < 2 else "#f3efe2"
        ax.add_patch(FancyBboxPatch((x, y - 0.4), 1.05, 0.8, "round,pad=0.04", fc=shade, ec="0.3"))
        ax.text(x + 0.52, y + 0.13, name, ha="center", va="center", fontsize=8.5, weight="bold")
        ax.text(x + 0.52, y - 0.2, THINGS[name][1], ha="center", va="center", fontsize=6.8)
    for source, target, modules in WAYS:
        (x0, y0), (x1, y1) = at[source], at[target]
        level = y0 == y1
        tail = (x0 + 1.1, y0) if level or x1 > x0 else (x0 + 0.52, y0 - 0.45)
        head = (x1 - 0.05, y1) if x1 > x0 else (x1 + 0.52, y1 + 0.45)
        bend = "arc3" if level or x1 == x0 else "angle,angleA=0,angleB=90,rad=6"
        if x1 > x0 and not level:  # down, then across
            tail, bend = (x0 + 0.52, y0 - 0.45), "angle,angleA=-90,angleB=180,rad=6"
        arrow = {"arrowstyle": "-|>", "color": "0.25", "lw": 1.0, "connectionstyle": bend}
        ax.annotate("", head, tail, arrowprops=arrow)
        middle = (x0 + x1 + 1.05) / 2 if level else (x1 - 0.4)
        words = {"ha": "center", "va": "bottom", "fontsize": 6.8, "family": "monospace"}
        ax.text(middle, y1 + 0.1, modules, words)
    for row, name in ((2, "training"), (3, "measuring")):
        ax.text(at["hidden"][0] + 0.4, -1.85 * row, name, ha="right", va="center", fontsize=9)
    return figure


def modules_text() -> str:
    """The tables: every module with its lines and the first line of its docstring."""
    parts = {"the flow": sorted(PACKAGE.glob("*.py"))}
    for folder in sorted(p for p in PACKAGE.iterdir() if (p / "__init__.py").exists()):
        parts[folder.name] = sorted(folder.glob("*.py"))
    lines, total = [], 0
    for part, paths in parts.items():
        rows = []
        for path in paths:
            text = path.read_text(encoding="utf-8")
            why = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            rows.append((path.stem, len(text.splitlines()), why.replace("|", "\\|")))
        size = sum(n for _, n, _ in rows)
        total += size
        lines += ["", f"### {part}: {len(rows)} modules, {size:,} lines", "",
                  "| module | lines | why it exists |", "| --- | --- | --- |"]  # fmt: skip
        lines += [f"| `{name}` | {n} | {why} |" for name, n, why in rows]
    return f"{total:,} lines in all, tests and experiments not counted.\n" + "\n".join(lines)


def page(text: str) -> str:
    """The page with the tables written anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{modules_text()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    figures.save(walk_figure(), ROOT / "figures" / "architecture.png")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and figures/architecture.png")


if __name__ == "__main__":
    main()
