"""Draw figures/ from data/results/ alone: `make figures`."""

from __future__ import annotations

import json
from pathlib import Path

from pecrs_lib import figures

ROOT = Path(__file__).resolve().parents[1]
RESULTS, OUT = ROOT / "data" / "results", ROOT / "figures"


def main() -> None:
    OUT.mkdir(exist_ok=True)
    drawn = []
    inspired = RESULTS / "inspired.json"
    if inspired.exists():
        rows = json.loads(inspired.read_text(encoding="utf-8"))["rows"]
        for targets in ("all", "novel"):
            figures.save(
                figures.recall_figure(rows, targets=targets), OUT / f"inspired_{targets}.png"
            )
            drawn.append(f"inspired_{targets}.png")
    bench = RESULTS / "bench_one_pass.json"
    if bench.exists():
        report = json.loads(bench.read_text(encoding="utf-8"))
        figures.save(figures.cost_figure(report), OUT / "one_pass.png")
        drawn.append("one_pass.png")
    print("drawn:", ", ".join(drawn) or "nothing, data/results is empty")


if __name__ == "__main__":
    main()
