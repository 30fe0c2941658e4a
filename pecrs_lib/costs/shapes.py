"""Language models and machines, as far as costs go: numbers that `estimate` computes with.

Before `estimate`; arithmetic only, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


def positive(**values: float) -> None:
    """Raise ValueError naming the first value that is not a number above 0."""
    for name, value in values.items():
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True)
class Shape:
    """A language model, as far as costs go.

    Attributes:
        layers, dim, vocabulary: their numbers; `dim` is D.
        linear: weights that a token is multiplied with, LM head apart.
        parameters: all weights, tables included.
        kept: values that a layer keeps per token for the backward pass, at most (bfloat16, whose
            norms keep float32; in float32 up to a third less).
        kv: width of a layer's keys, and of its values.
    """

    name: str
    layers: int
    dim: int
    vocabulary: int
    linear: int
    parameters: int
    kept: int
    kv: int

    @classmethod
    def gpt2(cls, name: str, layers: int, dim: int, vocabulary: int = 50_257) -> Shape:
        """GPT-2's form: fused attention, 4 D wide between, tied tables, 1,024 positions."""
        positive(layers=layers, dim=dim, vocabulary=vocabulary)
        linear = 12 * layers * dim**2
        small = layers * 13 * dim + 2 * dim  # biases and norms
        tables = (vocabulary + 1024) * dim
        return cls(name, layers, dim, vocabulary, linear, linear + small + tables, 12 * dim, dim)

    @classmethod
    def llama(
        cls, name: str, layers: int, dim: int, inner: int, vocabulary: int, kv: int, tied: bool
    ) -> Shape:
        """Llama's form: gated layers `inner` wide, keys and values `kv` wide, no biases."""
        linear = layers * (2 * dim**2 + 2 * dim * kv + 3 * dim * inner)
        tables = (1 if tied else 2) * vocabulary * dim
        total = linear + tables + (2 * layers + 1) * dim
        return cls(name, layers, dim, vocabulary, linear, total, 12 * dim + 3 * inner, kv)

    @property
    def trained(self) -> int:
        """Weights that PECRS trains: LoRA of rank 16 on query and value (in GPT-2 on the fused
        query, key and value), four tokens, heads."""
        lora = 16 * self.layers * (3 * self.dim + self.kv)
        return lora + 9 * self.dim**2 + 14 * self.dim


SHAPES = {
    shape.name: shape
    for shape in (
        Shape.gpt2("GPT-2 small", 12, 768), Shape.gpt2("GPT-2 medium", 24, 1024),
        Shape.gpt2("GPT-2 large", 36, 1280), Shape.gpt2("GPT-2 XL", 48, 1600),
        Shape.llama("Llama-like, 1 B", 16, 2048, 8192, 128_256, 512, tied=True),
        Shape.llama("Llama-like, 7 B", 32, 4096, 11_008, 32_000, 4096, tied=False),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A device. Rates are peaks; `share` of them is reached.

    Attributes:
        flops: dtype → FLOP/s of matrix products.
        read: bytes/s from memory.
        memory: bytes.
        price: per hour of one device, in whatever money you count: an assumption of yours.
    """

    name: str
    flops: Mapping[str, float]
    read: float
    memory: float
    price: float = 0.0


MACHINES = {
    machine.name: machine
    for machine in (
        Machine("NVIDIA L4", {"float32": 30.3e12, "bfloat16": 121e12}, 300e9, 24e9, 1.0),
        Machine("NVIDIA A100 80 GB", {"float32": 19.5e12, "bfloat16": 312e12}, 2039e9, 80e9, 2.0),
        Machine("NVIDIA H100 80 GB", {"float32": 67e12, "bfloat16": 989e12}, 3350e9, 80e9, 3.0),
    )
}
"""Peaks, without sparsity, of NVIDIA's data sheets "L4", "A100 80GB (SXM)" and "H100 (SXM)". The
prices are round numbers to begin with, nobody's offer: put in your own."""
