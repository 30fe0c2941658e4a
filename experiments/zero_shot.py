"""Zero-shot language models on INSPIRED's test set (the paper's Table 7), beside everything else.

    python -m experiments.zero_shot --data FOLDER                  # recorded answers
    python -m experiments.zero_shot --data FOLDER --model FOLDER   # and a local instruction model
    python -m experiments.zero_shot --data FOLDER --server http://localhost:11434/v1 \
        --server-model NAME [--key-variable NAME]                  # and a server

Writes `data/results/zero_shot.json`. FOLDER is what `pecrs data download` fills (`inspired`,
`inspired-pecrs`, `llm-answers`), or holds `inspired/` and `llm_responses/`. Every system is
measured on the turns that have a recorded answer, whatever else it could answer. Nothing is
trained or chosen here. Answers of models and servers are kept under `runs/zero_shot/`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.zero_shot_data import (
    MODELS,
    answers,
    load,
    titled_test,
    union_catalogue,
    untitled,
)
from experiments.zero_shot_text import CONSTANT, pecrs_replies, text_table
from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues
from pecrs_lib.baselines import Popularity, fit_baselines
from pecrs_lib.data import Catalogue, Dialogue, match_titles
from pecrs_lib.data.minireel import bundled, bundled_backbone
from pecrs_lib.evaluation import (
    Predictions,
    as_records,
    paired_bootstrap,
    predict,
    recall_table,
)
from pecrs_lib.model import PECRS
from pecrs_lib.recommend import recommend
from pecrs_lib.reproduction.runs import machine
from pecrs_lib.zero_shot.answers import AnswerCache, AnswerSource, RecordedAnswers
from pecrs_lib.zero_shot.asking import (
    Turn,
    at_turns,
    list_predictions,
    list_questions,
    published_predictions,
    reply_predictions,
    substring_predictions,
    turns_of,
)
from pecrs_lib.zero_shot.language_models import LocalModel
from pecrs_lib.zero_shot.likelihood import TitleLikelihood
from pecrs_lib.zero_shot.recommended import (
    agreement,
    found_by,
    found_by_substring,
    head,
    outside,
    popular,
    popularity_bands,
    read_labels,
    repeated,
    top_lists,
    wilson,
)
from pecrs_lib.zero_shot.servers import ServerModel
from pecrs_lib.zero_shot.titles import Title, TitleMatcher

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
LABELS = RESULTS / "zero_shot_titles.csv"
K = (1, 10, 20, 50)
M_TEST = 700  # the paper's M_inference, as in experiments.inspired
CONTEXT_TOKENS = 128  # of the conversation, for the likelihoods: minutes instead of hours on a CPU
THRESHOLDS = (101.0, 95.0, 90.0, 80.0)  # 101: spelling off


def rows(predictions: Sequence[Predictions], k: Sequence[int] = K) -> list[dict[str, Any]]:
    return as_records(recall_table(predictions, k=k))


def matcher_table(catalogue: Catalogue, popularity: Any) -> list[dict[str, Any]]:
    """Precision and recall of each way to read a reply, per labelled sample."""
    labels = read_labels(LABELS)
    ways = {"title is a substring": found_by_substring(catalogue)}
    for threshold in THRESHOLDS:
        for aliases in (False, True):
            spelling = f"spelling {threshold:g}" if threshold <= 100 else "no spelling"
            name = f"matcher, {spelling}, {'with' if aliases else 'no'} other names"
            ways[name] = found_by(TitleMatcher(catalogue, popularity, threshold, aliases))
    table = []
    for sample in dict.fromkeys(label.sample for label in labels):
        chosen = [label for label in labels if label.sample == sample]
        for name, find in ways.items():
            found = agreement(find, chosen)
            rates = {
                "precision": rate(found.right, found.right + found.wrong),
                "recall": rate(found.right, found.right + found.missed),
            }
            table.append(
                {"sample": sample, "n": len(chosen), "way": name, **asdict(found), **rates}
            )
    return table


def rate(hits: int, n: int) -> dict[str, Any]:
    """A share in percent with Wilson's interval; None for a share of nothing."""
    low, high = wilson(hits, n) if n else (None, None)
    return {"value": 100 * hits / n if n else None, "low": low, "high": high, "n": n}


def published_table(recorded: Sequence[RecordedAnswers]) -> list[dict[str, Any]]:
    """The answers as He et al. (2023) rate them, in all four of their settings."""
    table = []
    for max_distance in (None, 2):
        for drop_seen in (False, True):
            predictions = [published_predictions(r, max_distance, drop_seen) for r in recorded]
            setting = {"max_distance": max_distance, "drop_seen": drop_seen}
            table += [setting | row for row in rows(predictions, (1, 5, 10, 20))]
    return table


