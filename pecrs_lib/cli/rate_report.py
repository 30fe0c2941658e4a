"""``pecrs rate report``: what the raters prefer, how surely, and whether they agree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pecrs_lib.cli.options import JsonOption, SeedOption
from pecrs_lib.cli.terminal import columns, say, show, show_json, stop

if TYPE_CHECKING:  # imported when the command runs, as in the other commands
    import pandas as pd


def report(
    files: Annotated[list[Path], typer.Argument(help="The raters' files.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write the summary as well (.csv).")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Count the judgements: Table 4, with intervals, and how far raters agree.

    Percent of judgements that prefer each system, or neither; on the rows "all" in parentheses the
    deviation of the raters' percentages, as in Table 4. The preference is their difference as a
    number from -1 to 1, with a 95 % interval over resampled dialogues and the p-value of a sign
    test. `left` is the share of decided judgements for the reply on the left, which should be near
    50. Agreement is 1 where raters always agree, 0 where no more than by chance.

    \b
    JSON:
      {"study": …, "systems": [first, second],
       "rows": [{"criterion": …, "rater": … or "all", "n": …, "first": …, "second": …, "tie": …,
                 "first_sd": …, …, "preference": …, "sd": …, "low": …, "high": …,
                 "p_value": …, "left": …}, …],
       "agreement": [{"criterion": …, "raters": …, "n": …, "same": …, "statistic": …,
                      "value": …}, …]}

    Example: pecrs rate report ann.csv bob.csv eve.csv --out table4.csv
    """
    from pecrs_lib.rating.human_evaluation import agreement, pooled, summary, systems_of
    from pecrs_lib.rating.judgements import read_judgements

    if out is not None and out.resolve() in [file.resolve() for file in files]:
        stop(f"--out would overwrite the judgements in {out}")
    sheets = []
    for file in files:
        rows, half = read_judgements(file)
        sheets.append(rows)
        if half:
            say(f"{file}: the half-written last line is left out")
    judgements = pooled(sheets)
    systems = systems_of(judgements)
    table, agreed = summary(judgements, seed=seed), agreement(judgements)
    if out is not None:
        names = dict(zip(("system", "other"), systems, strict=True))
        table.assign(**names).to_csv(out, index=False)
    if as_json:
        show_json(
            {
                "study": judgements[0].study,
                "systems": systems,
                "rows": table.to_dict(orient="records"),
                "agreement": agreed.to_dict(orient="records"),
            }
        )
    else:
        _print(systems, table, agreed)


def _print(systems: tuple[str, str], table: pd.DataFrame, agreed: pd.DataFrame) -> None:
    names = [*systems, "tie", "preference [95 %]", "sd", "p", "left"]
    rows = [
        [
            row["criterion"],
            row["rater"],
            str(row["n"]),
            *(_share(row, share) for share in ("first", "second", "tie")),
            f"{row['preference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]",
            f"{row['sd']:.2f}",
            f"{row['p_value']:.3f}",
            _or_dash(row["left"], ".0f"),
        ]
        for row in table.to_dict(orient="records")
    ]
    show(columns([["criterion", "rater", "n", *names], *rows], right=range(2, 10)))
    if len(agreed):
        pairs = [
            [r["criterion"], r["raters"], str(r["n"]), f"{r['same']:.0f}", r["statistic"],
             _or_dash(r["value"], ".2f")]
            for r in agreed.to_dict(orient="records")
        ]  # fmt: skip
        names = ["criterion", "raters", "n", "same %", "agreement", ""]
        show("\n" + columns([names, *pairs], right=[2, 3, 5]))


def _share(row: dict[str, Any], share: str) -> str:
    deviation = row[f"{share}_sd"]
    return f"{row[share]:.2f}" + ("" if math.isnan(deviation) else f" ({deviation:.2f})")


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
