"""What an ILM says: log perplexity and semantic consistency for each kind of task.

The end of the flow, beside `titles`, whose lists `next_item` judges.
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