def protocols(
    name: str, replies: Mapping[Turn, str], matcher: TitleMatcher, test: Sequence[Dialogue]
) -> tuple[list[Predictions], dict[Turn, list[Title]]]:
    """Every way to rate the answers of one source, and the titles they name."""
    named = dict(zip(replies, matcher.in_lists(list(replies.values())), strict=True))
    first = {turn: titles[:1] for turn, titles in named.items()}
    films = matcher.catalogue
    return [
        list_predictions(f"{name}: list of 20", named, test, films),
        list_predictions(f"{name}: list of 20, catalogue only", named, test, films, True),
        reply_predictions(f"{name}: title in first entry", first, test, films),
        substring_predictions(f"{name}: substring of first entry", replies, test, films, True),
        reply_predictions(f"{name}: title in reply", named, test, films),
        substring_predictions(f"{name}: substring of reply", replies, test, films),
    ], named


def pecrs(
    model: PECRS, known: Catalogue, test: Sequence[Dialogue], turns: Sequence[Turn], v: Any
) -> tuple[Predictions, dict[Turn, list[int]]]:
    """Ranks of the targets, and the first ten films at each turn."""
    ranked = rank_dialogues(model, test, known, v, candidates=M_TEST)
    lists = {}
    for at in range(0, len(turns), 16):
        batch = turns[at : at + 16]
        histories = [Dialogue(test[d].id, test[d].utterances[:t]) for d, t in batch]
        found = recommend(model, histories, known, v, top=10, candidates=M_TEST)
        for turn, films in zip(batch, found, strict=True):
            lists[turn] = [known.row[film.movie.id] for film in films]
    return predictions_of(ranked, test, known, "PECRS, seed 0"), lists


def likelihoods(
    titled: Catalogue, test: Sequence[Dialogue], turns: set[Turn]
) -> tuple[list[Predictions], dict[str, dict[Turn, list[int]]]]:
    """The bundled language model, which knows INSPIRED's training dialogues, as a ranker."""
    folder = bundled_backbone("reel-small")
    lm: Any = AutoModelForCausalLM.from_pretrained(folder).float()
    names = [None if movie.title == untitled(movie) else movie.name for movie in titled]
    weights = hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()
    cache = ROOT / "runs" / "zero_shot" / "likelihood"
    cache.mkdir(parents=True, exist_ok=True)
    found, lists = [], {}
    for label, per_token, lift in (
        ("sum", False, False),
        ("per token", True, False),
        ("lift", False, True),
    ):
        ranker = TitleLikelihood(
            f"reel-small: log-likelihood, {label}", lm, AutoTokenizer.from_pretrained(folder),
            names, per_token=per_token, lift=lift, context_tokens=CONTEXT_TOKENS, chunk=16,
        )  # fmt: skip
        once = ranker.log_likelihood

        def kept(prompt: str, once: Any = once) -> Any:
            """On disk: the same log-likelihoods serve all three scores, and the next run."""
            asked = json.dumps([weights, names, CONTEXT_TOKENS, prompt])
            path = cache / f"{hashlib.sha256(asked.encode()).hexdigest()}.npy"
            if not path.exists():
                np.save(path, once(prompt))
            return np.load(path)

        ranker.log_likelihood = kept  # type: ignore[method-assign]
        found.append(at_turns(predict(ranker, test, titled), turns))
        lists[ranker.name] = top_lists(ranker, test, sorted(turns), 10)
    return found, lists


def shares(
    lists: Mapping[str, Mapping[Turn, Sequence[int]]],
    test: Sequence[Dialogue],
    catalogue: Catalogue,
    popularity: Any,
) -> list[dict[str, Any]]:
    """Repeated films, popular films, titles outside the catalogue: at the first place and ten."""
    top = head(popularity)
    return [
        {
            "system": name,
            "k": k,
            "repeated": asdict(repeated(listed, test, catalogue, k)),
            "popular": asdict(popular(listed, top, k)),
            "outside": asdict(outside(listed, k)),
            "bands": {n: asdict(s) for n, s in popularity_bands(listed, popularity, k).items()},
            "distinct": len({row for rows in listed.values() for row in rows[:k] if row >= 0}),
        }
        for name, listed in lists.items()
        for k in (1, 10)
    ]


