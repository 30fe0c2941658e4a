"""Toy catalogues, toy dialogues and tiny random language models for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from pecrs_lib.data import Catalogue, Dialogue, Mention, Movie, Utterance
from pecrs_lib.pretrain import train_tokenizer

WORDS = [
    "i",
    "you",
    "like",
    "love",
    "saw",
    "movie",
    "film",
    "scary",
    "funny",
    "old",
    "new",
    "with",
    "about",
    "any",
    "good",
    "great",
    "tonight",
    "have",
    "seen",
    "maybe",
    "action",
    "space",
    "robots",
    "heist",
    "detective",
    "romance",
    "music",
    "ghost",
    "island",
    "king",
    "the",
    "a",
    "an",
]


def toy_catalogue(n: int) -> Catalogue:
    rng = np.random.default_rng(0)
    pick = lambda k: " ".join(rng.choice(WORDS, k))  # noqa: E731
    return Catalogue(
        tuple(
            Movie(
                id=f"m{j}",
                title=f"The {pick(1 + j % 3)} {j}".title(),
                year=1970 + j,
                actors=(pick(2).title(), pick(2).title()),
                directors=(pick(2).title(),),
                genres=tuple(rng.choice(["Action", "Comedy", "Horror"], 1 + j % 2, replace=False)),
                plot=pick(4 + 3 * (j % 5)),
            )
            for j in range(n)
        )
    )


def toy_utterance(rng: np.random.Generator, role: str, items: list[Movie]) -> Utterance:
    text, mentions = " ".join(rng.choice(WORDS, rng.integers(1, 9))), []
    for movie in items:
        start = len(text) + 1
        text = f"{text} {movie.name}"
        mentions.append(Mention(movie.id, start, len(text)))
        text += rng.choice([" !", "?", " and"])
    return Utterance(role, text, tuple(mentions))  # type: ignore[arg-type]


def toy_dialogues(catalogue: Catalogue, n: int, seed: int, turns: int = 8) -> list[Dialogue]:
    """Alternating speakers; turns with none, one or several items."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        first = int(rng.integers(2))
        utterances = []
        for t in range(int(rng.integers(3, turns + 1))):
            count = int(rng.choice([0, 1, 1, 3]))
            rows = rng.choice(len(catalogue), count, replace=False)
            role = ("seeker", "recommender")[(t + first) % 2]
            utterances.append(toy_utterance(rng, role, [catalogue[j] for j in rows]))
        made.append(Dialogue(f"d{k}", tuple(utterances)))
    return made


def tiny_config(kind: str, vocab: int) -> PreTrainedConfig:
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    wide = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 1024, "vocab_size": vocab, **ids,
    }  # fmt: skip
    match kind:
        case "gpt2":
            return GPT2Config(
                vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=1024, **ids
            )
        case "llama":
            return LlamaConfig(**wide, num_key_value_heads=2, tie_word_embeddings=False)
        case "qwen2":
            return Qwen2Config(**wide, num_key_value_heads=2, tie_word_embeddings=True)
        case "gpt_neox":
            return GPTNeoXConfig(**wide)
        case "opt":
            return OPTConfig(
                vocab_size=vocab, hidden_size=32, ffn_dim=64, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=1024, word_embed_proj_dim=32, **ids,
            )  # fmt: skip
    raise ValueError(kind)


KINDS = ("gpt2", "llama", "qwen2", "gpt_neox", "opt")


def save_tiny_backbone(folder: Path, kind: str) -> str:
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 384)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, len(tokenizer)))
    with torch.no_grad():  # the usual 0.02 leaves attention flat; larger weights make tests bite
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
