"""ILM meets PECRS: what tokens of interactions add to item texts, warm and cold films apart.

    python -m experiments.ilm_pecrs minireel
    python -m experiments.ilm_pecrs redial --data FOLDER   # train, valid, forms and item texts
    python -m experiments.ilm_pecrs collect                # data/results/ilm_pecrs.json

Retrieval heads alone, trained by the warm start without a pass of the language model, equal steps,
three seeds. On MiniReel interactions are the likes of training seekers, on ReDial those of the
forms after training conversations. Tested on MiniReel's test dialogues, and on the thousand ReDial
dialogues that a published split keeps for validation (ReDial's test set is not read); nothing was
chosen on either. Every run leaves a file in `runs/ilm/` and is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.ilm import RESULT, RUNS, SEEDS, cell, done, once
from pecrs_lib.calibration import calibrate
from pecrs_lib.config import TINY
from pecrs_lib.context import Window
from pecrs_lib.data import Dialogue, load_minireel, read_redial
from pecrs_lib.data.interactions import (
    Interactions,
    describe_movie,
    read_minireel_interactions,
    read_redial_forms,
)
from pecrs_lib.data.matching import match_catalogue, match_titles, most_detailed
from pecrs_lib.data.processed import read_movie_db
from pecrs_lib.data.schema import Catalogue
from pecrs_lib.ilm.alignment import Texts, align, new_qformer
from pecrs_lib.ilm.bridge import ItemsWithTokens, retrieval_places
from pecrs_lib.ilm.cf import cf_vectors
from pecrs_lib.ilm.config import ILMConfig
from pecrs_lib.ilm.language import load_backbone
from pecrs_lib.items import ItemFeatures
from pecrs_lib.model import PECRS
from pecrs_lib.next_item import popularity
from pecrs_lib.protocol import encode_windows
from pecrs_lib.reproduction.runs import machine, rounded, write_run
from pecrs_lib.warmstart import warm_start

TEXT = "text alone"
TOKENS = (TEXT, "aligned tokens", "tokens of another film", "CF vectors", "some tokens hidden")
HIDDEN = 0.3  # of the films in a step, in the last
EPOCHS = 2
DIALOGUES = 3000  # of ReDial's training set: as many as an hour allows


@dataclass(frozen=True)
class Source:
    """What heads are trained and tested on; no seed in it."""

    catalogue: Catalogue
    features: ItemFeatures
    train: list[Window]
    test: list[Window]
    likes: Interactions  # row j is film j of the catalogue


def signs(dialogue: Dialogue) -> frozenset[Any]:
    """What tells a ReDial conversation in every form: lines that name no film, and films named."""
    films = frozenset(m.item for u in dialogue.utterances for m in u.mentions)
    lines = {u.text for u in dialogue.utterances if not u.mentions and len(u.text) > 30}
    return frozenset(lines | ({films} if len(films) > 1 else set()))


def redial_likes(folder: Path, catalogue: Catalogue, tested: Sequence[Dialogue]) -> Interactions:
    """Likes of the forms, without conversations that share a sign with one that is tested on.

    Args:
        tested: with the ids of the data set, not yet matched with the catalogue.
    """
    path = folder / "raw_train_partial.jsonl.gz"
    forms, conversations = read_redial_forms(path), read_redial(path)
    held = frozenset().union(*map(signs, tested))
    matches = match_titles(forms.titles, catalogue, choose=most_detailed)
    row = [match.row for match in matches]
    users = [
        tuple(dict.fromkeys(r for j in taken if (r := row[j]) is not None))
        for taken, conversation in zip(forms.users, conversations, strict=True)
        if not signs(conversation) & held
    ]
    return Interactions(
        tuple(movie.id for movie in catalogue), tuple(movie.name for movie in catalogue),
        tuple(map(describe_movie, catalogue)), tuple(users),
    )  # fmt: skip


@cache
def source(data: str, folder: Path | None) -> Source:
    """MiniReel, or ReDial from a folder with the authors' item texts."""
    if folder is None:
        catalogue, splits = load_minireel()
        train, test = splits["train"], splits["test"]
        likes = read_minireel_interactions()
    else:
        catalogue = read_movie_db(folder / "movie_db")
        parts = [read_redial(folder / name) for name in ("train.jsonl.gz", "valid.jsonl.gz")]
        train, test = (match_catalogue(p, catalogue, choose=most_detailed)[0] for p in parts)
        likes = redial_likes(folder, catalogue, parts[1])
        train = train[:DIALOGUES]
    model = PECRS.from_backbone(TINY)
    features = model.item_features(catalogue, cache_dir=RUNS.parent / "cache")
    windows = (encode_windows(part, catalogue, model) for part in (train, test))
    return Source(catalogue, features, *windows, likes)


