"""ROUGE of what language models reply: the last columns of the paper's Table 7.

Beside `experiments.zero_shot`. ROUGE depends on how films are written, so both forms are measured:
with titles, as people wrote, and with ``[ITEM]`` in place of each title on both sides, which gives
every reply with a film a word in common with every reference. The recorded answers are lists and
were not asked for a reply; PECRS is prompted with a film at every turn, as the paper does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pecrs_lib.data import Catalogue, Dialogue, Utterance
from pecrs_lib.decoding import GREEDY
from pecrs_lib.generation import respond
from pecrs_lib.metrics import bootstrap_means, rouge
from pecrs_lib.model import PECRS
from pecrs_lib.zero_shot.asking import Turn
from pecrs_lib.zero_shot.titles import entries

SLOT = "[ITEM]"
CONSTANT = f"Have you seen {SLOT} ? It is a great movie ."  # ours, the same at every turn


def slotted(utterance: Utterance) -> str:
    """The text of an utterance with `SLOT` in place of each film that it spells out."""
    text = utterance.text
    for mention in reversed(utterance.mentions):
        if mention.start is not None:
            text = text[: mention.start] + SLOT + text[mention.end :]
    return text


def filled(text: str, names: Sequence[str]) -> str:
    """`text` with the k-th of `names` in place of the k-th `SLOT`; what is left stays."""
    for name in names:
        text = text.replace(SLOT, name, 1)
    return text


def rouge_row(
    system: str, films: str, said: Mapping[Turn, str], references: Mapping[Turn, str]
) -> dict[str, Any]:
    """ROUGE-1/2 (percent) and words per reply, means over the turns of `said` with intervals."""
    each = [rouge([said[turn]], [references[turn]]) for turn in said]
    words = [len(reply.split()) for reply in said.values()]
    values = np.array([(x["rouge1"], x["rouge2"], n) for x, n in zip(each, words, strict=True)])
    groups = np.array([dialogue for dialogue, _ in said], dtype=np.int64)
    low, high = np.quantile(bootstrap_means(groups, values, 2000, 0), (0.025, 0.975), axis=0)
    cells = {
        name: {"value": float(values[:, k].mean()), "low": float(low[k]), "high": float(high[k])}
        for k, name in enumerate(("RG-1", "RG-2", "words"))
    }
    return {"system": system, "films": films, "n": len(said), **cells}


def pecrs_replies(
    model: PECRS, known: Catalogue, test: Sequence[Dialogue], turns: Sequence[Turn], v: torch.Tensor
) -> tuple[dict[Turn, str], dict[Turn, list[int]]]:
    """Greedy replies with `SLOT`, and the films that fill the slots, as catalogue rows."""
    said, films = {}, {}
    for at in range(0, len(turns), 16):
        batch = turns[at : at + 16]
        histories = [Dialogue(test[d].id, test[d].utterances[:t]) for d, t in batch]
        replies = respond(model, histories, known, v, always_recommend=True, top=2, **GREEDY)
        for turn, reply in zip(batch, replies, strict=True):
            said[turn] = reply.raw
            films[turn] = [known.row[found.movie.id] for found in reply.ranked]
    return said, films


def text_table(
    recorded: Mapping[str, Mapping[Turn, str]],
    pecrs: tuple[Mapping[Turn, str], Mapping[Turn, Sequence[int]]],
    readable: Sequence[Dialogue],
    titled: Catalogue,
    favourite: str,
) -> list[dict[str, Any]]:
    """A row per system and way to write films; every reference is the recommender's utterance.

    Args:
        recorded: model → turn → reply.
        pecrs: from `pecrs_replies`.
        readable: the dialogues, films by the names of `titled`.
        favourite: the film of the constant reply.
    """
    said, films = pecrs
    truth = {(d, t): readable[d].utterances[t] for d, t in said}
    written = {turn: utterance.text for turn, utterance in truth.items()}
    slots = {turn: slotted(utterance) for turn, utterance in truth.items()}
    table = []
    for model, replies in recorded.items():
        first = {turn: (entries(reply) or (reply,))[0] for turn, reply in replies.items()}
        table.append(rouge_row(f"{model}: list of 20", "title", replies, written))
        table.append(rouge_row(f"{model}: first entry", "title", first, written))
    full = {
        turn: filled(text, [titled[j].name for j in films[turn]]) for turn, text in said.items()
    }
    constant = dict.fromkeys(truth, filled(CONSTANT, [favourite]))
    table.append(rouge_row("PECRS, seed 0", "title", full, written))
    table.append(rouge_row("one sentence for all", "title", constant, written))
    table.append(rouge_row("PECRS, seed 0", SLOT, said, slots))
    table.append(rouge_row("one sentence for all", SLOT, dict.fromkeys(truth, CONSTANT), slots))
    return table
