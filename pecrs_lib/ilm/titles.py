"""The whole catalogue ranked by how likely the language model finds each title (HR@k, NDCG@k).

After `language`. A title can only become less likely with every further piece. So titles are
scored in the order of their first two pieces, and once these alone are less likely than the k-th
best title so far, no other can come among the first k: the list is that of scoring them all.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pecrs_lib.ilm.language import ILM
from pecrs_lib.ilm.tasks import Task, next_prompt


class Titles:
    """Titles in pieces, each closed by a quotation mark, so that none is the beginning of another.

    Attributes:
        token: (N, L) ids, padded with 0; L ≥ 2.
        mask: (N, L) True for pieces.
    """

    def __init__(self, names: Sequence[str], tokenizer: Any) -> None:
        ids = [tokenizer(f'{name}"', add_special_tokens=False).input_ids for name in names]
        self.token = pad_sequence([torch.tensor(i) for i in ids], True)
        length = torch.tensor([len(i) for i in ids])
        self.mask = torch.arange(self.token.shape[1]) < length[:, None]

    def __len__(self) -> int:
        return len(self.token)


@torch.inference_mode()
def likeliest(
    model: ILM, inputs: Tensor, titles: Titles, allowed: Tensor, k: int, chunk: int = 24
) -> tuple[Tensor, Tensor]:
    """The k allowed titles that most likely follow a prompt, best first: rows and log p, (k,) each.

    Args:
        inputs: (T, D) what the LM reads.
        allowed: (N,) of bool, at least k of them.
        chunk: titles at a time; each gets a copy of the prompt's keys and values.
    """
    read = model.lm(inputs_embeds=inputs[None], use_cache=True)
    past, opening = read.past_key_values, read.logits[0, -1].log_softmax(-1)
    bound = opening[titles.token[:, 0]] + _second(model, past, titles)  # (N,)
    order = bound.masked_fill(~allowed, -torch.inf).argsort(descending=True, stable=True)
    order = order[: int(allowed.sum())]
    rows, best = order[:0], bound[:0]
    for part in order.split(chunk):
        if len(best) == k and bound[part[0]] < best[-1]:
            break
        logs = opening[titles.token[part, 0]] + _following(model, past, titles, part)
        rows, best = torch.cat([rows, part]), torch.cat([best, logs])
        best, place = best.sort(descending=True, stable=True)
        rows, best = rows[place][:k], best[:k]
    return rows, best


def _second(model: ILM, past: Any, titles: Titles) -> Tensor:
    """(N,) log p of every title's second piece, read once for each different first piece."""
    first, place = titles.token[:, 0].unique(return_inverse=True)
    logits = model.lm(first[:, None], past_key_values=_copies(past, len(first))).logits[:, 0]
    second = logits.log_softmax(-1)[place, titles.token[:, 1]]
    return second.masked_fill(~titles.mask[:, 1], 0.0)


def _following(model: ILM, past: Any, titles: Titles, rows: Tensor) -> Tensor:
    """(n,) log p of the pieces after the first."""
    length = int(titles.mask[rows].sum(1).max())
    token, mask = titles.token[rows, :length], titles.mask[rows, 1:length]
    cache = _copies(past, len(rows))
    hidden = model.lm.base_model(token[:, :-1], past_key_values=cache).last_hidden_state
    logits = model.lm.get_output_embeddings()(hidden[mask])  # (m, V)
    logs = torch.zeros(mask.shape)
    logs[mask] = -F.cross_entropy(logits, token[:, 1:][mask], reduction="none")
    return logs.sum(1)


def _copies(past: Any, n: int) -> Any:
    """Keys and values of a prompt, n times; the model writes into them."""
    cache = copy.deepcopy(past)
    cache.batch_repeat_interleave(n)
    return cache


def recommend_next(
    model: ILM, table: Tensor, titles: Titles, histories: Sequence[Sequence[int]], k: int,
    names: Sequence[str] | None = None,
) -> np.ndarray:  # fmt: skip
    """(n, k) what comes next for each history by title log-likelihood; none of it is in there.

    Args:
        table: (N + U, d_cf).
        names: words for the slots, of a text-only LM.
    """
    found = []
    for seen in histories:
        task = Task("next item", next_prompt(seen[-model.config.history :]), "")
        with torch.inference_mode():
            inputs = model.inputs(model.encoded([task], names), table)[0]
        allowed = torch.ones(len(titles), dtype=torch.bool)
        allowed[list(seen)] = False
        found.append(likeliest(model, inputs, titles, allowed, k)[0])
    return torch.stack(found).numpy()
