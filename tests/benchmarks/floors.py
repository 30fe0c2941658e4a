"""What a machine can do, and what a model asks of it: the floors that a benchmark is held against.

The rate of a plain matrix product and the rate at which memory is read are measured in the same
run as what they are compared with. Operations are the products of the LM: linear layers, LoRA,
attention where the mask allows it, LM head. The heads of PECRS, and all that goes number by number,
are left out, so that shares of the floor are lower bounds.
"""

from __future__ import annotations

import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from pecrs_lib.batches import passes
from pecrs_lib.config import Config
from pecrs_lib.context import Window
from pecrs_lib.items import ItemFeatures
from pecrs_lib.model import PECRS
from pecrs_lib.optimizer import make_optimizer
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


def gemm_rate(dtype: torch.dtype, rows: int = 1024, device: torch.device | None = None) -> float:
    """FLOP/s of a product as large as those of a layer, (rows × 768) @ (768 × 3072)."""
    a = torch.randn(rows, 768, device=device).to(dtype)
    b = torch.randn(768, 3072, device=device).to(dtype)
    rates = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(20):
            a @ b
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize()
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
    """Multiply-adds that were asked of the LM, counted where they happen.

    Padding is none of them, nor is attention that the mask forbids.
    """

    def __init__(self, model: PECRS) -> None:
        self.reset()
        body = model.backbone.body
        layers = [m for n, m in body.named_modules() if n.endswith(("c_attn", "c_proj", "c_fc"))]
        shapes = [m.weight.shape for m in layers if hasattr(m, "weight")]
        self.linear = sum(a * b for a, b in shapes)  # weights a token is multiplied with
        lora = [p for n, p in model.backbone.named_parameters() if "lora_" in n]
        self.lora = sum(p.numel() for p in lora)
        self.attention = 2 * model.backbone.dim * len(body.h)  # of a query and a key, both products
        self.head = model.backbone.tokenizer.item * model.backbone.dim
        forward, token_nll = model.backbone.forward, model.backbone.token_nll

        def counted(
            x: torch.Tensor, position: torch.Tensor, mask: torch.Tensor, cache: Any = None
        ) -> torch.Tensor:
            alone = x.shape[1] + (cache.get_seq_length() if cache else 0) - mask.shape[-1]
            seen = (mask == 0).sum(-1)  # (B, 1, T): padding sees one key at most
            seen[..., x.shape[1] - alone :] += 1
            real = int((seen > 1).sum()) + len(x)  # a row's first token, too, sees only itself
            pairs = int(seen.sum())
            backward = torch.is_grad_enabled()
            per_token = self.linear * (1 + backward) + self.lora * (1 + 2 * backward)
            self.tokens += real
            self.flop += 2.0 * (real * per_token + pairs * self.attention * (1 + 2 * backward))
            return forward(x, position, mask, cache)

        def counted_nll(hidden: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            self.flop += 2.0 * len(hidden) * self.head * (1 + torch.is_grad_enabled())
            return token_nll(hidden, label)

        model.backbone.forward = counted  # type: ignore[method-assign]
        model.backbone.token_nll = counted_nll  # type: ignore[method-assign]

    def reset(self) -> None:
        self.tokens, self.flop = 0, 0.0


def stepper(
    model: PECRS, features: ItemFeatures, at_once: int | None = None
) -> Callable[[Sequence[Window], Config, int], tuple[int, int]]:
    """A function of windows, settings and a seed: one step of training with its optimizer.

    It returns how many responses the windows held, and how many tokens the LM read.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(model)

    def step(part: Sequence[Window], config: Config, seed: int) -> tuple[int, int]:
        optimizer.zero_grad()
        responses, tokens = 0, 0
        generator = torch.Generator().manual_seed(seed)
        for one in passes([part], len(features), config, generator, at_once=at_once):
            losses = model(one.batch.to(model.device), features)
            (losses.joint(config) * one.weight).backward()
            responses += losses.responses
            tokens += one.batch.token.numel()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return responses, tokens

    return step
