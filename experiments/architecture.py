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
    "films.jsonl": ((0, 0), "a file"), "Catalogue": ((0, 1), "N films"),
    "ItemFeatures": ((0, 2), "(all tokens, D)"), "v": ((0, 3), "(N, D)"),
    "test.jsonl": ((1, 0), "a file"), "Dialogue": ((1, 1), "who said what"),
    "Window": ((1, 2), "(T,) ids, slots"), "Batch": ((1, 3), "(B, T), mask"),
    "hidden": ((1, 4), "(B, T, D)"), "Ranking": ((1, 5), "(Q, M)"),
    "NextTurn": ((1, 6), "films, whether to"), "Reply": ((1, 7), "text, film"),
    "Losses": ((0, 5), "Eq 3–5, 7, 8"), "weights": ((0, 6), "LoRA, heads"),
    "run/": ((0, 7), "checkpoints"),
    "Ranked": ((2, 5), "ranks, −log p"), "table": ((2, 6), "recall [interval]"),
    "picture": ((2, 7), "PNG, widget"),
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
    """What a dialogue becomes on its way down, and the modules that make it so; its type is
    legible on a phone."""
    figure, ax = figures.axes_of(size=(4.5, 7.8))
    ax.set_axis_off()
    ax.set(xlim=(-0.48, 2.58), ylim=(-7.45, 0.4))
    for name, ((x, row), what) in THINGS.items():
        shade = "#f3efe2" if x != 1 and row > 3 else "#dfe8f3"
        box = FancyBboxPatch(
            (x - 0.4, -row - 0.22), 0.8, 0.44, "round,pad=0.04", fc=shade, ec="0.3"
        )
        ax.add_patch(box)
        ax.text(x, 0.1 - row, name, ha="center", va="center", fontsize=10, weight="bold")
        ax.text(x, -0.12 - row, what, ha="center", va="center", fontsize=8.5)
    arrow = {"arrowstyle": "-|>", "color": "0.25", "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
    for source, target, modules in WAYS:
        (x0, down0), (x1, down1) = THINGS[source][0], THINGS[target][0]
        tail, head, bend = (x0, -down0 - 0.26), (x1, 0.26 - down1), "arc3"
        if down0 == down1:
            tail, head = (x0 + 0.44, -down0), (x1 - 0.44, -down1)
        elif x0 != x1:  # across, then down
            tail, bend = (x0 + 0.44 * (x1 - x0), -down0), "angle,angleA=0,angleB=90,rad=6"
        ax.annotate("", head, tail, arrowprops=arrow | {"connectionstyle": bend})
        words = {"va": "center", "fontsize": 8.5, "family": "monospace", "linespacing": 1}
        ax.text(x1 + 0.04, 0.5 - down1, modules, words)
    for x, name in ((0, "training"), (2, "measuring")):
        ax.text(x, -3.9, name, ha="center", va="bottom", fontsize=10, style="italic")
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
