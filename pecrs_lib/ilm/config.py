"""All settings of an ILM and of its two stages, each with the reason for its default."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ILMConfig:
    """Unknown fields raise TypeError. The paper prints few of these numbers; sizes fit one core."""

    backbone: str = "reel-small"  # any causal LM that `AutoModelForCausalLM` loads; stays frozen
    cf_dim: int = 32  # 600 films and a thousand seekers carry no more directions than that
    queries: int = 4  # K; `experiments.ilm` compares 1, 4 and 8
    width: int = 64  # d of the Q-Former: 768 in BLIP-2, which sees millions of pictures
    layers: int = 2  # the first looks at the CF vector, as every other one does in BLIP-2
    heads: int = 4  # 16 numbers each
    text_tokens: int = 20  # title and genres; names and plots are learned by heart
    temperature: float = 0.07  # BLIP-2's
    item_temperature: float = 0.5  # what comes next is nearly open: at 0.07 all items become alike
    item_item: bool = True  # every fourth step of stage 1 is on items and the next of a user
    grounded: int = 16  # items of a batch in ITM and ITG, which cost most and need no others
    hard: float = 0.5  # share of hard negatives in ITM
    word_dropout: float = 0.2  # of the words a text shows, against learning few texts by heart
    cf_noise: float = 0.1  # spread of what is added to every number of a CF vector, likewise
    align_steps: int = 240
    align_batch: int = 64  # of a few hundred items; the contrast wants many
    align_rate: float = 1e-3  # from random weights; with 3e-3 nothing is learned
    prompt: int = 8  # learned vectors before every prompt: what a text-only LM can learn with
    steps: int = 300
    batch: int = 8
    encoder_rate: float = 1e-3  # of stage 2; faster would undo stage 1
    adaptor_rate: float = 1e-2  # it starts from random weights
    prompt_rate: float = 3e-2  # so few vectors, alone in a text-only LM, learn in no other way
    history: int = 5  # last items of a history that a prompt shows
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.cf_dim, self.queries, self.width, self.layers, self.heads) < 1:
            raise ValueError(f"sizes are at least 1: {self}")
        if not 0 <= self.hard <= 1:
            raise ValueError(f"hard={self.hard} is not a share")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
