"""What a machine can do, and what a model asks of it: the floors that a benchmark is held against.

The rate of a plain matrix product and the rate at which memory is read are measured in the same run
as what they are compared with. Operations are those of the linear layers and the LM head; attention
is left out, so that shares of the floor are lower bounds.
"""

from __future__ import annotations

import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pecrs_lib.batches import make_batch
from pecrs_lib.config import Config
from pecrs_lib.context import Window
from pecrs_lib.items import ItemFeatures
from pecrs_lib.model import PECRS
from pecrs_lib.pretrain import train_tokenizer


def gpt2_shape(texts: Iterable[str], config: Config) -> PECRS:
    """PECRS on random weights of GPT-2 small's shape, with a tokenizer made of `texts`."""
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, 20_000).save_pretrained(folder)
        GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
        return PECRS.from_backbone(config.with_(backbone=folder))


def read_rate(size: int = 2**28) -> float:
    """Bytes/s of a matrix-vector product over `size` bytes of float32, as in writing a token."""
    weights, vector = torch.randn(size // 4 // 1024, 1024), torch.randn(1024)
    rates = []
    for _ in range(7):
        start = time.perf_counter()
        weights @ vector
        rates.append(size / (time.perf_counter() - start))
    return statistics.median(rates)


def gemm_rate(dtype: torch.dtype, rows: int = 1024) -> float:
    """FLOP/s of a product as large as those of a layer, (rows × 768) @ (768 × 3072)."""
    a = torch.randn(rows, 768).to(dtype)
    b = torch.randn(768, 3072).to(dtype)
    rates = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(20):
            a @ b
        rates.append(20 * 2 * rows * 768 * 3072 / (time.perf_counter() - start))
    return statistics.median(rates)


def processor() -> str:
    """The name of the CPU, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def reset_peak() -> None:
    """Start the peak of memory anew, where the system can (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_gib() -> float:
    """Peak memory of this process since `reset_peak`, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Cost:
    """Tokens through the LM and multiply-adds, counted where they happen."""

    def __init__(self, model: PECRS) -> None:
        self.tokens = self.grad_tokens = self.head_tokens = 0
        body = model.backbone.body
        blocks = [m for n, m in body.named_modules() if n.endswith(("c_attn", "c_proj", "c_fc"))]
        shapes = [m.weight.shape for m in blocks if hasattr(m, "weight")]
        self.linear = sum(a * b for a, b in shapes)  # weights a token is multiplied with
        self.head = model.backbone.tokenizer.item * model.backbone.dim
        forward, logits = model.backbone.forward, model.backbone.logits

        def counted(x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            self.tokens += x.shape[0] * x.shape[1]
            self.grad_tokens += x.shape[0] * x.shape[1] * torch.is_grad_enabled()
            return forward(x, *args, **kwargs)

        def counted_logits(hidden: torch.Tensor) -> torch.Tensor:
            self.head_tokens += hidden[..., 0].numel()
            return logits(hidden)

        model.backbone.forward = counted  # type: ignore[method-assign]
        model.backbone.logits = counted_logits  # type: ignore[method-assign]

    def reset(self) -> None:
        self.tokens = self.grad_tokens = self.head_tokens = 0

    @property
    def flop(self) -> float:
        """Forward for every token; backward to the inputs for those that carry a gradient."""
        head = self.head_tokens * self.head * (2 if self.grad_tokens else 1)
        return 2.0 * ((self.tokens + self.grad_tokens) * self.linear + head)


def stepper(
    model: PECRS, features: ItemFeatures
) -> Callable[[Sequence[Window], Config, int], tuple[int, int]]:
    """A function of windows, settings and a seed: one step of training with its optimizer.

    It returns how many responses the windows held, and how many tokens the LM read.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-5)

    def step(part: Sequence[Window], config: Config, seed: int) -> tuple[int, int]:
        batch = make_batch(part, len(features), config, torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        losses = model(batch, features)
        losses.joint(config).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return losses.responses, batch.token.numel()

    return step
