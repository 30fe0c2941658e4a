"""A small backbone from training texts only: INSPIRED train, ReDial train and film descriptions.

    python -m experiments.inspired_backbone --data FOLDER --out runs/backbone

FOLDER holds `inspired/`, and where they are at hand `redial/train.jsonl.gz` and
`movies/movies_merged.jsonl.gz`. No dev or test dialogue is trained on; INSPIRED dev measures.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np

from experiments.inspired_data import load
from pecrs_lib.data.readers import read_dialogues
from pecrs_lib.pretrain import EOS, PretrainConfig, dialogue_text, item_documents, pretrain


def film_documents(path: Path) -> list[str]:
    """Title, people, genres and plot of a large table of films."""
    documents = []
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        film = json.loads(line)
        name = f"{film['title']} ({film['year']})" if film.get("year") else film["title"]
        people = [", ".join((film.get(key) or [])[:5]) for key in ("actors", "directors", "genres")]
        plots = film.get("plots") or {}
        for plot in filter(None, (plots.get("tmdb"), plots.get("wiki"))):
            documents.append("\n".join(filter(None, [name, *people, plot[:800]])) + EOS)
    return documents


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--films", type=int, default=5_000, help="film documents to use")
    args = parser.parse_args()
    catalogue, splits = load(args.data / "inspired")
    documents = [dialogue_text(d) for d in splits["train"]] * 2  # few, and what matters most
    documents += item_documents(catalogue)
    redial = args.data / "redial" / "train.jsonl.gz"
    if redial.exists():
        documents += [dialogue_text(d) for d in read_dialogues(redial, "redial")]
    films = args.data / "movies" / "movies_merged.jsonl.gz"
    if films.exists():
        texts = film_documents(films)
        keep = np.random.default_rng(0).permutation(len(texts))[: args.films]
        documents += [texts[k] for k in keep]
    held_out = [dialogue_text(d) for d in splits["dev"]]
    documents = [text for text in documents if text not in set(held_out)]
    pretrain(
        documents,
        held_out,
        args.out,
        PretrainConfig(steps=args.steps, warmup_steps=args.steps // 10),
    )


if __name__ == "__main__":
    main()
