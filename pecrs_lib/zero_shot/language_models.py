"""An instruction-tuned language model in this process, as a source of answers.

Beside `servers.py`, with the same interface (`answers.AnswerSource`). As the paper runs Llama-2
and Vicuna (section 4.4): bfloat16, greedy decoding. Any model with a chat template that
`AutoModelForCausalLM` loads will do; one without is a base model, and `likelihood.py` ranks with
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer

from pecrs_lib.zero_shot.answers import AnswerCache, Question


@dataclass
class LocalModel:
    """Greedy answers of a model, in batches, each batch kept on disk as soon as it is there.

    Attributes:
        name: in tables and in the keys of the cache.
        lm, tokenizer: of `transformers`; the tokenizer has a chat template (ValueError otherwise).
        cache: what it answers again at no cost; None keeps nothing, and a run cannot be resumed.
        max_new_tokens: 20 titles with years take about 250.
        batch_size: questions at a time; lower it if memory runs out, the answers stay the same up
            to the rounding of padded batches.
        progress: wraps the batches, e.g. `tqdm`.
    """

    name: str
    lm: Any
    tokenizer: Any
    cache: AnswerCache | None = None
    max_new_tokens: int = 512
    batch_size: int = 8
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(f"{self.name!r} has no chat template: a base model cannot be asked")
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"batch_size and max_new_tokens are at least 1, got {self.batch_size} and "
                f"{self.max_new_tokens}"
            )
        self.tokenizer.padding_side = "left"  # what is generated follows the last token
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.lm.eval()

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        **settings: Any,
    ) -> Self:
        """A model by its name on the Hub or its folder; `settings` are the attributes above."""
        lm: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
        lm.to(device)
        return cls(str(name), lm, AutoTokenizer.from_pretrained(name), **settings)

    def answer(self, questions: Sequence[Question]) -> list[str | None]:
        """One answer per question; those in the cache are not asked again.

        A prompt that leaves no room for `max_new_tokens` raises ValueError before any is answered:
        cutting it would change the question.
        """
        settings = {
            "model": self.name, "max_new_tokens": self.max_new_tokens, "dtype": str(self.lm.dtype),
        }  # fmt: skip
        keys = [AnswerCache.key(question, settings) for question in questions]
        known = {key: self.cache.get(key) if self.cache is not None else None for key in keys}
        pending = {k: q for k, q in zip(keys, questions, strict=True) if known[k] is None}
        prompts = {key: self._tokens(question) for key, question in pending.items()}
        order = sorted(prompts, key=lambda key: -len(prompts[key]))  # too large fails at once
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        for batch in self.progress(batches):
            for key, reply in zip(batch, self._generate([prompts[k] for k in batch]), strict=True):
                known[key] = reply
                if self.cache is not None:
                    self.cache.put(key, reply)
        return [known[key] for key in keys]

    def _tokens(self, question: Question) -> list[int]:
        def encode(chat: list[dict[str, str]]) -> list[int]:
            text = self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)

        control = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        chat = [{**said, "content": _typed(said["content"], control)} for said in question.chat]
        try:
            ids = encode(chat)
        except TemplateError:  # some templates know no system message
            if len(chat) < 2 or chat[0]["role"] != "system" or chat[1]["role"] != "user":
                raise
            first = {"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
            ids = encode([first, *chat[2:]])
        room = getattr(self.lm.config, "max_position_embeddings", None)
        if room is not None and len(ids) + self.max_new_tokens > room:
            raise ValueError(
                f"the prompt for dialogue {question.dialogue}, turn {question.turn} has {len(ids)} "
                f"tokens; with {self.max_new_tokens} new ones {self.name!r} needs more than {room}"
            )
        return ids

    @torch.inference_mode()
    def _generate(self, prompts: Sequence[list[int]]) -> list[str]:
        padded = self.tokenizer.pad({"input_ids": list(prompts)}, return_tensors="pt")
        inputs = {name: tensor.to(self.lm.device) for name, tensor in padded.items()}  # (B, T)
        made = self.lm.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, temperature=None,
            top_p=None, top_k=None, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        new = made[:, inputs["input_ids"].shape[1] :]
        return [str(t) for t in self.tokenizer.batch_decode(new, skip_special_tokens=True)]


def _typed(text: str, control: Iterable[str]) -> str:
    """A text in which control tokens that somebody typed are words, by a blank inside them."""
    for token in control:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text