def tokens_of(kind: str, likes: Interactions, seed: int) -> Tensor | None:
    """(N, F) what the item head reads beside the text."""
    if kind == TEXT:
        return None
    config = replace(ILMConfig(), seed=seed)
    cf = cf_vectors(likes, config.cf_dim)
    if kind == "CF vectors":
        return cf
    _, tokenizer = load_backbone(config.backbone)
    texts = Texts.of(likes.texts, tokenizer, config.text_tokens)
    former = new_qformer(config, texts)
    warm = torch.from_numpy(np.flatnonzero(popularity(likes.users, len(likes))))
    align(former, cf, texts, likes, warm, config)
    with torch.no_grad():
        outputs = former.encode(cf).flatten(1)
    if kind == "tokens of another film":
        order = warm[torch.randperm(len(warm), generator=torch.Generator().manual_seed(seed))]
        outputs[order] = outputs[order.roll(1)]
    if kind == "some tokens hidden":
        cold = torch.ones(len(outputs), dtype=torch.bool)
        cold[warm] = False
        outputs[cold] = outputs[warm].mean(0)
    return outputs


def run(kind: str, seed: int, data: str, folder: Path | None) -> dict[str, Any]:
    """Heads trained with one kind of tokens, and where they put the films of the test."""
    of = source(data, folder)
    model = PECRS.from_backbone(TINY.with_(seed=seed, warm_start=EPOCHS))
    if (tokens := tokens_of(kind, of.likes, seed)) is not None:
        hidden = HIDDEN if kind == "some tokens hidden" else 0.0
        model.items = ItemsWithTokens(model.items, tokens, hidden)
    calibrate(model, of.train, of.features)
    loss = warm_start(model, of.train, of.features, of.catalogue, epochs=EPOCHS, read_lm=False)
    model.eval()
    with torch.no_grad():
        v = model.encode_catalogue(of.features)
    place, row, dialogue = retrieval_places(model, of.test, v)
    cold = popularity(of.likes.users, len(of.likes))[row] == 0
    return machine() | {
        "tokens": kind, "seed": seed, "epochs": EPOCHS, "loss": rounded(loss, 3),
        "likes": sum(map(len, of.likes.users)), "users": sum(map(bool, of.likes.users)),
        "films": len(of.catalogue), "place": place.tolist(), "dialogue": dialogue.tolist(),
        "cold": cold.astype(int).tolist(),
    }  # fmt: skip


def tables(met: list[dict[str, Any]]) -> dict[str, Any]:
    """Recall of retrieval alone, warm and cold films apart, and what tokens add to texts."""
    about = ("epochs", "likes", "users", "films")
    found: dict[str, Any] = {name: met[0][name] for name in about} | {"rows": {}, "paired": {}}
    for films, wanted in {"all": (0, 1), "warm": (0,), "cold": (1,)}.items():
        hit: dict[str, dict[str, np.ndarray]] = {}
        for kind in TOKENS:
            mine = sorted((r for r in met if r["tokens"] == kind), key=lambda r: r["seed"])
            keep = np.concatenate([np.isin(r["cold"], wanted) for r in mine])
            place = np.concatenate([r["place"] for r in mine])[keep]
            groups = np.concatenate([r["dialogue"] for r in mine])[keep].tolist()
            hit[kind] = {f"R@{k}": 100.0 * (place <= k) for k in (1, 10, 50)}
            found["rows"].setdefault(kind, {})[films] = {
                name: cell(values.tolist(), groups) for name, values in hit[kind].items()
            }
            if kind != TEXT:
                found["paired"].setdefault(kind, {})[films] = {
                    name: cell((values - hit[TEXT][name]).tolist(), groups, -100)
                    for name, values in hit[kind].items()
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("minireel", "redial", "collect"))
    parser.add_argument("--data", type=Path, help="folder of ReDial")
    args = parser.parse_args()
    if args.what == "redial" and not args.data:
        parser.error("redial needs --data")
    if args.what == "collect":
        parts = {data: done(f"pecrs-{data}") for data in ("minireel", "redial")}
        record = {data: tables(met) for data, met in parts.items() if met}
        write_run(machine() | {"seeds": list(SEEDS)} | record, RESULT.with_name("ilm_pecrs.json"))
        return
    folder = args.data if args.what == "redial" else None
    for seed in SEEDS:
        for number, kind in enumerate(TOKENS):
            name = f"pecrs-{args.what}-{number}-{seed}"
            once(name, lambda k=kind, s=seed: run(k, s, args.what, folder))


if __name__ == "__main__":
    main()
