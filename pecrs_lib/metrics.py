"""What the paper's tables report, as pure functions of ranks, replies and sums (section 4.1).

Comes before `protocol` and before `evaluation`, which says on which points these are measured and
puts the intervals of `bootstrap_means` around them. Recall, F-1 and ROUGE are in percent, as the
paper prints them. Nothing is measured on nothing: empty input raises ValueError, and a ratio that
is 0/0 on data that are not empty is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rouge_score import rouge_scorer

_CELLS = 2**22  # of one block of bootstrap draws: 32 MiB


def recall_at_k(ranks: ArrayLike, k: int) -> float:
    """Percent of points whose target is among the first k.

    `ranks` (P,) counts from 1 and is inf for a target outside the catalogue, which no k reaches.
    Each point has one target, so this is also the hit rate. NaN, a rank below 1, k below 1 and no
    points at all raise ValueError.
    """
    values = np.asarray(ranks, dtype=float)  # (P,)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"ranks must be a non-empty (P,) array, got shape {values.shape}")
    if not (values >= 1).all():  # false for NaN as well
        raise ValueError(f"ranks start at 1, got {values[~(values >= 1)][0]}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return 100 * float(np.mean(values <= k))


def unique_items(top1: ArrayLike) -> int:
    """Number of distinct items recommended first, the paper's "Unique"; 0 for no points.

    `top1` (P,) holds catalogue rows, -1 where nothing was recommended, which is no item. A system
    that says one film to everybody scores 1.
    """
    rows = np.asarray(top1)
    return int(np.unique(rows[rows >= 0]).size)


def rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1 and ROUGE-2 (Lin, 2004): F-measure in percent, mean over pairs of replies.

    By the ``rouge-score`` package, the paper's choice, with Porter stemming: lower case, only
    letters and digits count. A pair with an empty side scores 0. Lists of different or zero length
    raise ValueError. Returns ``{"rouge1": …, "rouge2": …}``.
    """
    if len(predictions) != len(references) or not references:
        raise ValueError(
            f"as many predictions as references are needed, and at least one: "
            f"got {len(predictions)} and {len(references)}"
        )
    names = ["rouge1", "rouge2"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
    pairs = zip(references, predictions, strict=True)
    scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
    return {n: 100 * math.fsum(score[n].fmeasure for score in scores) / len(scores) for n in names}


def distinct_n(
    replies: Sequence[str | Sequence[str]], n: int, per: Literal["sentence", "ngram"]
) -> float:
    """Distinct n-grams over all replies, divided by one of the two denominators in use.

    ``per="sentence"``: by the number of replies, as the paper's code does. It can exceed 1, grows
    with the length of replies and falls with their number, so compare it on equal sets only.
    ``per="ngram"``: by the number of n-grams, as Li et al. (2016) define it; in [0, 1].
    Neither is in percent.

    A reply is a sequence of tokens, or a string, which is split at white space; n-grams do not
    cross replies. Where every reply is shorter than n there is no n-gram: 0 per sentence, NaN (0/0)
    per n-gram. No replies, n below 1 and another `per` raise ValueError.
    """
    if per not in ("sentence", "ngram"):
        raise ValueError(f"per must be 'sentence' or 'ngram', got {per!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not replies:
        raise ValueError("distinct n-grams of no replies are undefined")
    tokens = [reply.split() if isinstance(reply, str) else list(reply) for reply in replies]
    shifted = ([reply[i:] for i in range(n)] for reply in tokens)
    ngrams = list(chain.from_iterable(zip(*lists, strict=False) for lists in shifted))
    denominator = len(replies) if per == "sentence" else len(ngrams)
    return len(set(ngrams)) / denominator if denominator else math.nan


def item_f1(predicted: Sequence[bool], reference: Sequence[bool]) -> float:
    """F-1 in percent of the presence of ``[ITEM]`` in a reply, against its reference's.

    2 TP / (2 TP + FP + FN): knowing *when* to recommend, whatever is recommended. 0 without a true
    positive; NaN where neither side has a single item, for nothing was asked and nothing done.
    Both (P,) of bool; different shapes, none or other types raise ValueError.
    """
    said, due = np.asarray(predicted), np.asarray(reference)  # (P,), (P,)
    if said.shape != due.shape or said.ndim != 1 or not said.size:
        raise ValueError(f"two (P,) arrays are needed, P > 0: got {said.shape} and {due.shape}")
    if said.dtype != bool or due.dtype != bool:
        raise ValueError(f"presence must be bool, got {said.dtype} and {due.dtype}")
    if not (said | due).any():
        return math.nan
    return 100 * 2 * int((said & due).sum()) / int(said.sum() + due.sum())


def perplexity(total_nll: float, total_tokens: int) -> float:
    """exp(total NLL in nats / total response tokens): one mean over all tokens of the test set.

    A mean above about 709 nats gives inf. No tokens, NaN or a negative NLL raise ValueError.
    """
    if total_tokens < 1:
        raise ValueError(f"perplexity needs at least one token, got {total_tokens}")
    if not total_nll >= 0:
        raise ValueError(f"a total NLL is a number from 0 up, got {total_nll}")
    # DEVIATION: the official code averages exponentials of batch means, which weighs tokens by the
    # batch they fall in and (Jensen) is never below the exponential of the mean of batch means.
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(total_nll) / total_tokens))


