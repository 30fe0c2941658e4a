"""Stage 2: a frozen language model reads item vectors in the slots of a prompt.

After `tasks`. The item encoder and a linear adaptor are trained with the next-token loss on the
answers; not a weight of the language model changes, so all it could say before it can say still.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from pecrs_lib.data.minireel import bundled_backbone
from pecrs_lib.ilm.alignment import Progress
from pecrs_lib.ilm.config import ILMConfig
from pecrs_lib.ilm.qformer import MLP, QFormer
from pecrs_lib.ilm.tasks import Material, Task, TaskBatch, draw_tasks, encode_tasks


def load_backbone(name: str) -> tuple[Any, Any]:
    """A frozen causal LM in float32, and its tokenizer, by name or folder."""
    folder = bundled_backbone(name)
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return lm.requires_grad_(False).eval(), AutoTokenizer.from_pretrained(folder)


def fingerprint(lm: nn.Module) -> str:
    """SHA-256 of every weight, bit for bit."""
    found = hashlib.sha256()
    for p in lm.parameters():
        found.update(p.detach().cpu().numpy().tobytes())
    return found.hexdigest()


class ILM(nn.Module):
    """Item encoder, adaptor, prompt, and the LM they talk to.

    Args:
        encoder: K outputs of width d for a CF vector.
        lm, tokenizer: of `load_backbone`.
    """

    def __init__(self, config: ILMConfig, encoder: QFormer | MLP, lm: Any, tokenizer: Any) -> None:
        super().__init__()
        self.config, self.lm, self.tokenizer = config, lm, tokenizer
        self.encoder = encoder
        words = lm.get_input_embeddings().weight
        generator = torch.Generator().manual_seed(config.seed)
        self.scale = float(words.detach().std())  # the LM reads what is of the size of its words
        self.adaptor = nn.Linear(config.width, words.shape[1])
        with torch.no_grad():
            self.adaptor.weight.normal_(0, config.width**-0.5, generator=generator)
            self.adaptor.bias.zero_()
        # DEVIATION: the paper trains no prompt. A text-only LM has nothing else to learn the form
        # of the answers with, so all variants have one.
        self.prompt = nn.Parameter(torch.randn(config.prompt, words.shape[1], generator=generator))

    def save(self, folder: Path) -> None:
        """Settings and trained weights, in half precision; not the LM."""
        folder.mkdir(parents=True, exist_ok=True)
        record = json.dumps(self.config.to_dict(), indent=2)
        (folder / "ilm.json").write_text(record + "\n", encoding="utf-8")
        weights = {n: p.detach().half().contiguous() for n, p in self._own().items()}
        save_file(weights, folder / "weights.safetensors")

    @classmethod
    def load(cls, folder: Path) -> ILM:
        """What `save` wrote, of a model with a Q-Former."""
        config = ILMConfig(**json.loads((folder / "ilm.json").read_text(encoding="utf-8")))
        weights = load_file(folder / "weights.safetensors")
        words = weights["encoder.words.word_embeddings.weight"]
        model = cls(config, QFormer(config, len(words) - 2), *load_backbone(config.backbone))
        with torch.no_grad():
            for name, p in model._own().items():
                p.copy_(weights[name])
        return model.eval()

    def _own(self) -> dict[str, nn.Parameter]:
        """What stage 2 trains by name: everything but the LM."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("lm.")}

    def slots(self, cf: Tensor) -> Tensor:
        """CF vectors (n, d_cf) -> (n, K, D), what the LM reads in their place."""
        return self.scale * self.adaptor(self.encoder.encode(cf))

    def inputs(self, batch: TaskBatch, table: Tensor) -> Tensor:
        """(B, P + T, D): the learned prompt, then words and slots.

        Args:
            table: (N + U, d_cf) CF vectors of items, then of users.
        """
        x = self.lm.get_input_embeddings()(batch.token)
        filled = batch.slot >= 0
        rows, place = batch.slot[filled].unique(return_inverse=True)
        if len(rows):
            x = x.masked_scatter(
                filled[..., None], self.slots(table[rows])[place, batch.part[filled]]
            )
        prompt = (self.scale * self.prompt).expand(len(x), -1, -1)
        return torch.cat([prompt, x], 1)

    def answer_nll(self, batch: TaskBatch, table: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) −log p of the answers' tokens in nats, and which task (n,) each is of."""
        hidden = self.lm.base_model(inputs_embeds=self.inputs(batch, table)).last_hidden_state
        task, at = batch.answer.nonzero().T
        before = hidden[task, len(self.prompt) + at - 1]  # (n, D): only these meet the vocabulary
        logits = self.lm.get_output_embeddings()(before)
        return F.cross_entropy(logits, batch.token[task, at], reduction="none"), task

    def encoded(self, tasks: Sequence[Task], names: Sequence[str] | None = None) -> TaskBatch:
        """Tasks with K vectors in their slots, or with the words `names` (N + U,) instead."""
        if names is not None:
            tasks = [task.in_words(names) for task in tasks]
        return encode_tasks(tasks, self.tokenizer, self.config.queries)


def teach(
    model: ILM, material: Material, table: Tensor, names: Sequence[str] | None = None,
    progress: Progress = iter,
) -> list[float]:  # fmt: skip
    """Stage 2 in place: `config.steps` batches of tasks, drawn anew each time.

    Args:
        table: (N + U, d_cf) CF vectors of items, then of users.
        names: (N + U,) words for the slots: the text-only LM, which learns its prompt alone.
        progress: wraps the steps, e.g. `tqdm`.

    Returns:
        the loss of every step, in nats a token.
    """
    config = model.config
    generator = np.random.default_rng(config.seed)
    groups: list[dict[str, Any]] = [
        {"params": list(model.encoder.parameters()), "lr": config.encoder_rate},
        {"params": list(model.adaptor.parameters()), "lr": config.adaptor_rate},
        {"params": [model.prompt], "lr": config.prompt_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 20) * (1 - step / config.steps)
    )
    model.encoder.train()
    history = []
    for _ in progress(range(config.steps)):
        batch = model.encoded(draw_tasks(material, config.batch, generator), names)
        loss = model.answer_nll(batch, table)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append(loss.item())
    model.encoder.eval()
    return history
