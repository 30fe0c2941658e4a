"""How sure the model is of the film it ranks first, and how often it is right.

Comes after `beyond`, whose turns it takes. The confidence is the softmax over the scores of the
re-ranked candidates; the model is right if the film is one that the recommender named in this
turn. Turns, not points, are counted here: a turn has one film that is ranked first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pecrs_lib.data import DataError
from pecrs_lib.reproduction.beyond import turns_of
from pecrs_lib.reproduction.evidence import Floats, Record, Results, cell, count, ranks_of

BINS = 8
RAW, SCALED = "as it comes", "rescaled"
_SMALL = 1e-4  # what a file rounds to


def answers(run: Record) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Of every turn with a ranking: dialogue, confidence, and whether the model was right, (T,).

    Raises:
        DataError: the run is from before files held "confidence".
    """
    points = run["points"]
    if "confidence" not in points:
        raise DataError(f"no confidence in the file of seed {run['seed']}; remove it and run again")
    of, dialogue = turns_of(points)
    sure = np.full(len(dialogue), np.nan)
    sure[of] = [np.nan if c is None else c for c in points["confidence"]]
    right = np.bincount(of, ranks_of(run).rank == 1) > 0
    known = ~np.isnan(sure)
    return dialogue[known], sure[known], right[known]


def rescaled(confidence: Floats, slope: float, offset: float) -> Floats:
    """σ(slope · logit(c) + offset). 1 / slope is a temperature: a slope below 1 is less sure."""
    return 1 / (1 + np.exp(-(slope * _log_odds(confidence) + offset)))


def _log_odds(confidence: Floats) -> Floats:
    c = np.clip(confidence, _SMALL, 1 - _SMALL)
    return np.log(c / (1 - c))


def platt(confidence: Floats, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the largest likelihood, with Platt's (1999) targets just inside (0, 1).

    A temperature alone would not do: files hold the confidence, not every candidate's score, and
    dividing its log-odds keeps one half where it is.
    """
    x = np.column_stack([_log_odds(confidence), np.ones(len(right))])  # (T, 2)
    hits, misses = right.sum(), (~right).sum()
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2))
    w = np.array([1.0, 0.0])
    for _ in range(100):  # Newton's method, steps of length 1 at most
        p = 1 / (1 + np.exp(-x @ w))
        curvature = (x.T * (p * (1 - p))) @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, x.T @ (p - target))
        w -= step / max(1.0, float(np.linalg.norm(step)))
    return float(w[0]), float(w[1])


def cross_fitted(
    dialogue: NDArray[np.int64], confidence: Floats, right: NDArray[np.bool_]
) -> tuple[Floats, dict[str, tuple[float, float]]]:
    """Confidences with slope and offset of the other half: even dialogues take those of odd ones
    and the other way round. Also what was fitted on "odd" and on "even" dialogues.
    """
    odd = dialogue % 2 == 1
    fitted = {
        name: platt(confidence[half], right[half])
        for name, half in {"odd": odd, "even": ~odd}.items()
    }
    of_even, of_odd = (rescaled(confidence, *fitted[name]) for name in ("even", "odd"))
    return np.where(odd, of_even, of_odd), fitted


def calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Σ_b n_b / n · |share right - mean confidence| over bins of equal count, in percent."""
    parts = np.array_split(confidence.argsort(kind="stable"), bins)
    gaps = [len(b) * abs(right[b].mean() - confidence[b].mean()) for b in parts if len(b)]
    return 100 * float(sum(gaps)) / len(right)


def _versions(results: Results) -> dict[str, list[tuple[NDArray[np.int64], Floats, Any]]]:
    found = [answers(run) for run in results.main]
    return {RAW: found, SCALED: [(d, cross_fitted(d, c, r)[0], r) for d, c, r in found]}


def reliability(results: Results) -> pd.DataFrame:
    """Share right ("ours") by confidence (percent), seeds together, in bins of equal count.

    Intervals draw dialogues, with all their turns and seeds.
    """
    rows: list[Any] = []
    for name, of in _versions(results).items():
        if not of:
            continue
        dialogue, sure, right = (np.concatenate(x) for x in zip(*of, strict=True))
        for part in np.array_split(sure.argsort(kind="stable"), BINS):
            mean = 100 * float(sure[part].mean())
            rows.append(cell(name, "right (%)", dialogue[part], [right[part]], confidence=mean))
    return pd.DataFrame(rows)


def confidence_scores(results: Results) -> pd.DataFrame:
    """Mean confidence, share right, Brier score and expected calibration error, mean over seeds.

    The error is above 0 by chance alone; "error if calibrated" is its mean where the answers are
    drawn with the confidences as their probabilities. Row "always the share right" is what a
    constant confidence would score.
    """
    rows: list[Any] = []
    for name, of in _versions(results).items():
        dialogue = of[0][0] if of else ()
        rows += [
            cell(name, "confidence (%)", dialogue, [c for _, c, _ in of]),
            cell(name, "right (%)", dialogue, [r for _, _, r in of]),
            cell(name, "Brier score", dialogue, [(c - r) ** 2 for _, c, r in of],
                 lambda means: means[..., 0]),
            count(name, "calibration error (%)", [calibration_error(c, r) for _, c, r in of],
                  len(dialogue)),
            count(name, "error if calibrated (%)", [_by_chance(c) for _, c, _ in of],
                  len(dialogue)),
        ]  # fmt: skip
    constant = [np.full(len(r), (1 - r.mean()) * r.mean()) for _, _, r in _versions(results)[RAW]]
    rows.append(
        cell("always the share right", "Brier score", dialogue, constant,
             lambda means: means[..., 0]) | {"low": np.nan, "high": np.nan}
    )  # fmt: skip
    return pd.DataFrame(rows)


def _by_chance(confidence: Floats, samples: int = 200) -> float:
    rng = np.random.default_rng(0)
    drawn = rng.random((samples, len(confidence))) < confidence
    return float(np.mean([calibration_error(confidence, right) for right in drawn]))


def scales(results: Results) -> pd.DataFrame:
    """Slope and offset of each seed and half of the dialogues, see `cross_fitted`."""
    rows = [
        {"seed": run["seed"], "fitted on": f"{half} dialogues", "slope": w[0], "offset": w[1]}
        for run in results.main
        for half, w in cross_fitted(*answers(run))[1].items()
    ]
    return pd.DataFrame(rows)
