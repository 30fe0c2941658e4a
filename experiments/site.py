"""Write the notebooks, docs and cards as a site, or the notebooks as slides; nothing is downloaded.

    python -m experiments.site pages site      # `make site`
    python -m experiments.site slides slides   # `make slides`

What stands in them is said in `docs/site/conf.py`. Needs the extra `docs`. A broken link, or
anything else that Sphinx warns of, ends it, and what was there before stays.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
BUILDERS = {"pages": "html", "slides": "revealjs"}
INDEX = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Slides</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="_static/icon.svg">
<body style="font: 1.1em/1.8 sans-serif; max-width: 42em; margin: 2em auto; padding: 0 1em">
<h1>Slides</h1><p>Space goes through all of a deck. Right goes to the next section, down to its next
slide: a picture with its words, then its code. The answer to a prediction comes with the next key.
F fills the screen.</p>
<ul>{decks}</ul></body></html>
"""


def list_of_decks(folder: Path) -> str:
    """The first page of the slides: a link to the deck of every notebook."""
    decks = []
    for page in sorted(folder.glob("notebooks/*.html")):
        notebook = nbformat.read(ROOT / "notebooks" / f"{page.stem}.ipynb", as_version=4)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        decks.append(f'<li><a href="notebooks/{page.name}">{title}</a></li>')
    return INDEX.format(decks="\n".join(decks))


def build(kind: str, folder: Path) -> None:
    """Make it elsewhere, then put it in the place of `folder`."""
    from sphinx.cmd.build import main as sphinx

    if folder.exists() and not (folder / "objects.inv").exists():  # which Sphinx leaves
        raise SystemExit(f"{folder} is there and holds something else")
    with tempfile.TemporaryDirectory() as beside:
        made = Path(beside, kind)
        call = ["-q", "-W", "--keep-going", "-b", BUILDERS[kind], "-t", kind]
        where = ["-c", str(ROOT / "docs" / "site"), "-d", str(Path(beside, "kept"))]
        if status := sphinx([*call, *where, str(ROOT), str(made)]):
            raise SystemExit(status)
        if kind == "pages":
            shutil.copy(made / "README.html", made / "index.html")
        else:
            (made / "index.html").write_text(list_of_decks(made), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=BUILDERS)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    build(args.kind, args.folder)
    print(f"open {args.folder / 'index.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
