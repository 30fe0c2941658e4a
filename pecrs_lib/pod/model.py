"""POD's model: a plain T5, whole-word embeddings, and K continuous prompt vectors per task.

Comes after `batches`; trained by `training`, asked by `recommending`. The encoder reads
``[P_task ; E(token) + W(word)]``, everything else is `transformers`' T5.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from pecrs_lib.pod.batches import IGNORED, Batch
from pecrs_lib.pod.config import PODConfig
from pecrs_lib.pod.prompts import TASKS
from pecrs_lib.pod.vocabulary import EOS, PAD


class POD(nn.Module):
    """A T5 from random weights, drawn with `config.seed`.

    Attributes:
        t5: the language model.
        prompt: (tasks, K, D) continuous prompts.
        word: whole-word embeddings; number 0, words of a template, adds nothing.
    """

    def __init__(self, config: PODConfig, tokens: int) -> None:
        super().__init__()
        self.config = config
        shape: dict[str, Any] = {
            "vocab_size": tokens, "d_model": config.width, "d_kv": config.width // config.heads,
            "d_ff": config.feed, "num_layers": config.layers, "num_heads": config.heads,
            "dropout_rate": config.dropout, "decoder_start_token_id": PAD, "pad_token_id": PAD,
            "eos_token_id": EOS,
        }  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.t5: Any = T5ForConditionalGeneration(T5Config(**shape))  # or peft's, around it
            self.prompt = nn.Parameter(torch.randn(len(TASKS), config.prompts, config.width))
            most = max(config.history, config.candidates) + 2  # and the user, and number 0
            self.word = nn.Embedding(most, config.width, padding_idx=0)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the encoder reads: (B, K + T, D) vectors and (B, K + T) True where there are any."""
        vector = self.t5.shared(batch.token)
        if self.config.whole_words:
            vector = vector + self.word(batch.word)
        prompt = self.prompt[batch.task]
        there = torch.arange(batch.token.shape[1]) < batch.length[:, None]
        before = torch.ones(prompt.shape[:2], dtype=torch.bool)
        return torch.cat([prompt, vector], 1), torch.cat([before, there], 1)

    def token_nll(self, batch: Batch) -> Tensor:
        """(B, S) −log p of every token of the answers, 0 behind their end."""
        vector, there = self.inputs(batch)
        logits = self.t5(inputs_embeds=vector, attention_mask=there, labels=batch.label).logits
        return nn.functional.cross_entropy(
            logits.mT, batch.label, ignore_index=IGNORED, reduction="none"
        )

    def forward(self, batch: Batch) -> Tensor:
        """() mean −log p of the answers' tokens (the paper's NLL).

        DEVIATION: POD's code counts the padding behind short answers, too; here it is left out, so
        that the loss of a sample does not depend on the others of its batch.
        """
        return self.token_nll(batch).sum() / (batch.label != IGNORED).sum()
