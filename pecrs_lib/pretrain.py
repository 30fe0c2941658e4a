"""A small language model of one's own: byte-level BPE and a GPT-2 from plain text.

Stands beside the flow: it makes the backbone that `backbone` loads where no GPT-2 is at hand. The
text is a list of documents, as `documents` writes them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pecrs_lib.data.schema import DataError
from pecrs_lib.data.storage import whole_file, write_whole
from pecrs_lib.documents import EOS, leaked
from pecrs_lib.memory import keep_freed_memory

CURVE = 64  # blocks of each held-out text that the loss curve measures


@dataclass(frozen=True)
class PretrainConfig:
    """Size and schedule; the defaults train in about an hour on two cores."""

    vocab_size: int = 8192
    n_layer: int = 6
    n_embd: int = 256
    n_head: int = 4
    n_positions: int = 1024
    batch_size: int = 8  # blocks of n_positions tokens a step
    steps: int = 1500
    learning_rate: float = 2e-3  # small models like large steps
    warmup_steps: int = 100
    weight_decay: float = 0.1
    bfloat16: bool = False  # matrix products in half the bits; pays on CPUs with AMX
    seed: int = 0


def train_tokenizer(documents: Iterable[str], vocab_size: int = 8192) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ``<|endoftext|>`` as its only control token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOS], show_progress=False, initial_alphabet=alphabet
    )
    bpe.train_from_iterator((text.replace(EOS, "\n") for text in documents), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=EOS, eos_token=EOS)


def token_stream(documents: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """All documents as one array of ids (S,), in the given order."""
    ids = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in ids])


def blocks(stream: np.ndarray, length: int, rng: np.random.Generator, n: int) -> Tensor:
    """(n, length + 1) random pieces of the stream."""
    start = rng.integers(0, len(stream) - length, size=n)
    return torch.from_numpy(stream[start[:, None] + np.arange(length + 1)].astype(np.int64))


@torch.no_grad()
def stream_perplexity(model: GPT2LMHeadModel, stream: np.ndarray, length: int) -> float:
    """exp of the mean negative log-likelihood over consecutive blocks of a held-out stream."""
    model.eval()
    usable = (len(stream) - 1) // length
    if usable == 0:
        raise ValueError(f"{len(stream)} held-out tokens do not fill a block of {length}")
    total = 0.0
    for k in range(usable):
        piece = torch.from_numpy(stream[k * length : (k + 1) * length + 1].astype(np.int64))[None]
        total += float(model(piece[:, :-1], labels=None).logits.log_softmax(-1)
                       .gather(-1, piece[:, 1:, None]).sum())  # fmt: skip
    return math.exp(-total / (usable * length))


def pretrain(
    train: Sequence[str],
    held_out: Mapping[str, Sequence[str]],
    out: str | Path,
    config: PretrainConfig | None = None,
    *,
    kept_out: Mapping[str, Sequence[str]] | None = None,
    start: str | Path | None = None,
    sources: Mapping[str, int] | None = None,
    every: int = 250,
    show: bool = True,
) -> Path:
    """Train tokenizer and LM; goes on where an earlier call with the same `out` stopped.

    Args:
        train: documents.
        held_out: documents by data set; they only measure perplexity.
        kept_out: documents by data set that nothing is measured on, as test sets.
        out: folder for the model, tokenizer, `pretrain.json` (settings and loss curve).
        start: folder of a model to go on from, with its tokenizer; of a deeper one the first
            layers are taken. Without it, weights are random.
        sources: what the documents are, for the record: name to number.
        every: steps between checkpoints.

    Returns:
        the folder, which `AutoModelForCausalLM.from_pretrained` loads.

    Raises:
        ValueError: a document of `held_out` or `kept_out` is `leaked`, `out` was begun with other
            settings, or a text is shorter than a block.
    """
    config = config or PretrainConfig()
    keep_freed_memory()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, texts in [*held_out.items(), *(kept_out or {}).items()]:
        if found := leaked(train, texts):
            raise ValueError(f"{len(found)} documents stand in training text and in {name}, as "
                             f"{texts[found[0]][:60]!r}")  # fmt: skip
    record_path, state_path = out / "pretrain.json", out / "pretrain.pt"
    curve: list[dict[str, Any]] = []
    if record_path.exists():
        record = json.loads(record_path.read_text(encoding="utf-8"))
        if record["config"] != asdict(config):
            raise ValueError(f"{out} was begun with other settings: {record['config']}")
        if record["start"] != (str(start) if start else None):
            raise ValueError(f"{out} was begun from {record['start']}, not from {start}")
        curve = record["curve"]
        if curve and curve[-1]["step"] == config.steps and not state_path.exists():
            return out  # finished before
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    else:
        tokenizer = (
            PreTrainedTokenizerFast.from_pretrained(start)
            if start
            else train_tokenizer(train, config.vocab_size)
        )
        tokenizer.save_pretrained(out)

    order = np.random.default_rng(config.seed).permutation(len(train))
    stream = token_stream([train[k] for k in order], tokenizer)
    tests = {name: token_stream(texts, tokenizer) for name, texts in held_out.items()}
    for name, tokens in {"training": stream, **tests}.items():
        if len(tokens) <= config.n_positions:
            raise ValueError(
                f"{len(tokens)} tokens of {name} text do not fill a block of "
                f"{config.n_positions + 1}"
            )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_layer=config.n_layer, n_embd=config.n_embd,
                n_head=config.n_head, n_positions=config.n_positions,
                activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0,
                attn_pdrop=0.0, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )  # fmt: skip
    if start:
        known = GPT2LMHeadModel.from_pretrained(start).state_dict()
        if missing := sorted(set(model.state_dict()) - set(known)):
            raise ValueError(f"{start} has fewer layers: {missing[0]} is missing")
        model.load_state_dict({name: known[name] for name in model.state_dict()})
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
    )
    step = 0
    if state_path.exists():
        try:
            state = torch.load(state_path, weights_only=True)
        except Exception as error:  # torch has a dozen kinds for a damaged file
            raise DataError("damaged; remove it to start again", path=state_path) from error
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, curve = state["step"], state["curve"]

    def save() -> None:
        weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        with whole_file(state_path) as partial:
            torch.save({**weights, "step": step, "curve": curve}, partial)
        record = {
            "config": asdict(config), "start": str(start) if start else None,
            "sources": dict(sources or {}), "train_tokens": len(stream), "curve": curve,
        }  # fmt: skip
        write_whole(record_path, json.dumps(record, indent=2) + "\n")

    bar = tqdm(total=config.steps, initial=step, disable=not show, desc="pre-training", unit="step")
    running: list[float] = []
    before, started = (curve[-1]["seconds"] if curve else 0.0), time.monotonic()
    while step < config.steps:
        rng = np.random.default_rng([config.seed, step])
        piece = blocks(stream, config.n_positions, rng, config.batch_size)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _cosine(step, config)
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            hidden = model.transformer(piece[:, :-1], use_cache=False).last_hidden_state
            logits = model.lm_head(hidden)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), piece[:, 1:].reshape(-1)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running.append(loss.item())
        bar.update()
        bar.set_postfix(loss=f"{running[-1]:.3f}")
        if step % every == 0 or step == config.steps:
            perplexity = {
                name: stream_perplexity(model, tokens[: CURVE * config.n_positions + 1],
                                        config.n_positions)
                for name, tokens in tests.items()
            }  # fmt: skip
            curve.append({
                "step": step, "tokens": step * config.batch_size * config.n_positions,
                "train_loss": float(np.mean(running)), "held_out_perplexity": perplexity,
                "seconds": before + time.monotonic() - started,
            })  # fmt: skip
            running = []
            save()
    bar.close()
    model.save_pretrained(out)
    state_path.unlink(missing_ok=True)
    return out


def _cosine(step: int, config: PretrainConfig) -> float:
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * share))
