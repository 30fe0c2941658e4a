"""The backbones that come with the package: small language models of films and talk.

    python -m experiments.backbone general  --data FOLDER --out runs/general-small
    python -m experiments.backbone dialogue --data FOLDER --out runs/reel-small \
        --start runs/general-small
    python -m experiments.backbone ship --start runs/reel-small --out data/backbone/reel-small

Two stages, each resumable: `general` reads films, books, reviews and dialogues of many kinds;
`dialogue` goes on with what the model is for, people (and MiniReel's simulated people) talking
about films (Gururangan et al. 2020). FOLDER holds `redial/`, `inspired/`, `movies/` and `text/`;
see the model cards in `data/backbone/` for where each text comes from. None of the held-out
dialogues of `corpus` is trained on: `pretrain` looks for them and stops if it finds one. All of
ReDial's training file is read, of which `redial_folder` later keeps a tenth for validation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from pecrs_lib.context import SPEAKER
from pecrs_lib.data import Catalogue, Dialogue
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.data.minireel import load_minireel
from pecrs_lib.data.readers import read_dialogues
from pecrs_lib.documents import EOS, dialogue_text, item_documents
from pecrs_lib.pretrain import PretrainConfig, pretrain

WORD = re.compile(r"[A-Za-z][A-Za-z'-]{2,}")
STOP = {
    "the", "and", "his", "her", "who", "their", "with", "for", "from", "that", "into", "when",
    "after", "has", "are", "was", "but", "not", "all", "they", "him", "she", "its", "out", "one",
    "two", "must", "until", "while", "where", "about", "been", "have", "will", "can", "only",
    "over",
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(n_embd=128, n_head=4),
    "small": dict(n_embd=256, n_head=4),
    "base": dict(n_embd=320, n_head=5, bfloat16=True),
}
LAYERS = {
    "general": {"tiny": 4, "small": 6, "base": 6},
    "dialogue": {"tiny": 4, "small": 3, "base": 6},
}
STEPS = {
    "general": {"tiny": 2500, "small": 1600, "base": 5000},
    "dialogue": {"tiny": 1600, "small": 1200, "base": 2400},
}
RATE = {
    "general": {"tiny": 4e-3, "small": 2e-3, "base": 1.5e-3},
    "dialogue": {"tiny": 2e-3, "small": 1.5e-3, "base": 1e-3},
}


def films(path: Path) -> Iterator[str]:
    """Title, people, genres and plot of a large table of films."""
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        film = json.loads(line)
        name = f"{film['title']} ({film['year']})" if film.get("year") else film["title"]
        people = [", ".join((film.get(key) or [])[:5]) for key in ("actors", "directors", "genres")]
        plots = film.get("plots") or {}
        for plot in filter(None, (plots.get("tmdb"), plots.get("wiki"))):
            yield "\n".join(filter(None, [name, *people, plot[:800]])) + EOS


def services(path: Path) -> Iterator[str]:
    """Schema-Guided Dialogue, in the form of our own dialogues."""
    roles = {"USER": SPEAKER["seeker"], "SYSTEM": SPEAKER["recommender"]}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == "train":
            yield "".join(f"{roles[role]} {text}{EOS}" for role, text in row["turns"])


def members(path: Path, start: str) -> Iterator[str]:
    """The text files of a zip whose name starts so; loose tokenisation is joined again."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(start) and not name.endswith("/"):
                text = archive.read(name).decode("latin-1")
                for a, b in ((" ,", ","), (" .", "."), (" ' ", "'"), (" ?", "?"), (" !", "!")):
                    text = text.replace(a, b)
                yield text


