"""A trained model held against dialogues: where its targets rank, and what it says.

The last step before tables and figures: joins `protocol` and `generation` with `evaluation` and
`metrics`, so that the model stands in the same table as the baselines. The protocol is the
paper's: one data point per recommended item, history as people said it (section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pecrs_lib.data.schema import Catalogue, Dialogue
from pecrs_lib.evaluation import Predictions, recommendation_points
from pecrs_lib.generation import Reply, respond
from pecrs_lib.metrics import distinct_n, item_f1, perplexity, rouge
from pecrs_lib.model import PECRS
from pecrs_lib.processes import ALONE, Processes
from pecrs_lib.protocol import Progress, Ranked, encode_windows, rank_windows


def item_vectors(
    model: PECRS,
    catalogue: Catalogue,
    *,
    cache_dir: Path | None = None,
    progress: Progress = iter,
    processes: Processes = ALONE,
    **texts: Any,
) -> torch.Tensor:
    """(N, D) vectors of a catalogue as the trained model sees it, adapters on if it trained so.

    Args:
        processes: they share the encoding, and each gets the whole.
        texts: `fields` of `items.tokenize_items`, to drop some at inference (the paper's Table 6).
    """
    features = model.item_features(
        catalogue,
        cache_dir=cache_dir,
        adapted=model.config.refresh_items > 0,
        progress=progress,
        processes=processes,
        **texts,
    )
    return model.encode_catalogue(features.to(model.device))


def rank_dialogues(
    model: PECRS,
    dialogues: Sequence[Dialogue],
    catalogue: Catalogue,
    v: torch.Tensor,
    *,
    candidates: int | None = None,
    within: Sequence[int] = (),
    progress: Progress = iter,
    processes: Processes = ALONE,
) -> Ranked:
    """Every recommending turn of the dialogues ranked; see `protocol.rank_windows`."""
    return rank_windows(
        model,
        encode_windows(dialogues, catalogue, model),
        v,
        candidates=candidates or model.config.candidates,
        within=within,
        response_tokens=model.config.response_tokens,
        progress=progress,
        processes=processes,
    )


def predictions_of(
    ranked: Ranked, dialogues: Sequence[Dialogue], catalogue: Catalogue, name: str = "PECRS"
) -> Predictions:
    """The model's ranks on the same points, in the same order, as every baseline.

    A target outside the catalogue has rank inf; where a turn has no other target, top1 is -1.
    """
    points = recommendation_points(dialogues)
    keys = zip(ranked.dialogue.tolist(), ranked.utterance.tolist(), strict=True)
    top1, rank = {}, {}
    for p, (dialogue, turn) in enumerate(keys):
        top1[dialogue, turn] = ranked.top1[p]
        rank[dialogue, turn, int(ranked.item[p])] = float(ranked.rank[p])
    row = [catalogue.row.get(point.item, -1) for point in points]
    ranks = [rank.get((p.dialogue, p.turn, j), np.inf) for p, j in zip(points, row, strict=True)]
    return Predictions.at(name, points, ranks, [top1.get((p.dialogue, p.turn), -1) for p in points])


@dataclass(frozen=True)
class Conversation:
    """Replies to every recommender turn of some dialogues, beside what was really said.

    Attributes:
        dialogue, turn: (G,) which turn was answered.
        replies: generated.
        references: the true utterances, mentions as ``[ITEM]``.
        recommends: whether the true utterance mentions an item of the catalogue.
    """

    dialogue: list[int]
    turn: list[int]
    replies: list[Reply]
    references: list[str]
    recommends: list[bool]

    def metrics(self) -> dict[str, float]:
        """ROUGE-1/2 and F-1 in percent, Dist@2/3/4 with both denominators.

        Both sides are compared with ``[ITEM]`` in place of titles, so that ROUGE rates the words
        and recall rates the film.
        """
        raw = [reply.raw for reply in self.replies]
        says = [reply.recommended is not None for reply in self.replies]
        dist = {
            f"Dist@{n} per {per}": distinct_n(raw, n, per=per)
            for per in ("sentence", "ngram")
            for n in (2, 3, 4)
        }
        return {**rouge(raw, self.references), "F-1": item_f1(says, self.recommends), **dist}


def converse(
    model: PECRS,
    dialogues: Sequence[Dialogue],
    catalogue: Catalogue,
    v: torch.Tensor,
    *,
    batch_size: int = 16,
    always_recommend: bool = False,
    seed: int = 0,
    progress: Progress = iter,
    processes: Processes = ALONE,
    **decoding: Any,
) -> Conversation:
    """Answer every recommender turn, given the dialogue before it as people said it.

    Args:
        always_recommend: prompt every reply with the predicted item, as the paper does.
        processes: they share the batches, which are the same for any number of them, and each
            gets the whole result.
        decoding: arguments of `generate`; top-k sampling with k = 50 when there are none.
    """
    tok = model.backbone.tokenizer
    turns = [
        (d, t)
        for d, dialogue in enumerate(dialogues)
        for t, utterance in enumerate(dialogue.utterances)
        if utterance.role == "recommender"
    ]
    turns.sort(key=lambda turn: turn[1])  # histories of similar length share a batch
    starts = range(0, len(turns), batch_size)
    mine: list[tuple[int, list[Reply]]] = []
    for k in progress(processes.share(starts)):
        batch = turns[k : k + batch_size]
        histories = [Dialogue(dialogues[d].id, dialogues[d].utterances[:t]) for d, t in batch]
        said = respond(
            model, histories, catalogue, v, always_recommend=always_recommend, top=2,
            seed=seed * 1_000_003 + k // batch_size, **decoding,
        )  # fmt: skip
        mine.append((k, said))
    by_start = dict(processes.join(mine))
    replies = [reply for k in starts for reply in by_start[k]]
    true = [dialogues[d].utterances[t] for d, t in turns]
    references = [tok.decode(ids) for ids in tok.encode_texts(true, catalogue)]
    recommends = [any(item in catalogue for item in u.items) for u in true]
    return Conversation(
        [d for d, _ in turns], [t for _, t in turns], replies, references, recommends
    )


def text_metrics(ranked: Ranked, conversation: Conversation | None = None) -> dict[str, float]:
    """Perplexity of the true responses, and the metrics of the generated ones."""
    tokens = int(ranked.tokens.sum())
    measured = {"perplexity": perplexity(float(ranked.nll.sum()), tokens)} if tokens else {}
    return measured | (conversation.metrics() if conversation else {})
