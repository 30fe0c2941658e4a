"""One frozen record of every choice a run makes, with the reason beside each default.

Functions take the few values they need; only `training.py`, the command line and the notebooks
hold a whole `Config`. `PAPER_SMALL` and `PAPER_MEDIUM` are section 4.1 of the paper, `TINY` is
what runs on a laptop without a GPU.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Config:
    """Every hyper-parameter of a run. Sizes in tokens unless said otherwise."""

    backbone: str = "gpt2"  # any decoder-only LM: a folder or a hub name
    dtype: str = "float32"  # of the frozen backbone; "bfloat16" where matrix products are faster
    lora_rank: int = 16  # 590 k weights at GPT-2 small
    lora_targets: str | None = None  # None: peft's default, query and value, in GPT-2 the fused
    #                                  query, key and value; "all-linear": every linear layer
    lora_alpha: int = 32  # the update counts lora_alpha / lora_rank times: change both
    lora_dropout: float = 0.0

    context_tokens: int = 256  # every turn sees at least this much of its past (section 4.1)
    utterance_tokens: int = 192  # longer utterances are cut here, and counted
    response_tokens: int = 64  # a response is scored and generated up to here (section 4.1)
    window: int = 1024  # longest trunk (GPT-2 has 1,024 positions); longer dialogues: windows
    item_tokens: int = 160  # item texts are cut here, and counted

    temperature: float = 0.1  # of Eq 3: angular distances span only [0, 2]; the paper has none
    dot_product: bool = False  # as in the official code: trained by dot products, found by angles
    negatives: int | None = 150  # M_train; None is the whole catalogue
    retrieval_negatives: int | None = 150  # differs from `negatives` only without task sharing
    share_over_batch: bool = True  # one draw for all turns of a batch (section 3.6)
    share_over_tasks: bool = True  # the same draw for retrieval and re-ranking (section 3.6)
    refresh_items: int = 0  # 0: item features with adapters off, once; k: adapters on, each k steps

    item_pooling: bool = True  # learned weights of an item's tokens (Eq 1); False: their mean
    item_head: bool = True  # h_item (Eq 1); False: nothing between pooling and the item's vector
    pool_padding: bool = False  # as in the official code: padding counts as tokens that say nothing

    warm_start: int = 0  # epochs of the retrieval heads on the frozen LM before the single stage,
    #                      with a batch size, learning rate and weight decay of their own
    query_pooling: bool = False  # pool the whole context into the query; the paper does not
    repetition_scale: float = 1.0  # at inference, times what was learned about films named before;
    #                                above 1 new films come first more often; the paper has neither
    rerank_from_retrieval: bool = False  # start r from the retrieval score; the paper does not

    alpha: float = 0.15  # weight of the retrieval loss (Eq 8)
    beta: float = 0.85  # weight of the re-rank loss
    gamma: float = 1.0  # weight of the response loss

    epochs: int = 10
    batch_size: int = 1  # dialogues, or windows of long ones, a step; one INSPIRED dialogue holds
    #                      about ten data points
    accumulation: int = 1  # batches whose gradients are averaged before the weights move
    learning_rate: float = 3e-5  # of LoRA and the token vectors
    head_learning_rate: float | None = None  # of pooling and heads, which are new;
    #                                          None: the same as learning_rate, as in the paper
    weight_decay: float = 0.01  # torch's default for AdamW
    warmup_epochs: float = 1.0  # linear, then linear to zero
    clip: float = 1.0  # norm of the gradient
    patience: int | None = None  # epochs without a better validation score before stopping
    seed: int = 0

    candidates: int = 700  # M_inference: retrieved, then re-ranked

    def __post_init__(self) -> None:
        for name in ("lora_rank", "context_tokens", "utterance_tokens", "response_tokens",
                     "window", "item_tokens", "epochs", "batch_size", "accumulation",
                     "candidates"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("negatives", "retrieval_negatives"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None for all, got {value}")
        for name, value in self.to_dict().items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
        for name in ("temperature", "learning_rate", "lora_alpha"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("alpha", "beta", "gamma", "repetition_scale", "head_learning_rate",
                     "warm_start", "refresh_items"):  # fmt: skip
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, or None, got {self.patience}")
        if self.window < self.context_tokens + 2 * self.utterance_tokens:
            raise ValueError(
                f"window ({self.window}) must hold context_tokens + 2 × utterance_tokens "
                f"({self.context_tokens} + 2 × {self.utterance_tokens})"
            )
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}")

    def with_(self, **changes: Any) -> Config:
        """A copy with some fields changed; unknown names raise TypeError."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_dict`; raises ValueError naming unknown fields."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown configuration fields: {', '.join(unknown)}")
        return cls(**values)


PAPER_SMALL = Config(backbone="gpt2")  # ReDial: 10 epochs; for INSPIRED use .with_(epochs=20)
PAPER_MEDIUM = PAPER_SMALL.with_(backbone="gpt2-medium")
TINY = Config(  # a small backbone on two cores: higher rates because there is less to disturb
    backbone="reel-small",  # comes with the package
    lora_rank=64,  # a small model has little to recombine: adapt all of it
    lora_alpha=128,
    lora_targets="all-linear",
    context_tokens=192,
    utterance_tokens=96,
    window=512,  # the positions it has
    item_tokens=128,
    negatives=16,  # re-ranked in the language model, which is what costs
    retrieval_negatives=None,  # item features are cached, so the whole catalogue costs little
    share_over_tasks=False,
    temperature=0.08,  # a little sharper than the default; chosen on MiniReel's validation part
    warm_start=14,  # epochs of ten seconds on MiniReel
    query_pooling=True,
    rerank_from_retrieval=True,
    learning_rate=1e-3,
    head_learning_rate=1e-3,
    batch_size=8,
    epochs=6,
    patience=3,
)
PRESETS = {"tiny": TINY, "paper-small": PAPER_SMALL, "paper-medium": PAPER_MEDIUM}
