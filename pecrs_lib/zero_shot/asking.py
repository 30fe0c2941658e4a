"""Asking a language model for films, and three ways to rate what it says (section 4.4, Table 7).

After `titles.py` (words → films) and `answers.py` (questions, sources of answers); gives
`evaluation.Predictions`, so that language models stand in one table with PECRS and the baselines,
on the same points. The protocols differ in what counts as recall:

- **title in reply** (the paper): the target's title occurs in the reply. Nothing is ranked, so
  R@1 = R@10 = R@50, and a longer reply hits more: `substring_predictions`, and with whole titles
  instead of substrings `reply_predictions`.
- **list of k** (He et al., 2023, arXiv 2308.10053): the model lists k films, and the rank of the
  target is its place in the list: `list_predictions`. Their own reading of the same answers, with
  the nearest of 17,320 entities for every line, is `published_predictions`.
- **log-likelihood** of every title, which ranks the whole catalogue: `likelihood.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise

import numpy as np

from pecrs_lib.data import Catalogue, Dialogue
from pecrs_lib.evaluation import Point, Predictions, recommendation_points
from pecrs_lib.zero_shot.answers import Question, RecordedAnswers
from pecrs_lib.zero_shot.titles import Title, entries, substring_hit

Turn = tuple[int, int]  # (dialogue, utterance), both 0-based

# The paper does not print its prompt; it asks for "the Recommender response, which should include
# a movie name".
REPLY_PROMPT = (
    "You are the recommender in a conversation about films. Write your next reply to the user. "
    "It should recommend one film by its title."
)
# The prompt of He et al. (2023), which the recorded answers reply to.
LIST_PROMPT = (
    "Pretend you are a movie recommender system. I will give you a conversation between a user and "
    "you (a recommender system). Based on the conversation, you reply me with {k} recommendations "
    "without extra sentences."
)
SILENCE = "…"  # some servers refuse empty messages
_SPEAKERS = {"seeker": "User", "recommender": "System"}


def transcript(dialogue: Dialogue, turn: int) -> str:
    """The utterances before `turn`, a line each, as ``User: …`` and ``System: …``."""
    said = dialogue.utterances[:turn]
    return "\n".join(f"{_SPEAKERS[u.role]}: {' '.join(u.text.split())}" for u in said)


def list_questions(dialogues: Sequence[Dialogue], k: int = 20) -> list[Question]:
    """One question per turn with recommendation points: list `k` films for this conversation."""
    if k < 1:
        raise ValueError(f"a list has at least one film, got k = {k}")
    prompt = LIST_PROMPT.format(k=k) + "\nHere is the conversation:\n"
    return [
        Question(d, t, (("user", f"{prompt}{transcript(dialogues[d], t)}\nSystem:"),))
        for d, t in turns_of(dialogues)
    ]


def reply_questions(dialogues: Sequence[Dialogue]) -> list[Question]:
    """One question per turn with recommendation points: write the recommender's reply.

    The conversation is handed over as a chat, the model being the recommender; neighbouring
    utterances of one speaker become one message, since chat templates want the roles to alternate.
    Where the user has not spoken, at the start or just before, their message is `SILENCE`.
    """
    asked = []
    for d, t in turns_of(dialogues):
        said = dialogues[d].utterances[:t]
        chat = [["user" if u.role == "seeker" else "assistant", u.text] for u in said]
        if not chat or chat[0][0] == "assistant":
            chat.insert(0, ["user", SILENCE])
        merged = [chat[0]]
        for (role, _), (following, text) in pairwise(chat):
            if role == following:
                merged[-1][1] += f" {text}"
            else:
                merged.append([following, text])
        if merged[-1][0] == "assistant":
            merged.append(["user", SILENCE])
        messages = (("system", REPLY_PROMPT), *((role, text) for role, text in merged))
        asked.append(Question(d, t, messages))
    return asked


def turns_of(dialogues: Sequence[Dialogue]) -> list[Turn]:
    """The turns at which recall is measured, in order."""
    return list(dict.fromkeys((p.dialogue, p.turn) for p in recommendation_points(dialogues)))


def list_predictions(
    name: str,
    listed: Mapping[Turn, Sequence[Title]],
    dialogues: Sequence[Dialogue],
    catalogue: Catalogue,
    catalogue_only: bool = False,
) -> Predictions:
    """The rank of a target is its place in the list of its turn, inf where it is not listed.

    A title outside the catalogue takes a place, as it does on the user's screen; with
    `catalogue_only` such titles are struck first. Only the points of the turns in `listed` count.
    """

    def rank(point: Point) -> float:
        titles = listed[point.dialogue, point.turn]
        if catalogue_only:
            titles = [title for title in titles if title.row is not None]
        places = [i for i, t in enumerate(titles, 1) if _is(t, catalogue.row.get(point.item, -1))]
        return places[0] if places else np.inf

    points = [p for p in recommendation_points(dialogues) if (p.dialogue, p.turn) in listed]
    top1 = [_first(listed[p.dialogue, p.turn], catalogue_only) for p in points]
    return Predictions.at(name, points, [rank(p) for p in points], top1)


def reply_predictions(
    name: str,
    named: Mapping[Turn, Sequence[Title]],
    dialogues: Sequence[Dialogue],
    catalogue: Catalogue,
) -> Predictions:
    """Rank 1 where the target is among the titles of the reply, whatever their order, else inf."""
    found = list_predictions(name, named, dialogues, catalogue)
    values = {f.name: getattr(found, f.name) for f in fields(found)}
    return Predictions(**values | {"rank": np.where(np.isfinite(found.rank), 1.0, np.inf)})


def substring_predictions(
    name: str,
    replies: Mapping[Turn, str],
    dialogues: Sequence[Dialogue],
    catalogue: Catalogue,
    first_entry: bool = False,
) -> Predictions:
    """The paper's test: rank 1 where the target's title is a substring of the reply, else inf.

    `first_entry` keeps only the first line of a list, which is what a reply that names one film
    would be. top1 is the target where it hits: this test knows no other film, which is why the
    paper's "Unique" of language models equals their number of hits.
    """
    points = [p for p in recommendation_points(dialogues) if (p.dialogue, p.turn) in replies]
    ranks, top1 = [], []
    for point in points:
        reply = replies[point.dialogue, point.turn]
        if first_entry:
            reply = (entries(reply) or (reply,))[0]
        row = catalogue.row.get(point.item, -1)
        hit = row >= 0 and substring_hit(catalogue[row].title, reply)
        ranks.append(1.0 if hit else np.inf)
        top1.append(row if hit else -1)
    return Predictions.at(name, points, ranks, top1)


def published_predictions(
    recorded: RecordedAnswers,
    max_distance: int | None = None,
    drop_seen: bool = False,
) -> Predictions:
    """Recorded answers as He et al. (2023) rate them: their points, targets and matching.

    One point per film they link in the utterance, 253 of them. Every line of a reply becomes the
    entity with the nearest name, however far; a hit needs that name to be the target's. "Novel" is
    their "recommendation": the target is not among the entities mentioned before.

    Args:
        max_distance: strike lines whose nearest entity is further (they use 2 where they filter).
        drop_seen: strike entities mentioned before.
    """
    points, ranks, top1 = [], [], []
    numbers: dict[str, int] = {}
    for record in recorded.records:
        names = [
            name
            for name, distance in record.nearest
            if (max_distance is None or distance <= max_distance)
            and not (drop_seen and name in record.seen)
        ]
        for target in record.targets:
            novel = target not in record.seen
            points.append(Point(record.dialogue, record.turn, target, novel))
            ranks.append(names.index(target) + 1.0 if target in names else np.inf)
            top1.append(numbers.setdefault(names[0], len(numbers)) if names else -1)
    return Predictions.at(recorded.name, points, ranks, top1)


def at_turns(predictions: Predictions, turns: set[Turn]) -> Predictions:
    """Only the points of these turns: so that a system is compared where others have answers."""
    where = zip(predictions.dialogue.tolist(), predictions.turn.tolist(), strict=True)
    keep = np.array([turn in turns for turn in where], dtype=bool)
    arrays = (getattr(predictions, f.name)[keep] for f in fields(predictions)[1:])
    return Predictions(predictions.name, *arrays)


def _is(title: Title, row: int) -> bool:
    return title.row is not None and row in title.rows


def _first(titles: Sequence[Title], catalogue_only: bool) -> int:
    rows = [title.row for title in titles if title.row is not None or not catalogue_only]
    return rows[0] if rows and rows[0] is not None else -1
