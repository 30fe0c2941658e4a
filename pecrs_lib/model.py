"""PECRS: one frozen LM, LoRA, four tokens, and the heads f, g and h_item (section 3 of the paper).

Comes after `packing`, `items` and `losses`; trained by `training`, used by `recommend` and
`generation`. One forward pass over trunks and branches gives the three losses of every turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pecrs_lib.backbone import Backbone
from pecrs_lib.config import Config
from pecrs_lib.data.schema import Catalogue
from pecrs_lib.data.storage import check_sums, write_sums
from pecrs_lib.encoding import cached_features, encode_items
from pecrs_lib.heads import Head, QueryEncoder, Standardise, mlp
from pecrs_lib.items import ItemEncoder, ItemFeatures, Progress, tokenize_items
from pecrs_lib.losses import (
    joint_loss,
    pairwise_angular_distance,
    pairwise_dot_product_distance,
    rerank_loss,
    response_loss,
    retrieval_loss,
)
from pecrs_lib.negatives import own_item
from pecrs_lib.packing import Batch, additive, visible
from pecrs_lib.processes import ALONE, Processes

PARTS = ("pecrs.json", "heads.safetensors", "adapter/adapter_model.safetensors")


@dataclass(frozen=True)
class Losses:
    """The three losses of a batch, each (), and what they are averaged over."""

    recall: Tensor
    rerank: Tensor
    gen: Tensor
    points: int
    responses: int

    def joint(self, config: Config) -> Tensor:
        weights = {name: getattr(config, name) for name in ("alpha", "beta", "gamma")}
        return joint_loss(self.recall, self.rerank, self.gen, **weights)


class PECRS(nn.Module):
    """The model. Make one with `from_backbone`, or load a trained one with `from_pretrained`.

    Attributes:
        config: how it was built and trained.
        backbone: the LM with its adapters and tokenizer.
        items: pooling and item head (Eq 1).
        queries: what f reads of a turn (Eq 2).
        f: projection of queries and of candidates read in context.
        g: score of a candidate.
    """

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        dim = backbone.dim
        table = backbone.embed(torch.arange(min(4096, backbone.tokenizer.item)))
        scale = float(table.detach().float().std())
        self.items = ItemEncoder(
            dim, scale, pooling=config.item_pooling, head=config.item_head,
            padding=config.pool_padding,
        )  # fmt: skip
        self.queries = QueryEncoder(dim, config.query_pooling, config.repetition_scale)
        self.standardise_q = Standardise(dim)
        self.f = Head(dim)
        self.g = mlp(dim, 1)
        limit = backbone.max_positions
        if limit is not None and config.window > limit:
            raise ValueError(
                f"window={config.window} is longer than the {limit} positions of "
                f"{config.backbone!r}; what fits is window={limit} "
                f"context_tokens={3 * limit // 8} utterance_tokens={3 * limit // 16}"
            )

    @classmethod
    def from_backbone(cls, config: Config) -> PECRS:
        """Fresh adapters and heads on `config.backbone`; heads are drawn with `config.seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            lora = {k: v for k, v in config.to_dict().items() if k.startswith("lora_")}
            backbone = Backbone.load(config.backbone, dtype=getattr(torch, config.dtype), **lora)
            return cls(config, backbone)

    # -- saving and loading ---------------------------------------------------------------------

    def _heads(self) -> nn.Module:
        heads = nn.Module()
        for name in ("items", "f", "g", "queries", "standardise_q"):
            heads.add_module(name, getattr(self, name))
        return heads

    def head_buffers(self) -> dict[str, Tensor]:
        """Statistics of the standardisations: not trained, but part of the model."""
        return dict(self._heads().named_buffers())

    def save_pretrained(self, folder: str | Path) -> None:
        """Adapters, token vectors, heads (safetensors), config, checksums; not the backbone."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backbone.save(folder / "adapter")
        heads = self._heads().state_dict()
        save_file(
            {name: value.contiguous() for name, value in heads.items()},
            folder / "heads.safetensors",
        )
        record = {"config": self.config.to_dict(), "backbone": self.backbone.fingerprint}
        (folder / "pecrs.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_sums(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, backbone: str | None = None) -> PECRS:
        """Load what `save_pretrained` wrote.

        Args:
            backbone: where the frozen LM is, when it has moved since training.

        Raises:
            FileNotFoundError: not such a folder.
            DataError: a file is not what it was when it was saved.
            ValueError: its heads are not those of this version.
            BackboneError: the backbone is missing, or its weights are not those of the training.
        """
        folder = Path(folder)
        check_sums(folder)
        for name in PARTS:  # peft would look for adapters elsewhere
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder} is no PECRS checkpoint: it has no {name}")
        record = json.loads((folder / "pecrs.json").read_text(encoding="utf-8"))
        config = Config.from_dict(record["config"])
        if backbone is not None:
            config = config.with_(backbone=backbone)
        loaded = Backbone.load(
            config.backbone, dtype=getattr(torch, config.dtype), adapter=folder / "adapter",
            fingerprint=record["backbone"],
        )  # fmt: skip
        model = cls(config, loaded)
        try:
            model._heads().load_state_dict(load_file(folder / "heads.safetensors"))
        except RuntimeError as error:
            why = " ".join(str(error).split())
            message = f"{folder} is of another version of the package; train it again ({why})"
            raise ValueError(message) from None
        return model

    # -- what is trained ------------------------------------------------------------------------

    @property
    def window_limits(self) -> dict[str, int]:
        """Limits of `context.windows_of`, from the configuration."""
        names = ("context_tokens", "utterance_tokens", "window")
        return {name: getattr(self.config, name) for name in names}

    @property
    def device(self) -> torch.device:
        return self.items.scale.device

    def parameter_table(self) -> dict[str, int]:
        """Numbers of weights: of the frozen LM, of each trained part, and trained in percent."""
        count: dict[str, int] = {"frozen": 0, "LoRA": 0, "tokens": 0}
        for name, p in self.backbone.named_parameters():
            part = "tokens" if "trainable_tokens" in name else "LoRA" if "lora_" in name else ""
            count[part if p.requires_grad else "frozen"] += p.numel()
        for name, head in self._heads().named_children():
            count[name] = sum(p.numel() for p in head.parameters())
        return {name: n for name, n in count.items() if n}

    @property
    def trainable_share(self) -> float:
        """Trained weights over all weights, 0 to 1 (the paper: around 0.05)."""
        table = self.parameter_table()
        return 1 - table["frozen"] / sum(table.values())

    # -- items ----------------------------------------------------------------------------------

    def item_features(
        self, catalogue: Catalogue, *, cache_dir: Path | None = None, adapted: bool = False,
        progress: Progress = iter, processes: Processes = ALONE, **texts: Any,
    ) -> ItemFeatures:  # fmt: skip
        """LM features of every item text.

        Args:
            cache_dir: keep them in a file there; only with the adapters off, where they last.
            adapted: encode with the adapters and trained tokens as they are now.
            processes: they share the encoding, and each gets the whole.
            texts: `fields` of `tokenize_items`, to drop some.
        """
        tok, dim = self.backbone.tokenizer, self.backbone.dim
        tokens, _ = tokenize_items(catalogue, tok, item_tokens=self.config.item_tokens, **texts)
        lm_output = partial(self.backbone.item_output, adapted=adapted)
        how: Any = {"device": self.device, "progress": progress, "processes": processes}
        if cache_dir is None or adapted:
            return encode_items(tokens, lm_output, dim=dim, **how)
        how |= {"backbone": f"{self.backbone.fingerprint}-{self.config.dtype}"}
        return cached_features(tokens, lm_output, dim=dim, cache_dir=cache_dir, **how)

    @torch.no_grad()
    def encode_catalogue(self, features: ItemFeatures) -> Tensor:
        """(N, D) item vectors v_j (Eq 1) of the whole catalogue."""
        return self.items.catalogue(features)

    # -- one pass -------------------------------------------------------------------------------

    def inputs(self, batch: Batch, v: Tensor, row_of: Tensor) -> Tensor:
        """(B, T, D) what the LM reads: words, item vectors in their slots, candidates unplaced.

        Args:
            v: (n, D) vectors of the items that occur in the batch.
            row_of: (N,) catalogue row -> row of v.
        """
        x = self.backbone.embed(batch.token)
        slot = batch.item >= 0
        x = x.masked_scatter(slot[..., None], v[row_of[batch.item[slot]]].to(x.dtype))
        placed = self.backbone.position_vectors(batch.position)
        if placed is not None:
            x = x - placed * batch.without_position[..., None]
        return x

    def read(
        self, batch: Batch, v: Tensor, row_of: Tensor, cache: Any = None
    ) -> tuple[Tensor, Tensor]:
        """What the LM reads of a packed batch and its last hidden states, (B, T, D) each."""
        x = self.inputs(batch, v, row_of)
        mask = additive(visible(batch.layout, batch.layout.first(batch.shared)), x.dtype)
        return x, self.backbone(x, batch.position, mask, cache)

    def distance(
        self, batch: Batch, x: Tensor, hidden: Tensor, row: Tensor, column: Tensor,
        v: Tensor, items: Tensor, training: bool = False,
    ) -> Tensor:  # fmt: skip
        """(P, n) from f(d_t) of the turns with ``[REC]`` at (row, column), (P,) each, to items of
        catalogue rows `items` (n,) and vectors v (n, D); x and hidden come from `read`.
        """
        query = self.f(self.queries(hidden[row, column], x, row, column))
        between = self.training_distance if training else pairwise_angular_distance
        return between(query, v) - self.queries.offset(batch.item, row, column, items)

    def training_distance(self, query: Tensor, v: Tensor) -> Tensor:
        """(P, n) from queries (P, D) to items (n, D) as the retrieval loss takes them."""
        if self.config.dot_product:
            return pairwise_dot_product_distance(query, v / self.items.scale)
        return pairwise_angular_distance(query, v)

    def candidate_scores(self, hidden: Tensor, distance: Tensor) -> Tensor:
        """r_j of candidates: LM outputs (…, D) and their distances to the query (…) -> (…).

        r_j = g(q_j), q_j = f(LM output). DEVIATION: with `rerank_from_retrieval` the score
        starts from what retrieval says, r_j = g(q_j) - distance_j / temperature; g corrects it.
        """
        r = self.g(self.f(self.standardise_q(hidden.float())))[..., 0]
        share = self.config.rerank_from_retrieval / self.config.temperature
        return r - share * distance.detach()

    def token_nll(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(R,) −log p of every scored response token."""
        said = hidden[batch.response_row, batch.response_column]
        return self.backbone.token_nll(said, batch.response_label)

    def forward(self, batch: Batch, features: ItemFeatures) -> Losses:
        """The three losses of a batch (Eq 4, 5, 7)."""
        present = torch.zeros(len(features), dtype=torch.bool, device=self.device)
        present[batch.item[batch.item >= 0]] = True
        present[batch.retrieval_negative] = True
        row_of = present.cumsum(0) - 1  # catalogue row -> row of v
        rows = present.nonzero()[:, 0]
        v = self.items(*features.gather(rows)) if len(rows) else features.values[:0].float()
        x, hidden = self.read(batch, v, row_of)
        place = (batch, x, hidden, batch.query_row, batch.query_column, v, rows)
        to_v = self.distance(*place)
        pulled = self.distance(*place, training=True) if self.config.dot_product else to_v
        against = torch.cat([batch.positive[:, None], batch.retrieval_negative], 1)
        distance = pulled.gather(1, row_of[against]).masked_fill(own_item(against), torch.inf)
        q = hidden[batch.query_row[:, None], batch.candidate_column]
        r = self.candidate_scores(q, to_v.gather(1, row_of[batch.candidate]))
        r = r.masked_fill(own_item(batch.candidate), -torch.inf)
        return Losses(
            recall=retrieval_loss(distance, self.config.temperature, batch.responses),
            rerank=rerank_loss(r, batch.responses),
            gen=response_loss(self.token_nll(hidden, batch), batch.response_of, batch.responses),
            points=len(batch.positive),
            responses=batch.responses,
        )
