"""Training on a GPU: data points a second, share of the peak and memory, over shapes and flags.

    python -m tests.benchmarks.bench_gpu --inspired FOLDER --json data/results/bench_gpu.json

Random weights in bfloat16, adapters and heads in float32, the fused optimizer, 8 real INSPIRED
dialogues a step, M_train 150; each shape with and without gradient checkpointing and compiled
layers. Medians of `--repeat` steps with quartiles, beside the rate of a matrix product measured in
the same run. Where there is no GPU the rows are written without numbers; ``--device cpu --shape
tiny --backend eager`` runs the same code on a CPU, without --inspired on MiniReel.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pecrs_lib.config import Config
from pecrs_lib.costs.estimate import step_flop
from pecrs_lib.costs.shapes import SHAPES, Shape
from pecrs_lib.data import load_corpus
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.devices import recompute_layers
from pecrs_lib.items import ItemFeatures, tokenize_items
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.pretrain import train_tokenizer
from pecrs_lib.protocol import encode_windows
from tests.benchmarks.floors import gemm_rate, stepper

DIALOGUES, NEGATIVES = 8, 150
TINY = Shape.gpt2("tiny", 2, 32)
CONFIGS: dict[str, tuple[Shape, PreTrainedConfig]] = {
    "tiny": (TINY, GPT2Config(n_layer=2, n_embd=32, n_head=4)),
    "gpt2": (SHAPES["GPT-2 small"], GPT2Config()),
    "gpt2-medium": (SHAPES["GPT-2 medium"], GPT2Config(n_layer=24, n_embd=1024, n_head=16)),
    "llama-1b": (
        SHAPES["Llama-like, 1 B"],
        LlamaConfig(
            hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, vocab_size=128_256,
            num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True,
        ),
    ),
}  # fmt: skip


def load(name: str, texts: list[str], folder: Path, device: torch.device) -> PECRS:
    """PECRS on random weights of a shape, on the device."""
    config = CONFIGS[name][1]
    config.bos_token_id = config.eos_token_id = 0
    train_tokenizer(texts, 20_000).save_pretrained(folder)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    settings = Config(backbone=str(folder), dtype="bfloat16")
    settings = settings.with_(negatives=NEGATIVES, retrieval_negatives=NEGATIVES)
    return PECRS.from_backbone(settings).to(device)


def measured(
    model: PECRS, data: Any, shape: Shape, repeat: int, checkpointing: bool, peak: float
) -> dict[str, Any]:
    """Median seconds of a step, and what follows from them."""
    catalogue, dialogues = data
    device = model.device
    windows = encode_windows(dialogues, catalogue, model)
    texts, _ = tokenize_items(catalogue, model.backbone.tokenizer)
    offset = torch.tensor([0, *map(len, texts)]).cumsum(0)
    values = torch.randn(int(offset[-1]), model.backbone.dim).half()
    features = ItemFeatures(values, offset).to(device)
    step = stepper(model, features)
    model.train()
    if checkpointing:
        recompute_layers(model.backbone.lm.get_base_model())
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, points, tokens, scored = [], [], [], []
    for k in range(repeat + 3):  # three to warm up, or to compile
        part = [windows[(k * DIALOGUES + i) % len(windows)] for i in range(DIALOGUES)]
        start = time.perf_counter()
        done = step(part, model.config, k)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        points.append(done[0])
        tokens.append(done[1])
        scored.append(len(pack(part).response_label))
    used = slice(3, None)
    low, high = np.quantile(seconds[used], (0.25, 0.75))
    flop = [
        step_flop(shape, t, s, checkpointing=checkpointing)
        for t, s in zip(tokens[used], scored[used], strict=True)
    ]
    return {
        "seconds": statistics.median(seconds[used]), "quartiles": [float(low), float(high)],
        "points_per_second": sum(points[used]) / sum(seconds[used]),
        "share_of_peak": sum(flop) / sum(seconds[used]) / peak,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None, "n": repeat,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inspired", type=Path, help="folder of the INSPIRED data")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", nargs="*", default=["gpt2", "gpt2-medium", "llama-1b"])
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := set(args.shape) - CONFIGS.keys():
        parser.error(f"--shape {sorted(unknown)}: none of {sorted(CONFIGS)}")
    there = args.device != "cuda" or torch.cuda.is_available()
    report: dict[str, Any] = {
        "device": None, "dialogues": DIALOGUES, "M_train": NEGATIVES, "dtype": "bfloat16",
        "torch": torch.__version__, "data": "INSPIRED" if args.inspired else "MiniReel", "rows": [],
    }  # fmt: skip
    device = torch.device(args.device if there else "cpu")
    if there:
        peak = gemm_rate(torch.bfloat16, 8192 if device.type == "cuda" else 512, device)
        name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        report |= {"device": name, "gemm_gflops": peak / 1e9}
        catalogue, splits = inspired_folder(args.inspired) if args.inspired else load_corpus()
        data = catalogue, splits["train"][:24]
        texts = [u.text for d in splits["train"][:400] for u in d.utterances]
    for name, checkpointing, compiled in itertools.product(args.shape, *[(False, True)] * 2):
        row = {"shape": CONFIGS[name][0].name, "checkpointing": checkpointing, "compiled": compiled}
        if there:
            torch.manual_seed(0)
            with tempfile.TemporaryDirectory() as folder:
                model = load(name, texts, Path(folder), device)
            for layer in model.modules():
                if compiled and isinstance(layer, GradientCheckpointingLayer):
                    layer.compile(dynamic=True, backend=args.backend)
            row |= measured(model, data, CONFIGS[name][0], args.repeat, checkpointing, peak)
            del model
        report["rows"].append(row)
        print(row, flush=True)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not there:
        print("no GPU here: nothing was measured")


if __name__ == "__main__":
    main()