def bootstrap_means(
    groups: NDArray[np.int64], values: ArrayLike, samples: int, seed: int
) -> NDArray[np.float64]:
    """Means of `values` (P, K) over bootstrap resamples of whole groups (P,): (samples, K).

    The points of a dialogue are not independent, so dialogues are drawn, not points: G of the G
    groups with replacement (the cluster bootstrap), each with all its points. A resample is how
    often each group was drawn (multinomial), and its mean is the ratio of two products of those
    counts, with the sums and with the sizes of the groups: nothing of size samples × P is made.
    Drawing is nearly all of the time, and tables ask for many intervals over the same groups, so
    the last draws are kept.

    Equal groups and seed give equal draws, so two systems can be compared draw by draw. Without
    points the means are NaN. Fewer than one sample or shapes that disagree raise ValueError.
    """
    table = np.asarray(values, dtype=float)  # (P, K)
    if table.ndim != 2 or groups.shape != table.shape[:1] or samples < 1:
        raise ValueError(
            f"(P,) groups, (P, K) values and at least one sample are needed: "
            f"got {groups.shape}, {table.shape} and {samples}"
        )
    names, group_of = np.unique(groups, return_inverse=True)  # (G,), (P,)
    if not len(names):
        return np.full((samples, table.shape[1]), np.nan)
    sums = np.zeros((len(names), table.shape[1] + 1))  # (G, K + 1): the last is the group's size
    np.add.at(sums, group_of, np.column_stack([table, np.ones(len(table))]))
    if samples * len(names) <= _CELLS:
        totals = _one_block(len(names), samples, seed) @ sums  # (samples, K + 1)
    else:
        totals = np.concatenate([counts @ sums for counts in _drawn(len(names), samples, seed)])
    return totals[:, :-1] / totals[:, -1:]


def _drawn(n: int, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each of n groups was drawn, (size, n), in blocks that make up the samples."""
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // n)  # resamples at a time
    for start in range(0, samples, block):
        size = min(block, samples - start)
        yield generator.multinomial(n, np.full(n, 1 / n), size=size).astype(float)


@lru_cache(maxsize=8)
def _one_block(n: int, samples: int, seed: int) -> NDArray[np.float64]:
    return next(_drawn(n, samples, seed))


def rule_of_three(value: float, n: int, least: float, most: float) -> tuple[float, float]:
    """95 % interval of the mean of n points that are all equal to `value`.

    Resamples of equal points have no spread. But n of them cannot exclude that 3/n of all points
    are others, between `least` and `most` (Hanley and Lippman-Hand 1983, "If Nothing Goes Wrong, Is
    Everything All Right?"): 0 hits of 230 points are a recall of up to 1.3 %.
    """
    others = min(1.0, 3 / n)
    return value - others * (value - least), value + others * (most - value)