def books(path: Path, n_characters: int) -> Iterator[str]:
    """The opening of each book, up to `n_characters`."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield " ".join(json.loads(line)["text"][2000 : 2000 + n_characters].split()) + EOS


def keywords_of(catalogue: Catalogue, rng: np.random.Generator) -> Callable[[str], list[str]]:
    """Item id -> a person or genre and three words of the plot, in random order, new every time."""

    def draw(item: str) -> list[str]:
        if item not in catalogue:
            return []
        movie = catalogue[catalogue.row[item]]
        facts = [*movie.genres, *movie.actors, *movie.directors]
        plot = [w for w in dict.fromkeys(WORD.findall(movie.plot)) if w.lower() not in STOP]
        drawn = [*rng.permutation(facts)[:1].tolist(), *rng.permutation(plot)[:3].tolist()]
        return rng.permutation(drawn).tolist() if drawn else []

    return draw


def sample(documents: Iterable[str], n: int, rng: np.random.Generator) -> list[str]:
    """At most n of the documents, without replacement."""
    documents = list(documents)
    return [documents[k] for k in rng.permutation(len(documents))[:n]]


def corpus(stage: str, data: Path) -> tuple[dict[str, list[str]], dict[str, list[Dialogue]]]:
    """Documents by source, and the held-out dialogues by data set."""
    rng = np.random.default_rng(0)
    catalogue, inspired = inspired_folder(data / "inspired")
    redial = read_dialogues(data / "redial" / "train.jsonl.gz", "redial")
    talk = {
        "ReDial train": [dialogue_text(d) for d in redial],
        "INSPIRED train": [dialogue_text(d) for d in inspired["train"]],
    }
    held_out = {
        "ReDial valid": read_dialogues(data / "redial" / "valid.jsonl.gz", "redial"),
        "INSPIRED dev": inspired["valid"],
        "INSPIRED test": inspired["test"],
    }
    text = data / "text"
    if stage == "general":
        subjectivity = "".join(members(text / "nltk_subjectivity.zip", "subjectivity/plot"))
        return {
            **talk,
            "films": sample(films(data / "movies" / "movies_merged.jsonl.gz"), 20_000, rng),
            "Schema-Guided Dialogue": sample(services(text / "sgd_dialogues.jsonl.gz"), 6_000, rng),
            "movie reviews": [
                t + EOS for t in members(text / "nltk_movie_reviews.zip", "movie_reviews/pos")
            ],
            "plot sentences": [line + EOS for line in subjectivity.splitlines() if line],
            "books": list(books(text / "books.jsonl.xz", 16_000)),
        }, held_out
    reel, splits = load_minireel()
    held_out["MiniReel valid"], held_out["MiniReel test"] = splits["valid"], splits["test"]
    about, known = keywords_of(reel, rng), keywords_of(catalogue, rng)
    talk["ReDial train"] = sample(talk["ReDial train"], 4_500, rng)
    talk["INSPIRED train"] = [dialogue_text(d, known) for _ in range(2) for d in inspired["train"]]
    return {
        **talk,
        "MiniReel train": [dialogue_text(d, about) for _ in range(4) for d in splits["train"]],
        "MiniReel films": item_documents(reel) * 3,
        "INSPIRED films": item_documents(catalogue),
    }, held_out


def ship(start: Path, out: Path) -> None:
    """The finished model in half precision, with the record of both stages; the card is kept."""
    record = json.loads((start / "pretrain.json").read_text(encoding="utf-8"))
    GPT2LMHeadModel.from_pretrained(start, dtype=torch.float16).save_pretrained(out)
    PreTrainedTokenizerFast.from_pretrained(start).save_pretrained(out)
    for stage, folder in (("dialogue", start), ("general", Path(record["start"]))):
        shutil.copy(folder / "pretrain.json", out / f"{stage}.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=(*STEPS, "ship"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, help="steps of 4,096 tokens")
    parser.add_argument("--start", type=Path, help="the model to go on from")
    args = parser.parse_args()
    if args.stage == "ship":
        ship(args.start, args.out)
        return
    sources, held_out = corpus(args.stage, args.data)
    written = {name: [dialogue_text(d) for d in ds] for name, ds in held_out.items()}
    steps = args.steps or STEPS[args.stage][args.size]
    pretrain(
        [text for texts in sources.values() for text in texts],
        {name: texts for name, texts in written.items() if "test" not in name},
        args.out,
        PretrainConfig(
            **SIZES[args.size], n_layer=LAYERS[args.stage][args.size], n_positions=512,
            steps=steps, warmup_steps=steps // 20, learning_rate=RATE[args.stage][args.size],
        ),
        kept_out={name: texts for name, texts in written.items() if "test" in name},
        start=args.start,
        sources={name: len(texts) for name, texts in sources.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
