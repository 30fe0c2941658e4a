"""What `experiments.zero_shot` reads: INSPIRED with as many titles as can be had, and the answers.

The paper's authors number INSPIRED's films; a language model answers with titles. Their `movie_db`
has them all. Where it is missing, the titles are put together from the official files of INSPIRED
(the same dialogues, films by name) and from the table of recovered titles. A folder may be that of
`pecrs data download` (data set / file) or hold `inspired/` and `llm_responses/`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pecrs_lib.data import Catalogue, Dialogue, Movie, read_inspired, read_movie_db, read_processed
from pecrs_lib.data.local import recovered_catalogue
from pecrs_lib.data.spans import split_year
from pecrs_lib.zero_shot.answers import RecordedAnswers

SPLITS = ("train", "dev", "test")
MODELS = ("gpt-4", "gpt-3.5-turbo", "vicuna", "baize")


def first_of(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def processed(folder: Path, split: str) -> Path:
    name = f"{split}_data_processed"
    path = first_of(folder, f"inspired-pecrs/{name}", f"inspired/pecrs/{name}")
    if path is None:
        raise FileNotFoundError(f"{folder}: no {name}; `pecrs data download inspired-pecrs`")
    return path


def load(folder: Path) -> tuple[Catalogue, Catalogue, dict[str, list[Dialogue]]]:
    """The catalogue as PECRS was trained on it, the same with more titles, and the dialogues.

    Their texts name films as the first of the two does, as in training.
    """
    database = first_of(folder, "inspired-pecrs/movie_db", "inspired/pecrs/movie_db")
    if database:
        known = read_movie_db(database)
    else:
        known = recovered_catalogue(folder / "inspired" / "id2movie.jsonl.gz")
    splits = {split: read_processed(processed(folder, split), known) for split in SPLITS}
    return known, known if database else with_official_titles(folder, known, splits), splits


def titled_test(folder: Path, titled: Catalogue) -> list[Dialogue]:
    """The test dialogues with all known titles in the text: what a language model is to read."""
    return read_processed(processed(folder, "test"), titled)


def with_official_titles(
    folder: Path, catalogue: Catalogue, splits: dict[str, list[Dialogue]]
) -> Catalogue:
    """Titles as INSPIRED's own files give them to the utterances, whose films they list by name.

    The order of films within an utterance differs between the two, so utterances with one film
    decide; those with several name only what is left of them.
    """
    pairs: list[tuple[list[str], list[str]]] = []
    for split, dialogues in splits.items():
        path = first_of(folder, f"inspired/{split}.tsv")
        for ours, theirs in zip(dialogues, read_inspired(path) if path else [], strict=False):
            pairs += aligned(ours, theirs)
    named = votes([(mine[0], theirs[0]) for mine, theirs in pairs if len(mine) == 1])
    taken = set(named.values())
    left = [
        ([i for i in mine if i not in named], [n for n in theirs if n not in taken])
        for mine, theirs in pairs
    ]
    known = {movie.id for movie in catalogue if movie.title != untitled(movie)}
    single = [(mine[0], theirs[0]) for mine, theirs in left if len(mine) == len(theirs) == 1]
    named |= {i: name for i, name in votes(single).items() if i not in known}
    parts = {i: split_year(name) for i, name in named.items()}
    return Catalogue(
        tuple(
            replace(movie, title=parts[movie.id][0], year=parts[movie.id][1])
            if movie.id in parts
            else movie
            for movie in catalogue
        )
    )


def union_catalogue(folder: Path, titled: Catalogue) -> Catalogue | None:
    """Our titles and those of He et al. (2023), whose catalogue of 1,123 films has them all."""
    home = first_of(folder, "llm-answers", "llm_responses")
    entities = home and first_of(home, "entity2id.json", "inspired_entity2id.json")
    items = home and first_of(home, "item_ids.json", "inspired_item_ids.json")
    if entities is None or items is None:
        return None
    names = {number: name for name, number in json.loads(entities.read_text("utf-8")).items()}
    pages = [names[number] for number in json.loads(items.read_text("utf-8"))]
    films = [page.rsplit("/", 1)[-1].rstrip(">").replace("_", " ") for page in pages]
    extra = tuple(Movie(f"dbpedia:{i}", film.split(" (")[0]) for i, film in enumerate(films))
    ours = tuple(movie for movie in titled if movie.title != untitled(movie))
    return Catalogue((*ours, *extra))


def votes(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item, name in pairs:
        counts[item][name] += 1
    return {item: names.most_common(1)[0][0] for item, names in counts.items()}


def untitled(movie: Movie) -> str:
    """What `recovered_catalogue` calls a film whose title is not known."""
    return f"Film {movie.id}"


def aligned(ours: Dialogue, theirs: Dialogue) -> list[tuple[list[str], list[str]]]:
    """Ids and names of the films of each utterance that has as many in both."""
    if len(ours) != len(theirs):
        return []
    return [
        ([m.item for m in a.mentions], [m.item for m in b.mentions])
        for a, b in zip(ours.utterances, theirs.utterances, strict=True)
        if a.mentions and len(a.mentions) == len(b.mentions)
    ]


def answers(folder: Path, models: Sequence[str] = MODELS) -> list[RecordedAnswers]:
    """The recorded answers of He et al. (2023) to INSPIRED's test contexts."""
    home = first_of(folder, "llm-answers", "llm_responses")
    if home is None:
        raise FileNotFoundError(f"{folder}: no answers; `pecrs data download llm-answers`")
    contexts = first_of(home, "test.jsonl", "inspired_test.jsonl")
    found = []
    for model in models:
        path = first_of(home, f"{model}.jsonl", f"inspired_{model}.jsonl.gz")
        if path is None or contexts is None:
            raise FileNotFoundError(f"{home}: no answers of {model}, or no test.jsonl")
        found.append(RecordedAnswers.read(path, contexts, model))
    return found
