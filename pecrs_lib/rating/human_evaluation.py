"""From raters' judgements to the paper's Table 4, with intervals and agreement.

The last step of a human evaluation: `replies` pairs what two systems said, `judgements` asks, and
here it is counted which of them people prefer. Two systems in alphabetical order; a preference is
+1 for the first, -1 for the second, 0 for a tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pecrs_lib.metrics import bootstrap_means
from pecrs_lib.rating.agreement import cohen_kappa, krippendorff_alpha, sign_test
from pecrs_lib.rating.judgements import ALL, CRITERIA, Judgement

Floats = NDArray[np.float64]
SHARES = ("first", "second", "tie")


def pooled(files: Iterable[Sequence[Judgement]]) -> list[Judgement]:
    """The judgements of several raters together.

    Raises:
        ValueError: none at all, of several studies, not of two systems, one given twice, or of a
            rater called "all".
    """
    judgements = [judgement for rows in files for judgement in rows]
    if not judgements:
        raise ValueError("there are no judgements yet")
    raters = {judgement.study: judgement.rater for judgement in judgements}
    if len(raters) > 1:
        said = ", ".join(f"{study} (as {rater!r})" for study, rater in raters.items())
        raise ValueError(f"judgements of different studies: {said}")
    if any(judgement.rater == ALL for judgement in judgements):
        raise ValueError(f"{ALL!r} is what the tables call the raters together, not one of them")
    if len(found := {name for j in judgements for name in (j.left, j.right)}) != 2:
        raise ValueError(f"judgements of two systems are needed, got {', '.join(sorted(found))}")
    seen = set()
    for j in judgements:
        key = (j.rater, j.dialogue, j.turn, j.criterion)
        if key in seen:
            raise ValueError(
                f"{j.rater!r} judged the {j.criterion} of turn {j.turn} of dialogue "
                f"{j.dialogue!r} twice; is a file given twice?"
            )
        seen.add(key)
    return judgements


def systems_of(judgements: Sequence[Judgement]) -> tuple[str, str]:
    """The two systems, in alphabetical order."""
    first, second = sorted({judgements[0].left, judgements[0].right})
    return first, second


def summary(judgements: Sequence[Judgement], samples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Table 4 with its uncertainty: per criterion a row for each rater and one for "all".

    Columns: ``criterion``, ``rater``, ``n`` (judgements); ``first``, ``second``, ``tie`` (percent);
    the same three with ``_sd``, the deviation of the raters' percentages (on the row "all", with
    two raters or more); ``preference`` in [-1, 1] with its deviation over judgements ``sd`` and the
    95 % percentile interval ``low``, ``high`` over resampled dialogues; ``p_value`` of the sign
    test; ``left``, percent of the decided judgements that chose the left reply (about 50).

    "all" pools the judgements, so where all judged all it holds the means over raters. Its sign
    test takes each context once, with the side that most raters took, since their judgements of one
    context are not independent. Deviations divide by n, not by n - 1.
    """
    # Table 4 tells which: raters of 100 contexts have whole percentages, and no three of them have
    # the mean 28.00 and the deviation 1.63 if that divides by n - 1; 26, 28 and 30 have it by n.
    systems = systems_of(judgements)
    rows: list[dict[str, Any]] = []
    for criterion in CRITERIA:
        of = [j for j in judgements if j.criterion == criterion]
        if not of:
            continue
        raters = dict.fromkeys(j.rater for j in of)
        sheets = {rater: [j for j in of if j.rater == rater] for rater in raters} | {ALL: of}
        found = {who: _row(sheet, systems, samples, seed) for who, sheet in sheets.items()}
        for share in SHARES if len(raters) > 1 else ():
            found[ALL][f"{share}_sd"] = float(np.std([found[rater][share] for rater in raters]))
        rows += [{"criterion": criterion, "rater": who} | row for who, row in found.items()]
    return pd.DataFrame(rows)


def _row(
    judgements: Sequence[Judgement], systems: tuple[str, str], samples: int, seed: int
) -> dict[str, Any]:
    score = scores(judgements, systems)  # (P,)
    shares = 100 * np.stack([score > 0, score < 0, score == 0]).mean(axis=1)  # (3,)
    _, dialogue = np.unique([j.dialogue for j in judgements], return_inverse=True)  # (P,)
    means = bootstrap_means(dialogue, score[:, None], samples, seed)[:, 0]  # (samples,)
    low, high = np.quantile(means, (0.025, 0.975))
    context: dict[tuple[str, int], float] = {}
    for j, s in zip(judgements, score.tolist(), strict=True):
        context[j.dialogue, j.turn] = context.get((j.dialogue, j.turn), 0.0) + s
    majority = np.array(list(context.values()))
    decided = [j.choice == "left" for j in judgements if j.preferred]
    return {
        "n": len(score),
        **dict(zip(SHARES, shares.tolist(), strict=True)),
        **{f"{share}_sd": np.nan for share in SHARES},
        "preference": float(score.mean()),
        "sd": float(score.std()),
        "low": float(low),
        "high": float(high),
        "p_value": sign_test(int((majority > 0).sum()), int((majority < 0).sum())),
        "left": 100 * float(np.mean(decided)) if decided else np.nan,
    }


def scores(judgements: Sequence[Judgement], systems: tuple[str, str]) -> Floats:
    """(P,) preferences: +1 for the first system, -1 for the second, 0 for a tie."""
    value = {systems[0]: 1.0, systems[1]: -1.0, None: 0.0}
    return np.array([value[j.preferred] for j in judgements])


def agreement(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Do raters prefer alike? Per criterion a row for each pair of raters, and one for all.

    Columns: ``criterion``, ``raters`` ("ann, bob" or "all"), ``n`` (contexts that both, or at least
    two, judged), ``same`` (percent of pairs of judgements that are equal), ``statistic`` (Cohen's
    kappa for two raters, Krippendorff's alpha for all) and its ``value``. Raters who share no
    context have no row.
    """
    systems = systems_of(judgements)
    rows = []
    for criterion in CRITERIA:
        of = [j for j in judgements if j.criterion == criterion]
        raters = list(dict.fromkeys(j.rater for j in of))
        contexts = {key: p for p, key in enumerate(dict.fromkeys((j.dialogue, j.turn) for j in of))}
        table = np.full((len(raters), len(contexts)), np.nan)  # (R, P)
        at = [contexts[j.dialogue, j.turn] for j in of]
        table[[raters.index(j.rater) for j in of], at] = scores(of, systems)
        pairs = []
        for a, b in combinations(range(len(raters)), 2):
            both = table[[a, b]][:, ~np.isnan(table[[a, b]]).any(axis=0)]  # (2, shared)
            if both.size:
                pairs.append(both)
                who, kappa = f"{raters[a]}, {raters[b]}", cohen_kappa(both[0], both[1])
                rows.append((criterion, who, both.shape[1], _same(both), "Cohen's kappa", kappa))
        if pairs:
            shared = int(((~np.isnan(table)).sum(axis=0) > 1).sum())
            same, alpha = _same(np.hstack(pairs)), krippendorff_alpha(table)
            rows.append((criterion, ALL, shared, same, "Krippendorff's alpha", alpha))
    names = ["criterion", "raters", "n", "same", "statistic", "value"]
    return pd.DataFrame(rows, columns=names)


def _same(pairs: Floats) -> float:
    """Percent of pairs (2, P) whose halves are equal."""
    return 100 * float((pairs[0] == pairs[1]).mean())
