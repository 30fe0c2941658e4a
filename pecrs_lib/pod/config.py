"""What a POD run is made of: one frozen dataclass, a reason beside each default.

First step of `pod`. DEVIATION: POD fine-tunes T5-small, which has read much text, and asks for one
of 100 candidates; these are random weights and sizes for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PODConfig:
    """Sizes and training of a small POD; an unknown field raises TypeError.

    Raises:
        ValueError: a value that cannot be.
    """

    width: int = 64  # D; T5-small has 512, which takes a GPU
    layers: int = 2  # of the encoder, and as many of the decoder; T5-small has 6
    heads: int = 4  # of 16 dimensions
    feed: int = 128  # twice the width; T5 has four times, which costs a third more time
    dropout: float = 0.0  # T5's is 0.1; a run this short does not overfit, and draws cost time
    prompts: int = 3  # K, the default of POD's code
    bare: float = 0.5  # share of training batches without template; see `samples`
    whole_words: bool = True  # P5's index that the tokens of one id share
    history: int = 10  # latest items a sequential prompt names
    candidates: int = 10  # of a top-N prompt, the right one included; POD has 100
    batch: int = 64  # as POD
    steps: int = 1600  # all tasks together; two minutes on one core
    learning_rate: float = 2e-3  # from random weights; POD fine-tunes with 5e-4
    warmup: int = 100  # steps; the weights are random
    words: int = 1000  # vocabulary for templates and sentences
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bare <= 1:
            raise ValueError(f"bare is a share, got {self.bare}")
        if self.prompts < 0 or min(self.layers, self.heads, self.history, self.candidates) < 1:
            raise ValueError(f"sizes start at 1, prompts at 0: {self}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads")
