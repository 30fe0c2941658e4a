"""The vocabulary of an LM: four rows more, logits, and −log p of tokens without keeping logits.

Comes before `backbone`, whose embedding and head this concerns. A logit of every word for every
token of a response is more than all else a step keeps, for a number each. So they are made a few
rows at a time, and the gradient, a weighted mean of word vectors, at once, while they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KEPT = {"cpu": 2**22}  # logits at a time, 16 MB: what caches of a CPU hold
KEPT_ELSEWHERE = 2**27


def logits(hidden: Tensor, words: Tensor, special: Tensor, bias: Tensor | None) -> Tensor:
    """(…, D) -> (…, V + 4) float32.

    Args:
        words: (V, D) frozen rows of the head.
        special: (4, D) trained rows.
        bias: (V + 4,) frozen.
    """
    special = F.linear(hidden, special.to(hidden.dtype))
    z = torch.cat([F.linear(hidden, words), special], -1)
    return (z if bias is None else z + bias).float()


def token_nll(
    hidden: Tensor, label: Tensor, words: Tensor, special: Tensor, bias: Tensor | None
) -> Tensor:
    """(R,) −log p of the labels (R,) after hidden states (R, D); see `logits`."""
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or special.requires_grad)
    return _TokenNLL.apply(hidden, label, words.detach(), special, bias, wanted)


class _TokenNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, label: Tensor, words: Tensor, special: Tensor,
        bias: Tensor | None, wanted: bool,
    ) -> Tensor:  # fmt: skip
        R, V = len(hidden), len(words)
        nll = torch.empty(R, device=hidden.device)
        slope = torch.empty_like(hidden) if wanted else None  # of nll towards hidden
        p_special = hidden.new_empty(R, len(special))
        at_once = max(1, KEPT.get(hidden.device.type, KEPT_ELSEWHERE) // V)
        for start in range(0, R, at_once):
            rows = slice(start, start + at_once)
            z = logits(hidden[rows], words, special, bias)
            total = z.logsumexp(-1, keepdim=True)
            place = label[rows, None]
            nll[rows] = (total - z.gather(1, place))[:, 0]
            if slope is not None:
                p = z.sub_(total).exp_()
                p.scatter_add_(1, place, p.new_full(place.shape, -1.0))
                p = p.to(hidden.dtype)
                slope[rows] = p[:, :V] @ words + p[:, V:] @ special.to(p.dtype)
                p_special[rows] = p[:, V:]
        if slope is not None:
            ctx.save_for_backward(hidden, slope, p_special)
        ctx.special_dtype = special.dtype
        return nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, slope, p_special = ctx.saved_tensors
        g = grads[0][:, None].to(hidden.dtype)
        to_special = ((g * p_special).T @ hidden).to(ctx.special_dtype)
        return g * slope, None, None, to_special, None, None


def append_rows(model: Any, meaning: Sequence[Sequence[int]]) -> None:
    """Grow the vocabulary by rows that start as the mean of the given tokens' rows."""
    rows = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows + len(meaning), mean_resizing=False)
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = {id(table.weight): table for table in both}  # one where they are tied
    for table in tables.values():
        with torch.no_grad():
            for row, ids in enumerate(meaning, start=rows):
                table.weight[row] = table.weight[list(ids)].mean(0)
                if getattr(table, "bias", None) is not None:
                    table.bias[row] = table.bias[list(ids)].mean()


def token_layers(model: Any, ids: list[int]) -> dict[str, list[int]]:
    """Which layers hold the four rows: the embedding, and the head where it is not tied to it."""
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = {names[id(embedding)]: ids}
    if head.weight is not embedding.weight:
        layers[names[id(head)]] = ids
    return layers
