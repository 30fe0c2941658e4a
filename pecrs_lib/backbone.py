"""Any decoder-only language model as PECRS needs it: frozen, with LoRA and four trainable tokens.

Comes before `model`, which adds the heads. Everything that depends on how `transformers` and
`peft` lay out a model is in here (section 3.5 of the paper).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pecrs_lib import attention, vocabulary
from pecrs_lib.context import SPECIAL_TOKENS, DialogueTokenizer
from pecrs_lib.data.minireel import bundled_backbone
from pecrs_lib.vocabulary import append_rows, token_layers

# DEVIATION: the paper does not say where the four vectors start; here, as words of that meaning.
START = {"[ITEM]": " film", "[SEP]": ",", "[REC]": "[", "[REC_END]": "]"}
ADAPTER = "default"


class BackboneError(ValueError):
    """The language model cannot be loaded, or is of a kind PECRS cannot use."""


class Backbone(nn.Module):
    """A frozen LM with LoRA adapters and four token vectors; made by `load`.

    Attributes:
        lm: the `peft` model.
        tokenizer: `DialogueTokenizer` with the ids of the four tokens.
        dim: D, size of embeddings and hidden states.
        fingerprint: changes with any frozen weight.
    """

    def __init__(self, lm: Any, tokenizer: DialogueTokenizer, fingerprint: str) -> None:
        super().__init__()
        self.lm: Any = lm
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.dim: int = self._table(self.lm.get_input_embeddings())[0].shape[1]

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: torch.dtype = torch.float32,
        lora_rank: int = 16,
        lora_alpha: int = 32,
        lora_dropout: float = 0.0,
        lora_targets: str | None = None,
        adapter: str | Path | None = None,
        fingerprint: str | None = None,
    ) -> Backbone:
        """Load a folder or a hub name, add LoRA (by peft's default to query and value, in GPT-2
        to the fused query, key and value) and the four tokens.

        Args:
            name: anything `AutoModelForCausalLM.from_pretrained` takes, or the name of a model
                that comes with the package ("reel-small", "reel-base").
            dtype: of the frozen weights; adapters stay float32.
            adapter: folder written by `save`, instead of fresh adapters.
            fingerprint: of the weights the adapters belong to; checked when given.

        Raises:
            BackboneError: no such model, damaged weights, no tokenizer beside them, other weights
                than the fingerprint says, or embeddings and hidden states of different size.
        """
        name = bundled_backbone(name)
        try:
            config = AutoConfig.from_pretrained(name)
            if getattr(config, "activation_function", None) == "gelu_new":
                config.activation_function = "gelu_pytorch_tanh"  # the same function, fused
            auto: Any = AutoModelForCausalLM
            model = auto.from_pretrained(
                name, config=config, dtype=dtype, attn_implementation=attention.NAME
            )
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if Path(name).is_absolute() and not Path(name).exists():
                reason = "no such folder"
            raise BackboneError(
                f"cannot load the language model {name!r}: {reason} "
                "(give a folder with config.json, weights and tokenizer, or a hub name)"
            ) from error
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            raise BackboneError(  # transformers makes up an empty one where the files are missing
                f"{name!r} has no tokenizer files (tokenizer.json and tokenizer_config.json)"
            )
        rows, dim = model.get_input_embeddings().weight.shape
        if dim != model.config.hidden_size:
            raise BackboneError(
                f"{name!r} embeds words in {dim} dimensions but computes in "
                f"{model.config.hidden_size}; item vectors could not stand among its words"
            )
        found = _fingerprint(model)
        if fingerprint not in (None, found):
            raise BackboneError(
                f"the adapters were trained on other weights than those of {name!r}; "
                "point backbone= at the original"
            )
        tok = DialogueTokenizer(tokenizer, first_special=rows)
        append_rows(model, [tok.encode([START[name]])[0] for name in SPECIAL_TOKENS])
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules=lora_targets,
            fan_in_fan_out=model.config.model_type == "gpt2",  # its layers are Conv1D
            trainable_token_indices=token_layers(model, tok.special_ids),
        )
        with warnings.catch_warnings():  # peft reads a property that transformers 5 renames
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            lm: Any
            if adapter is None:
                lm = get_peft_model(model, lora)
            else:
                lm = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
        return cls(lm, tok, found)

    def save(self, folder: Path) -> None:
        """Adapters and token vectors as safetensors; the frozen weights stay where they are."""
        self.lm.save_pretrained(str(folder), save_embedding_layers=False)
        # peft notes where the LM lay on this machine; the checkpoint's own record names it
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        record = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def train(self, mode: bool = True) -> Backbone:
        """The frozen LM stays in evaluation mode; only the adapters' own dropout follows."""
        super().train(mode)
        self.lm.eval()
        for name, module in self.lm.named_modules():
            if "lora_dropout" in name:
                module.train(mode)
        return self

    @property
    def body(self) -> Any:
        """The LM without its head."""
        return self.lm.get_base_model().base_model

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the LM has positions for, where it says so."""
        return getattr(self.lm.config, "max_position_embeddings", None)

    @staticmethod
    def _table(module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Frozen rows, trained special rows and initial special rows of a wrapped layer.

        `peft` computes with a copy of the whole table in which the trained rows are replaced;
        its gradient is as large as the table. Reading the pieces keeps that gradient at four rows.
        """
        adapter: Any = module.token_adapter
        return (
            adapter.base_layer.weight,
            adapter.trainable_tokens_delta[ADAPTER],
            adapter.trainable_tokens_original[ADAPTER],
        )

    def embed(self, token: Tensor, *, adapted: bool = True) -> Tensor:
        """Word vectors (…, D) of ids (…); the four tokens as trained, or as they started."""
        frozen, trained, initial = self._table(self.lm.get_input_embeddings())
        x = F.embedding(token, frozen)
        special = token >= self.tokenizer.item
        rows = (trained if adapted else initial).to(x.dtype)
        return x.masked_scatter(special[..., None], rows[token[special] - self.tokenizer.item])

    def _head(self) -> tuple[Tensor, Tensor, Tensor | None]:
        head: Any = self.lm.get_base_model().get_output_embeddings()
        frozen, trained, _ = self._table(head)
        bias = getattr(head.token_adapter.base_layer, "bias", None)
        return frozen[: self.tokenizer.item], trained, bias

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, V) float32, only where the caller needs them."""
        return vocabulary.logits(hidden, *self._head())

    def token_nll(self, hidden: Tensor, label: Tensor) -> Tensor:
        """(R,) −log p of tokens (R,) after hidden states (R, D)."""
        return vocabulary.token_nll(hidden, label, *self._head())

    def position_vectors(self, position: Tensor) -> Tensor | None:
        """(…, D) what the LM adds for learned positions; None for rotary and the like."""
        body: Any = self.body
        table = getattr(body, "wpe", None)
        if table is not None:
            return table(position)
        table = getattr(getattr(body, "decoder", None), "embed_positions", None)
        if table is not None:  # OPT
            return F.embedding(position + table.offset, table.weight)
        return None

    def forward(self, x: Tensor, position: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
        """Last hidden states (B, T, D).

        Args:
            x: (B, T, D) input vectors.
            position: (B, T) position ids.
            mask: (B, 1, T, S) additive, over the first S of all T_cache + T keys; the others are
                seen by their own token only (`attention`).
            cache: a `transformers` cache to read and extend.
        """
        return self.body(
            inputs_embeds=x,
            position_ids=position,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def item_output(self, token: Tensor, mask: Tensor, *, adapted: bool = False) -> Tensor:
        """C_j of Eq 1: (n, L) ids and mask -> (n, L, D), with the adapters off unless `adapted`."""
        L = token.shape[1]
        position = torch.arange(L, device=token.device).expand_as(token)
        causal = torch.ones(L, L, dtype=torch.bool, device=token.device).tril()
        dtype = self.dtype
        allowed = (causal & mask[:, None]) | torch.eye(L, dtype=torch.bool, device=token.device)
        bias = torch.zeros(allowed.shape, dtype=dtype, device=token.device)
        bias = bias.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
        x = self.embed(token, adapted=adapted)
        if adapted:
            return self(x, position, bias)
        with self.lm.disable_adapter():
            return self(x, position, bias)

    @property
    def dtype(self) -> torch.dtype:
        return self._table(self.lm.get_input_embeddings())[0].dtype

    @contextmanager
    def tokens_merged(self) -> Iterator[PeftModel]:
        """For `generate`: the trained rows copied into the tables, and exactly restored after."""
        layers: list[Any] = [
            self.lm.get_input_embeddings(), self.lm.get_base_model().get_output_embeddings()
        ]  # fmt: skip
        tables = {id(t := layer.token_adapter.base_layer.weight): (t, layer) for layer in layers}
        special = slice(self.tokenizer.item, None)
        before = [t.data[special].clone() for t, _ in tables.values()]
        adapters = [layer.token_adapter for layer in layers]
        with torch.no_grad():
            for table, layer in tables.values():
                table.data[special] = self._table(layer)[1].to(table.dtype)
        for adapter in adapters:
            adapter.merged_adapters.append(ADAPTER)
        hook = layers[1].register_forward_pre_hook(_contiguous)
        try:
            yield self.lm
        finally:
            hook.remove()
            for (table, _), rows in zip(tables.values(), before, strict=True):
                table.data[special] = rows
            for adapter in adapters:
                adapter.merged_adapters.remove(ADAPTER)


def _contiguous(head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last places of a prompt are a view; torch would copy the table for each of them."""
    return (args[0].contiguous(),)


def _fingerprint(model: nn.Module) -> str:
    """A hash over name, type, shape and bytes of every weight: any change moves it.

    Sums would not do: their last bits depend on the number of threads.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}{weight.dtype}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