def outside_of(
    catalogue: Catalogue, named: Mapping[str, Mapping[Turn, Sequence[Title]]]
) -> list[dict[str, Any]]:
    """Shares of titles that a catalogue does not have, homonyms counting as had."""
    matcher = TitleMatcher(catalogue)
    table = []
    for system, replies in named.items():
        texts = [title.text for titles in replies.values() for title in titles]
        looked_up = iter(matcher.titles(texts))
        lists = {
            turn: [-1 if next(looked_up).how == "unmatched" else 0 for _ in titles]
            for turn, titles in replies.items()
        }
        table += [{"system": system, "k": k, "outside": asdict(outside(lists, k))} for k in (1, 10)]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", nargs="*", default=[], help="local instruction models")
    parser.add_argument("--server", help="address of an OpenAI-compatible server, with /v1")
    parser.add_argument("--server-model")
    parser.add_argument("--key-variable", help="environment variable that holds the server's key")
    parser.add_argument(
        "--no-likelihood", action="store_true", help="skip reel-small: minutes on a free core"
    )
    args = parser.parse_args()
    known, titled, splits = load(args.data)
    test, recorded = splits["test"], answers(args.data)
    readable = titled_test(args.data, titled)
    questions = {(q.dialogue, q.turn): q for q in list_questions(readable)}
    turns = [turn for turn in turns_of(test) if turn in recorded[0].turns]
    popularity = Popularity().fit(splits["train"], titled).counts
    matcher = TitleMatcher(titled, popularity)

    baselines = fit_baselines(splits["train"], known)
    predictions = [at_turns(predict(b, test, known), set(turns)) for b in baselines]
    lists: dict[str, Any] = {b.name: top_lists(b, test, turns, 10) for b in baselines}
    model = PECRS.from_pretrained(bundled("checkpoints/inspired"))
    v = item_vectors(model, known, cache_dir=ROOT / "runs" / "cache")
    trained, lists["PECRS, seed 0"] = pecrs(model, known, test, turns, v)
    predictions.append(at_turns(trained, set(turns)))
    plain = len(predictions)
    if not args.no_likelihood:
        ranked, made = likelihoods(titled, readable, set(turns))
        predictions += ranked
        lists |= made

    sources: list[AnswerSource] = [*recorded]
    cache = AnswerCache(ROOT / "runs" / "zero_shot" / "answers.jsonl")
    sources += [LocalModel.load(name, cache=cache) for name in args.model]
    if args.server:
        if not args.server_model:
            parser.error("--server needs --server-model")
        sources.append(ServerModel(args.server, args.server_model, args.key_variable, cache))
    named: dict[str, dict[Turn, list[Title]]] = {}
    replies: dict[str, dict[Turn, str]] = {}
    for source in sources:
        asked = [questions[turn] for turn in turns]
        said = zip(turns, source.answer(asked), strict=True)
        replies[source.name] = {turn: reply for turn, reply in said if reply is not None}
        rated, named[source.name] = protocols(source.name, replies[source.name], matcher, test)
        predictions += rated
        lists[source.name] = {
            turn: [-1 if title.row is None else title.row for title in titles]
            for turn, titles in named[source.name].items()
        }
    lists["the recommenders themselves"] = {
        (d, t): [known.row[i] for i in test[d].utterances[t].items if i in known] for d, t in turns
    }
    others = predictions[:plain]
    against = [
        vars(paired_bootstrap(p, other, k, targets))
        | {"system": p.name, "against": other.name, "targets": targets}
        for p in predictions
        if p.name.endswith((": list of 20", "log-likelihood, sum"))
        for other in others
        if other.name != "Random"
        for targets in ("all", "novel")
        for k in (1, 10, 20)
    ]
    union = union_catalogue(args.data, titled)
    with_titles = sum(movie.title != untitled(movie) for movie in titled)
    targets = {item for p in predictions[:1] for item in p.item.tolist()}
    record = {
        **machine(),
        "data": "INSPIRED test, the turns with recorded answers, whole catalogue",
        "config": {
            "threshold": matcher.threshold, "aliases": bool(matcher.alias), "head": 0.05,
            "candidates_at_test": M_TEST, "samples": 2000,
            "context_tokens": None if args.no_likelihood else CONTEXT_TOKENS,
        },
        "n_items": len(titled),
        "n_items_with_title": with_titles,
        "n_dialogues": len({d for d, _ in turns}),
        "n_turns": len(turns),
        "n_points": len(predictions[0]),
        "n_points_novel": int(predictions[0].novel.sum()),
        "n_targets": len(targets),
        "n_targets_with_title": sum(
            titled[titled.row[i]].title != f"Film {i}" for i in targets if i in titled
        ),
        "rows": rows(predictions),
        "text": text_table(replies, pecrs_replies(model, known, test, turns, v), readable, titled,
                           titled[int(popularity.argmax())].name),
        "text_constant": CONSTANT,
        "paired": against,
        "as_published": published_table(recorded),
        "shares": shares(lists, test, titled, popularity),
        "outside_of_either_catalogue": {
            "n_items": len(union) if union else None,
            "rows": outside_of(union, named) if union else [],
        },
        "matcher": matcher_table(titled, popularity),
        "short_titles": short_titles(MODELS[0], replies[MODELS[0]], named[MODELS[0]], titled),
    }  # fmt: skip
    path = RESULTS / "zero_shot.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(recall_table(predictions, k=K).round(1).to_string())


def short_titles(
    model: str,
    replies: Mapping[Turn, str],
    named: Mapping[Turn, Sequence[Title]],
    catalogue: Catalogue,
) -> list[dict[str, Any]]:
    """In how many replies of one model a short title is a substring, and in how many a film."""
    table = []
    for title in ("It", "Up", "Her", "Us"):
        match = match_titles([title], catalogue, threshold=101)[0]
        held = sum(title.casefold() in reply.casefold() for reply in replies.values())
        film = sum(any(set(t.rows) & set(match.rows) for t in found) for found in named.values())
        table.append(
            {
                "title": title,
                "model": model,
                "in_catalogue": bool(match.rows),
                "substring": rate(held, len(replies)),
                "film": rate(film, len(replies)),
            }
        )
    return table


if __name__ == "__main__":
    main()
