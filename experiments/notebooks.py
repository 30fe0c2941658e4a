"""Execute the notebooks and write their outputs; point their badges at a repository.

    python -m experiments.notebooks run [NAME …]        # all, or those whose name contains NAME
    python -m experiments.notebooks badges OWNER/NAME   # `make badges REPO=owner/name`

Committed outputs come from a top-to-bottom run in the CPU preset. What differs from run to run or
means nothing outside a running notebook is left out: progress bars, warnings, widget views.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
PYPROJECT = ROOT / "pyproject.toml"  # [project.urls] holds the address of the repository
CITATION = ROOT / "CITATION.cff"


def paths() -> list[Path]:
    """Every notebook, lessons before solutions."""
    return sorted(NOTEBOOKS.glob("*.ipynb")) + sorted(NOTEBOOKS.glob("*/*.ipynb"))


def cleaned(outputs: list[Any]) -> list[Any]:
    """Outputs without error streams; a widget is named, since its view needs a running kernel."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        data = output.get("data", {})
        if WIDGET in data and "%|" in data.get("text/plain", ""):
            continue  # a progress bar
        if WIDGET in data:
            del data[WIDGET]
            data["text/plain"] = "(controls: run this cell to use them)"
        output.get("metadata", {}).clear()
        kept.append(output)
    return kept


def run(path: Path, timeout: int = 300) -> float:
    """Execute from top to bottom and write the result; returns the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    NotebookClient(
        notebook, timeout=timeout, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    seconds = time.perf_counter() - started
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = cleaned(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)
    return seconds


def repository() -> str:
    """owner/name, from pyproject.toml."""
    text = PYPROJECT.read_text(encoding="utf-8")
    found = re.search(r'Repository = "https://github\.com/([\w.-]+/[\w.-]+)"', text)
    if found is None:
        raise SystemExit("pyproject.toml has no Repository address under [project.urls]")
    return found[1]


def badges(name: str) -> None:
    """Write another owner/name into pyproject.toml, CITATION.cff, badges and set-up cells."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise SystemExit(f"REPO must be owner/name, got {name!r}")
    old = repository()
    for path in (PYPROJECT, CITATION, *paths()):
        text = path.read_text(encoding="utf-8")
        for host in ("github.com/", "colab.research.google.com/github/"):
            text = text.replace(host + old, host + name)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=("run", "badges"))
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if args.action == "badges":
        badges(*args.names)
        return
    for path in paths():
        if not args.names or any(name in path.name for name in args.names):
            print(f"{path.name}: {run(path):.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
