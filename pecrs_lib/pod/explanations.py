"""Sentences that recommend a film, out of MiniReel's dialogues: the explanation task's data.

Comes after `samples`. A sentence is what a recommender says behind the one film of an utterance
("Saw (2004), it has Cary Elwes and Danny Glover"). MiniReel is simulated, so these are the
simulator's reasons: its facts and plots. Small talk ("is a good one") is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pecrs_lib.data.interactions import (
    LeaveOneOut,
    leave_one_out,
    read_minireel_interactions,
)
from pecrs_lib.data.minireel import load_interactions, load_minireel
from pecrs_lib.data.schema import Movie
from pecrs_lib.pod.prompts import Sample
from pecrs_lib.pod.samples import EXPLANATION

SHORTEST, LONGEST = 3, 16  # words
LONG_WORD = re.compile(r"[A-Za-z]{5,}")
LEAST = 3  # items of a user, for leave-one-out


@dataclass(frozen=True)
class Sentences:
    """Samples of the explanation task; the users and items of `test` are not all new."""

    train: list[Sample]
    test: list[Sample]


def seekers_by_dialogue() -> dict[str, int]:
    """Training dialogue -> user, numbered as in `minireel_data`."""
    mine = [it for it in load_interactions() if it.split == "train"]
    likes: dict[str, set[str]] = {}
    for it in mine:
        if it.liked:
            likes.setdefault(it.seeker, set()).add(it.item)
    kept = [seeker for seeker, items in likes.items() if len(items) >= LEAST]
    user = {seeker: u for u, seeker in enumerate(kept)}
    return {it.dialogue: user[it.seeker] for it in mine if it.dialogue and it.seeker in user}


def gives_a_reason(sentence: str, movie: Movie) -> bool:
    """Whether it names a person, a genre or a longer word of the plot."""
    said = sentence.lower()
    facts = (*movie.actors, *movie.directors, *movie.genres, *LONG_WORD.findall(movie.plot))
    return any(fact.lower() in said for fact in facts)


def minireel_data() -> tuple[LeaveOneOut, Sentences]:
    """What MiniReel's training seekers liked, split in time, and sentences about films for them.

    Every seeker's last dialogue is for the test, the others are for training. Pairs whose item is
    held out for recommendation stay out of training: the sentence would tell the model that the
    user is to take it.
    """
    data = leave_one_out(read_minireel_interactions("train").at_least(LEAST))
    catalogue, splits = load_minireel()
    user_of = seekers_by_dialogue()
    last = {user: dialogue for dialogue, user in user_of.items()}
    found = Sentences([], [])
    for dialogue in splits["train"]:
        user = user_of.get(dialogue.id)
        if user is None:
            continue
        for utterance in dialogue.utterances:
            if utterance.role != "recommender" or len(utterance.mentions) != 1:
                continue
            mention = utterance.mentions[0]
            sentence = utterance.text[mention.end :].lstrip(",.!? ").strip()
            item = catalogue.row[mention.item]
            if "?" in sentence or not SHORTEST <= len(sentence.split()) <= LONGEST:
                continue
            if not gives_a_reason(sentence, catalogue[item]):
                continue
            sample = Sample(EXPLANATION, user, (item,), sentence)
            if last[user] == dialogue.id:
                found.test.append(sample)
            elif item not in (data.valid[user], data.test[user]):
                found.train.append(sample)
    return data, found


def words_of(samples: Sequence[Sample]) -> list[str]:
    """The sentences, for the vocabulary."""
    return [str(sample.answer) for sample in samples]
