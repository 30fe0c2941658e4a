"""The item encoder: K learned queries that look at one CF vector, and that texts can meet.

After `cf`. Built of BLIP-2's Q-Former as `transformers` has it. Its input is one vector, so the
cross-attention has one key and always attends to it: what the queries take from the CF vector is a
linear map of it, and how they differ is up to their own vectors and to their attention to each
other. Three masks make three readers of one network: queries alone, queries and text seeing each
other, and text that is written after the queries.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

from pecrs_lib.ilm.config import ILMConfig


def matching_mask(queries: int, text: Tensor) -> Tensor:
    """(B, 1, K + L, K + L) who sees whom in ITM: all see queries and words, nobody sees padding.

    Args:
        text: (B, L) True for words.
    """
    seen = F.pad(text, (queries, 0), value=True)
    return seen[:, None, None].expand(-1, 1, seen.shape[1], -1)


def writing_mask(queries: int, text: Tensor) -> Tensor:
    """(B, 1, K + L, K + L) in ITG: queries see queries; a word sees them and the words so far."""
    length = queries + text.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=text.device).tril()
    causal[:queries, :queries] = True
    return matching_mask(queries, text) & causal


class QFormer(nn.Module):
    """Q-Former and the heads of stage 1.

    Args:
        vocabulary: size V of the words that texts are made of; two marks are added, `start` before
            a text that is read and `write` before one that is written.
    """

    def __init__(self, config: ILMConfig, vocabulary: int) -> None:
        super().__init__()
        d = config.width
        self.start, self.write = vocabulary, vocabulary + 1
        shape: Any = Blip2QFormerConfig(
            vocab_size=vocabulary + 2, hidden_size=d, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, intermediate_size=2 * d, pad_token_id=None,
            max_position_embeddings=config.text_tokens + 1, encoder_hidden_size=config.cf_dim,
            use_qformer_text_input=True,
            initializer_range=d**-0.5,  # 0.02 is for d = 768, and too small to learn from at 64
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,  # it has no generator
        )  # fmt: skip
        self.queries = nn.Parameter(torch.randn(1, config.queries, d))
        self.words = Blip2TextEmbeddings(shape)
        self.former = Blip2QFormerModel(shape)
        self.to_item, self.to_text = nn.Linear(d, d), nn.Linear(d, d)
        self.match = nn.Linear(d, 2)

    @property
    def K(self) -> int:
        return self.queries.shape[1]

    def encode(self, cf: Tensor) -> Tensor:
        """CF vectors (B, d_cf) -> query outputs (B, K, d)."""
        queries = self.queries.expand(len(cf), -1, -1)
        return self.former(queries, encoder_hidden_states=cf[:, None]).last_hidden_state

    def item_vectors(self, outputs: Tensor) -> Tensor:
        """Query outputs (B, K, d) -> K unit vectors z each (B, K, d)."""
        return F.normalize(self.to_item(outputs), dim=-1)

    def text_vectors(self, ids: Tensor, text: Tensor) -> Tensor:
        """Texts (B, L) and their mask -> unit vectors t (B, d).

        DEVIATION: BLIP-2 takes the output at the first token, which BERT has learned to gather
        in. From random weights the mean over the words gets there sooner, and sooner yet with each
        word's own vector beside its output: what is learned of a word then holds in a text that
        was never seen.
        """
        ids, text = _marked(ids, text, self.start)
        found = self.former(self.words(ids), 0, text).last_hidden_state
        own = self.words.word_embeddings(ids) * found.shape[-1] ** 0.5  # as long as the outputs
        mean = ((found + own) * text[..., None]).sum(1) / text.sum(1, keepdim=True)
        return F.normalize(self.to_text(mean), dim=-1)

    def match_logits(self, cf: Tensor, ids: Tensor, text: Tensor) -> Tensor:
        """(B, 2) logits that a text is not, or is, that of an item; the mean over queries."""
        ids, text = _marked(ids, text, self.start)
        found = self._together(cf, ids, matching_mask(self.K, text))
        return self.match(found[:, : self.K]).mean(1)

    def writing_logits(self, cf: Tensor, ids: Tensor, text: Tensor) -> Tensor:
        """(B, L, V + 2) logits of every word of a text after the words before it."""
        before, mask = _marked(ids, text, self.write)
        found = self._together(cf, before, writing_mask(self.K, mask))
        return found[:, self.K : -1] @ self.words.word_embeddings.weight.T

    def _together(self, cf: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, K + L, d) outputs of queries and words under a mask."""
        queries = self.queries.expand(len(cf), -1, -1)
        x = self.words(ids, query_embeds=queries)
        return self.former(x, self.K, mask, encoder_hidden_states=cf[:, None]).last_hidden_state


def _marked(ids: Tensor, text: Tensor, mark: int) -> tuple[Tensor, Tensor]:
    """A mark before every text, in ids and mask."""
    return F.pad(ids, (1, 0), value=mark), F.pad(text, (1, 0), value=True)


class MLP(nn.Module):
    """In place of the Q-Former: CF vectors (B, d_cf) -> (B, K, d), without queries or stage 1."""

    def __init__(self, config: ILMConfig) -> None:
        super().__init__()
        wide = 4 * config.width
        self.layers = nn.Sequential(
            nn.Linear(config.cf_dim, wide), nn.ReLU(),
            nn.Linear(wide, config.queries * config.width),
            nn.Unflatten(1, (config.queries, config.width)), nn.LayerNorm(config.width),
        )  # fmt: skip

    def encode(self, cf: Tensor) -> Tensor:
        return self.layers(cf)
