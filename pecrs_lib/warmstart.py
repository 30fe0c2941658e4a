"""The heads of retrieval, trained on a frozen LM before the single stage.

Comes after `calibration`, before `training`, which asks for it when `warm_start` is set.

DEVIATION: the paper trains everything in one stage from the start. There each step of retrieval
costs a pass of the whole LM. With the LM frozen and read once, a step costs a hundredth: the
query's pooling, f and h_item learn in a minute what the single stage needs an hour for, and it goes
on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pecrs_lib.batches import batches_by_length, epoch_batches
from pecrs_lib.context import Window
from pecrs_lib.data.schema import Catalogue
from pecrs_lib.heads import repetition_offset
from pecrs_lib.items import ItemFeatures, tokenize_items
from pecrs_lib.losses import retrieval_loss
from pecrs_lib.model import PECRS
from pecrs_lib.negatives import draw_negatives, own_item
from pecrs_lib.packing import pack
from pecrs_lib.processes import ALONE, Processes
from pecrs_lib.protocol import Progress

PIECES = 128  # of item texts that are queries in each step
PIECE_TOKENS = (3, 25)  # how long they are, the end excluded
PIECES_WEIGHT = 0.1


def named_in(window: Window, sep: int) -> np.ndarray:
    """(p, 3) of the films a window names: column of the marker before, catalogue row, by whom.

    The last is 1 for the points the model is trained on, recommended in the turns scored here,
    and 0 for what the seeker names.

    Args:
        sep: id of the marker that opens a seeker's items.
    """
    slot = np.flatnonzero(window.item >= 0)
    opens = np.diff(slot, prepend=-2) > 1
    marker = slot[opens][opens.cumsum() - 1] - 1
    scored = np.isin(marker, [turn.start for turn in window.turns])
    points = np.stack([marker, window.item[slot], scored], 1)
    return points[scored | (window.token[marker] == sep)]


@torch.no_grad()
def outputs_at_rec(
    model: PECRS,
    windows: Sequence[Window],
    v: Tensor,
    progress: Progress = iter,
    processes: Processes = ALONE,
) -> dict[int, Tensor]:
    """The LM's outputs at the ``[REC]`` of every point of a window, (p, D), by ``id(window)``.

    Args:
        processes: they share the reading, and each gets the whole.
    """
    rows = torch.arange(len(v), device=v.device)
    found: dict[int, Tensor] = {}
    batches = batches_by_length(windows, 1024)  # what caches hold
    for part in progress(processes.share(batches)):
        batch = pack(part).to(v.device)
        hidden = model.read(batch, v, rows)[1]
        d = hidden[batch.query_row, batch.query_column]
        for k, window in enumerate(part):
            found[id(window)] = d[batch.query_row == k]
    if processes.count == 1:
        return found
    mine = [(k, found[id(w)].cpu()) for k, w in enumerate(windows) if id(w) in found]
    return {id(windows[k]): d.to(v.device) for k, d in processes.join(mine)}


def retrieval_of(
    model: PECRS,
    windows: Sequence[Window],
    at_rec: dict[int, Tensor] | None,
    v: Tensor,
    seeker_repetition: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (P, N) of the films named in some windows to every item.

    Args:
        at_rec: from `outputs_at_rec`; None: the mean everywhere, which says nothing.
        v: (N, D) item vectors.
        seeker_repetition: (2,) how often seekers repeat films, see `repetition_offset`.

    Returns:
        the distances, the catalogue rows of the films (P,), and whether each was recommended.
    """
    token = _padded([w.token for w in windows], 0).to(v.device)
    item = _padded([w.item for w in windows], -1).to(v.device)
    named = [named_in(w, model.backbone.tokenizer.sep) for w in windows]
    row = np.repeat(np.arange(len(windows)), [len(points) for points in named])
    points = np.column_stack([row, np.concatenate(named)])
    row, column, target, by = torch.from_numpy(points).to(v.device).T
    queries, recommended = model.queries, by.bool()
    d = queries.standardise.mean.repeat(len(target), 1)  # also where nobody recommends
    if at_rec is not None:
        d[recommended] = torch.cat([at_rec[id(w)] for w in windows])
    query = queries.standardise(d)
    if queries.gate is None:
        return model.training_distance(model.f(query), v), target, recommended
    kind, count = bags(torch.where(item < 0, token, -1 - item), row, column)
    word = kind >= 0
    x = torch.cat([v[-1 - kind[~word]], model.backbone.embed(kind[word]).detach().float()])
    query = queries.share * query + queries.pool_bags(x, count)
    distance = model.training_distance(model.f(query), v)
    repetition = torch.where(recommended[:, None], queries.repetition, seeker_repetition)
    every = torch.arange(len(v), device=v.device)
    offset = repetition_offset(item, row, column, every, repetition)
    return distance - offset, target, recommended


