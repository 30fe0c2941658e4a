"""POD meets PECRS: a long textual context prompt, and K learned vectors in its place.

The end of `pod`, on `model.PECRS`, whose weights all stay frozen. The long context opens with an
instruction and spells out the fields of every film that is named; the short one is PECRS's own,
where a film is one vector. K vectors in front of both are trained as POD trains its prompts: the
same right items, contexts long and short in turn. Then the words go, and the vectors stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pecrs_lib.context import Window, encode_dialogues
from pecrs_lib.data.schema import Catalogue, Dialogue, Mention, Movie, Utterance
from pecrs_lib.model import PECRS
from pecrs_lib.packing import Batch, additive, pack, visible

INSTRUCTION = (
    "You recommend films. Read the conversation between a user who is looking for a film and a "
    "system that knows many of them. Behind every film stand its genres, directors and actors. "
    "Think of what the user likes, of what they dislike, and of what was named before; then "
    "recommend the film they will like best."
)


def fields_of(movie: Movie) -> str:
    """What the long context says of a film."""
    facts = (", ".join(movie.genres), ", ".join(movie.directors), ", ".join(movie.actors))
    return f"{movie.name} ({'; '.join(fact for fact in facts if fact)})"


def spelled_out(dialogue: Dialogue, catalogue: Catalogue) -> Dialogue:
    """The dialogue with the fields of every named film in its text; item slots stay."""
    return replace(dialogue, utterances=tuple(_spelled(u, catalogue) for u in dialogue.utterances))


def _spelled(utterance: Utterance, catalogue: Catalogue) -> Utterance:
    text, end = "", 0
    for mention in utterance.mentions:
        if mention.start is not None and mention.end is not None and mention.item in catalogue:
            movie = catalogue[catalogue.row[mention.item]]
            text += utterance.text[end : mention.start] + fields_of(movie)
            end = mention.end
    mentions = tuple(Mention(mention.item) for mention in utterance.mentions)
    return Utterance(utterance.role, text + utterance.text[end:], mentions)


def windows(
    model: PECRS, dialogues: Sequence[Dialogue], catalogue: Catalogue, *, long: bool
) -> list[Window]:
    """The dialogues as contexts of the model, with all their words where they are `long`.

    Long ones get what room the model's positions leave beside the instruction; a dialogue that
    needs more is read in overlapping windows.

    Raises:
        ValueError: the model has too few positions.
    """
    tok = model.backbone.tokenizer
    if not long:
        return encode_dialogues(dialogues, catalogue, tok, **model.window_limits)
    room = (model.backbone.max_positions or 1024) - len(instruction(model))
    limits = {"context_tokens": room // 2, "utterance_tokens": room // 4, "window": room}
    spelled = [spelled_out(d, catalogue) for d in dialogues]
    return encode_dialogues(spelled, catalogue, tok, **limits)


def instruction(model: PECRS) -> Tensor:
    """(K, D) word vectors of the instruction."""
    ids = model.backbone.tokenizer.encode([INSTRUCTION])[0]
    return model.backbone.embed(torch.tensor(ids)).detach()


def read(model: PECRS, batch: Batch, v: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
    """`PECRS.read` with K vectors (K, D) before every context: x and hidden, (B, T, D) each."""
    K = len(prefix)
    x = model.inputs(batch, v, torch.arange(len(v)))
    B, T = batch.token.shape
    vectors = torch.cat([prefix.to(x.dtype).expand(B, -1, -1), x], 1)
    before = torch.arange(K).expand(B, K)
    sees = torch.zeros(B, 1, K + T, K + T, dtype=torch.bool)
    sees[:, :, :, :K] = True
    sees[:, :, :K, :K] = torch.ones(K, K, dtype=torch.bool).tril()
    sees[:, :, K:, K:] = visible(batch.layout, batch.layout)
    position = torch.cat([before, K + batch.position], 1)
    hidden = model.backbone(vectors, position, additive(sees, x.dtype))
    return x, hidden[:, K:]


def distances(model: PECRS, batch: Batch, v: Tensor, prefix: Tensor) -> Tensor:
    """(P, N) from the query of every point to every item."""
    x, hidden = read(model, batch, v, prefix)
    items = torch.arange(len(v))
    return model.distance(batch, x, hidden, batch.query_row, batch.query_column, v, items)


def retrieval_nll(model: PECRS, batch: Batch, v: Tensor, prefix: Tensor) -> Tensor:
    """() Eq 4 with the whole catalogue as negatives."""
    distance = distances(model, batch, v, prefix)
    return F.cross_entropy(-distance / model.config.temperature, batch.positive)


def batches(
    contexts: Sequence[Window], size: int, rng: np.random.Generator | None = None
) -> Iterator[Batch]:
    """Contexts with a recommendation in batches; shuffled with `rng`, else in their order."""
    kept = [w for w in contexts if any(turn.items for turn in w.turns)]
    order = np.arange(len(kept)) if rng is None else rng.permutation(len(kept))
    for part in np.array_split(order, max(1, len(kept) // size)):
        yield pack([kept[i] for i in part])


def distil(
    model: PECRS, long: Sequence[Window], short: Sequence[Window], v: Tensor, K: int,
    *, epochs: int, seed: int, size: int = 8, learning_rate: float = 1e-2,
) -> Tensor:  # fmt: skip
    """(K, D) vectors trained before long and short contexts in turn, the model frozen.

    They start as word vectors of the instruction, drawn with `seed`.
    """
    rng = np.random.default_rng(seed)
    words = instruction(model)
    prefix = words[rng.choice(len(words), K, replace=False)].clone().requires_grad_()
    optimizer = torch.optim.Adam([prefix], lr=learning_rate)
    model.eval().requires_grad_(False)
    for _ in range(epochs):
        for pair in zip_longest(batches(long, size, rng), batches(short, size, rng)):
            for batch in filter(None, pair):
                optimizer.zero_grad()
                retrieval_nll(model, batch, v, prefix).backward()
                optimizer.step()
    return prefix.detach()


@torch.no_grad()
def ranks(
    model: PECRS, contexts: Sequence[Window], v: Tensor, prefix: Tensor, size: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """(P,) rank of every recommended item by retrieval, and (P,) the dialogue it is in."""
    rank, dialogue = [], []
    for batch in batches(contexts, size):
        d = distances(model, batch, v, prefix)
        own = d.gather(1, batch.positive[:, None])
        rank.append(1 + (d < own).sum(1).numpy())
        dialogue.append(batch.dialogue[batch.point_response].numpy())
    return np.concatenate(rank), np.concatenate(dialogue)
