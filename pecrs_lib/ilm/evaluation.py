"""What an ILM is measured by, and what it must beat.

The end of the flow. HR@k and NDCG@k over the whole catalogue without what a user took already, for
all systems alike; log perplexity and semantic consistency for each kind of task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pecrs_lib.ilm.language import ILM
from pecrs_lib.ilm.tasks import Task


def first_k(scores: np.ndarray, histories: Sequence[Sequence[int]], k: int) -> np.ndarray:
    """(n, k) best items of scores (n, N), without those in each history; ties by row."""
    scores = np.array(scores, dtype=float)
    for row, seen in zip(scores, histories, strict=True):
        row[list(seen)] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def places(lists: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """(n,) place of each target in its list (n, k), from 1; inf if it is not there."""
    hit = lists == np.asarray(targets)[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1.0, np.inf)


def hit_rate(place: np.ndarray, k: int) -> np.ndarray:
    """(n,) 1 where the target is among the first k."""
    return (place <= k).astype(float)


def ndcg(place: np.ndarray, k: int) -> np.ndarray:
    """(n,) 1 / log2(place + 1) within the first k, else 0: NDCG with one target."""
    return np.where(place <= k, 1 / np.log2(place + 1), 0.0)


@torch.inference_mode()
def log_perplexity(
    model: ILM, tasks: Sequence[Task], table: Tensor, names: Sequence[str] | None = None
) -> np.ndarray:
    """(n,) mean nats a token of each answer."""
    nll, task = model.answer_nll(model.encoded(tasks, names), table)
    sums = torch.zeros(len(tasks)).index_add(0, task, nll)
    return (sums / torch.bincount(task, minlength=len(tasks))).numpy()


@torch.inference_mode()
def answers(
    model: ILM, tasks: Sequence[Task], table: Tensor, names: Sequence[str] | None = None,
    new_tokens: int = 24,
) -> list[str]:  # fmt: skip
    """Greedy answers, up to a line end."""
    batch = model.encoded([Task(task.kind, task.prompt, "") for task in tasks], names)
    x = model.inputs(batch, table)
    length = batch.length + len(model.prompt)
    parts = [row[:n] for row, n in zip(x, length, strict=True)]
    padded = pad_sequence(parts, True, padding_side="left")
    mask = torch.arange(padded.shape[1]) >= padded.shape[1] - length[:, None]
    eos = model.tokenizer.eos_token_id
    made = model.lm.generate(
        inputs_embeds=padded, attention_mask=mask.long(), max_new_tokens=new_tokens,
        do_sample=False, pad_token_id=eos,
    )  # fmt: skip
    return [
        text.split("\n")[0] for text in model.tokenizer.batch_decode(made, skip_special_tokens=True)
    ]


@torch.inference_mode()
def semantic_consistency(model: ILM, said: Sequence[str], meant: Sequence[str]) -> np.ndarray:
    """(n,) cosine of two texts' vectors, for each pair.

    DEVIATION: the paper embeds with a large sentence encoder. Here a text's vector is the mean of
    its words' vectors in the frozen LM, less the mean over all texts `meant`, without which every
    pair is near 1. An empty answer scores 0.
    """
    words = model.lm.get_input_embeddings().weight

    def vector(text: str) -> Tensor:
        ids = model.tokenizer(text, add_special_tokens=False).input_ids
        return words[ids].mean(0) if ids else torch.zeros(words.shape[1])

    true = torch.stack([vector(text) for text in meant])
    centre = true.mean(0)
    mine = torch.stack([vector(text) for text in said])
    empty = (mine == 0).all(1)
    cosine = F.cosine_similarity(mine - centre, true - centre, dim=1)
    return cosine.masked_fill(empty, 0.0).numpy()