def bags(kind: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """What was read up to (row, column), (P,) each, of (B, T): its kinds (U,) in order, and how
    often each was read, (P, U).
    """
    kinds, place = kind.unique(return_inverse=True)
    later = torch.arange(kind.shape[1], device=kind.device) > column[:, None]
    count = torch.zeros(len(row), len(kinds) + 1, device=kind.device)
    place = place[row].masked_fill(later, len(kinds))
    return kinds, count.scatter_add(1, place, (~later).float())[:, :-1]


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    return pad_sequence([torch.from_numpy(r) for r in rows], True, value).long()


def pieces_loss(
    model: PECRS, texts: Sequence[np.ndarray], v: Tensor, generator: np.random.Generator
) -> Tensor:
    """The retrieval loss (Eq 3) of queries that are a few words of an item's own text.

    DEVIATION, after the inverse cloze task (Lee et al. 2019, "Latent Retrieval for Weakly
    Supervised Open Domain Question Answering"): the words that describe a film should find it,
    also if no training dialogue does; this is all that films without a single mention learn from.

    Args:
        texts: token ids of each item's text.
        v: (N, D) item vectors.
    """
    drawn = generator.integers(len(texts), size=PIECES)
    length = generator.integers(*PIECE_TOKENS, size=PIECES)
    parts = [generator.permutation(texts[j])[:n] for j, n in zip(drawn, length, strict=True)]
    ids = _padded(parts, 0).to(v.device)
    row = torch.arange(PIECES, device=v.device)
    column = torch.tensor([len(p) - 1 for p in parts], device=v.device)
    words, count = bags(ids, row, column)
    query = model.f(model.queries.pool_bags(model.backbone.embed(words).detach(), count))
    distance = model.training_distance(query, v)
    target = torch.from_numpy(drawn).to(v.device)
    return F.cross_entropy(-distance / model.config.temperature, target)


@contextmanager
def unchanged_if_interrupted(weights: Iterable[Tensor]) -> Iterator[None]:
    """Weights are as before where what happens inside does not come to its end, e.g. by Ctrl-C."""
    weights = list(weights)
    before = [w.detach().clone() for w in weights]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
        raise


def warm_start(
    model: PECRS,
    windows: Sequence[Window],
    features: ItemFeatures,
    catalogue: Catalogue,
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 6e-3,
    weight_decay: float = 1.0,
    read_lm: bool = True,
    progress: Progress = iter,
    processes: Processes = ALONE,
) -> list[float]:
    """Train `model.queries`, f and h_item with the retrieval loss, the LM frozen and read once.

    Interrupted, it leaves the weights as they were: the next one begins anew and ends the same.

    DEVIATION: the films that seekers name are targets too, of a query that reads up to the
    ``[SEP]`` before them: who likes one film likes others, and there are as many of them.

    Args:
        windows: of the training dialogues.
        catalogue: its item texts are cut into further queries (`pieces_loss`), if queries pool.
        batch_size: windows a step.
        read_lm: or let queries pool words and items alone: most of the time goes into reading.
            What queries take from the LM is then left to the single stage.
        progress: wraps what the LM reads, then the epochs, e.g. `tqdm`.
        processes: they share the reading. Each then trains in full, which costs little, and in
            the end takes the weights of the first.

    Returns:
        the mean loss of each epoch, in nats per point.

    Raises:
        ValueError: nothing to learn from, neither outputs of the LM nor pooling.
    """
    config = model.config
    if not (read_lm or config.query_pooling):
        raise ValueError("without query_pooling, queries are outputs of the LM: set read_lm")
    negatives = config.negatives if config.share_over_tasks else config.retrieval_negatives
    model.eval()
    sep = model.backbone.tokenizer.sep
    windows = [w for w in windows if len(named_in(w, sep))]
    pooled = model.items.standardise(model.items.pooled(features))
    at_rec = None
    if read_lm:
        v = model.encode_catalogue(features)
        at_rec = outputs_at_rec(model, windows, v, progress, processes)
    seeker = torch.zeros(2, device=model.device, requires_grad=True)
    parts = (model.queries, model.f, model.items.h_item)
    named = [pair for part in parts for pair in part.named_parameters()]
    numbers = [seeker, *(p for name, p in named if name == "repetition")]
    fixed = {"repetition"} if read_lm else {"repetition", "share"}
    weights = [p for name, p in named if name not in fixed]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "lr": learning_rate, "weight_decay": weight_decay},
         {"params": numbers, "lr": 10 * learning_rate, "weight_decay": 0.0}]  # far from 0 at best
    )  # fmt: skip
    steps = epochs * -(-len(windows) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps)
    )
    draw = torch.Generator().manual_seed(config.seed)
    tok, generator = model.backbone.tokenizer, np.random.default_rng(config.seed)
    tokens, _ = tokenize_items(catalogue, tok, item_tokens=config.item_tokens)
    texts = [np.array([t for t in text if t != tok.sep]) for text in tokens]
    history = []
    with unchanged_if_interrupted(p for part in parts for p in part.parameters()):
        for epoch in progress(range(epochs)):
            losses = []
            for part in epoch_batches(windows, batch_size, config.seed, epoch):
                v = model.items.scale * model.items.h_item(pooled)
                distance, target, _ = retrieval_of(model, part, at_rec, v, seeker)
                drawn = draw_negatives(
                    len(pooled), torch.arange(len(target)), negatives, generator=draw,
                    share_over_batch=config.share_over_batch,
                )  # fmt: skip
                against = torch.cat([target[:, None], drawn.to(target.device)], 1)
                far = distance.gather(1, against).masked_fill(own_item(against), torch.inf)
                loss = retrieval_loss(far, config.temperature, len(target))
                losses.append(loss.item())
                if config.query_pooling:
                    loss = loss + PIECES_WEIGHT * pieces_loss(model, texts, v, generator)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            history.append(sum(losses) / len(losses))
    processes.same(p for part in parts for p in part.parameters())
    return history
