"""Ranking a whole catalogue by how likely a language model finds each title as the next words.

The third protocol of `asking`, and the only one that gives a language model a full R@k: the
paper calls ranking a longer list with LLMs "a promising future research avenue" (section 4.4).
`TitleLikelihood` is a `baselines.Recommender`, so `evaluation.predict` measures it as any other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pecrs_lib.data import Dialogue
from pecrs_lib.zero_shot.asking import transcript

OPENING = 'You should watch "'


def watch_prompt(history: Dialogue) -> str:
    """The conversation, then the recommender's next words up to the title."""
    said = transcript(history, len(history))
    return f"{said}\nSystem: {OPENING}" if said else f"System: {OPENING}"


@dataclass
class TitleLikelihood:
    """log p(title | conversation) under a causal language model, for each of N titles.

    A title is followed by a closing quotation mark, without which "It" could never score below
    "It Follows". Longer titles have more factors below 1, and often-printed ones larger factors,
    whatever was said; `per_token` and `lift` take out the one and the other.

    Attributes:
        lm, tokenizer: of `transformers`; base models will do.
        titles: (N,) as they are to be written; None for a film without a title, ranked last.
        per_token: mean log p of the tokens instead of their sum.
        lift: minus log p of the title after `OPENING` alone: how much the conversation adds, in
            nats (the pointwise mutual information of Holtzman et al., 2021).
        context_tokens: the last tokens of the conversation are read, so many at most.
        chunk: titles at a time. Each gets a copy of the conversation's keys and values, so on a CPU
            a few dozen are faster than hundreds.
    """

    name: str
    lm: Any
    tokenizer: Any
    titles: Sequence[str | None]
    per_token: bool = False
    lift: bool = False
    context_tokens: int = 384
    chunk: int = 32
    prompt: Callable[[Dialogue], str] = watch_prompt
    _prior: NDArray[np.float64] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.context_tokens < 1 or self.chunk < 1:
            raise ValueError(
                f"context_tokens and chunk are at least 1, got {self.context_tokens}, {self.chunk}"
            )
        if not any(self.titles):
            raise ValueError(f"none of the {len(self.titles)} films has a title")
        self.lm.eval()
        self._ids = {
            j: self.tokenizer(f'{title}"', add_special_tokens=False).input_ids
            for j, title in enumerate(self.titles)
            if title
        }
        self._lengths = np.array([max(1, len(self._ids.get(j, ()))) for j in range(len(self))])

    def __len__(self) -> int:
        return len(self.titles)

    def scores(self, history: Dialogue) -> NDArray[np.float64]:
        """(N,) scores in nats; films without a title get less than every other."""
        return self.from_log_likelihood(self.log_likelihood(self.prompt(history)))

    def from_log_likelihood(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) sums of log p → (N,) scores as `per_token` and `lift` say."""
        if self.lift:
            if self._prior is None:
                self._prior = self.log_likelihood(f"System: {OPENING}")
            logs = logs - self._prior
        values = logs / self._lengths if self.per_token else logs.copy()
        known = np.array([j in self._ids for j in range(len(self))])
        values[~known] = values[known].min() - 1.0
        return values

    @torch.inference_mode()
    def log_likelihood(self, prompt: str) -> NDArray[np.float64]:
        """(N,) summed log p of every title's tokens after `prompt`; 0 for films without a title.

        The prompt is read once; its keys and values serve all titles.
        """
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids[-self.context_tokens :]
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens")
        read = self.lm(torch.tensor([ids], device=self.lm.device), use_cache=True)
        opening = read.logits[0, -1].float().log_softmax(-1)  # (V,)
        order = sorted(self._ids, key=lambda j: len(self._ids[j]))  # little padding
        logs = np.zeros(len(self))
        for at in range(0, len(order), self.chunk):
            rows = order[at : at + self.chunk]
            logs[rows] = self._chunk(rows, opening, read.past_key_values).cpu().double().numpy()
        return logs

    def _chunk(self, rows: Sequence[int], opening: Tensor, past: Any) -> Tensor:
        """(B,) log p of B titles; tokens behind a title are padding that nothing looks at."""
        longest = max(len(self._ids[j]) for j in rows)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)  # (B, T)
        said = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, j in enumerate(rows):
            tokens[i, : len(self._ids[j])] = torch.tensor(self._ids[j])
            said[i, : len(self._ids[j])] = True
        tokens, said = tokens.to(self.lm.device), said.to(self.lm.device)
        first = opening[tokens[:, 0]]  # (B,)
        if longest == 1:
            return first
        cache = copy.deepcopy(past)  # the model writes into it
        cache.batch_repeat_interleave(len(rows))
        logits = self.lm(tokens[:, :-1], past_key_values=cache).logits.float()  # (B, T - 1, V)
        following = tokens[:, 1:, None]
        logs = (logits.gather(-1, following) - logits.logsumexp(-1, keepdim=True)).squeeze(-1)
        return first + (logs * said[:, 1:]).sum(-1)
