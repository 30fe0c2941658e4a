"""What the paper claims, in our own words, and how each claim is judged from result files.

Comes after the modules of judges; `report` writes it down. A claim that no file can judge says
why. Where the paper's words and numbers differ, `says` tells which is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from pecrs_lib.reproduction.evidence import Results
from pecrs_lib.reproduction.findings import JUDGED, MISSING, UNTESTED, Files, Finding, Judge
from pecrs_lib.reproduction.group_judges import common_genres, genre_hit, turns
from pecrs_lib.reproduction.judges import (
    ablation,
    field,
    larger_backbone,
    more_candidates,
    more_negatives,
    plot_most,
    rival,
    single_stage,
    statistics,
    trained_share,
)
from pecrs_lib.reproduction.tables import NAMES
from pecrs_lib.reproduction.text_judges import (
    dist_misleads,
    dist_moves_more,
    rouge,
    weakly_related,
    when_to_recommend,
    zero_shot,
)

COLUMNS = ("table", "claim", "paper difference", "difference", "low", "high", "n", "verdict")
EVERYWHERE = tuple(NAMES)
PAPERS = ("inspired", "redial")
R50 = "R@50 (points)"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: what the report calls it.
        table: the table, figure or section it is reported with, a key of `PLACES`.
        where: in the paper.
        says: in our own words.
        unit: of the number it is judged by.
        judge: says from files whether it holds.
        reason: why it cannot be judged, where there is no judge.
        on: data sets it can be judged on.

    Raises:
        ValueError: both a judge and a reason, or neither; a table that is none of `PLACES`.
    """

    id: str
    table: str
    where: str
    says: str
    unit: str = ""
    judge: Judge | None = None
    reason: str = ""
    on: tuple[str, ...] = EVERYWHERE

    def __post_init__(self) -> None:
        if (self.judge is None) == (not self.reason):
            raise ValueError(f"claim {self.id!r} needs either a judge or a reason why it has none")
        if self.table not in PLACES:
            raise ValueError(f"claim {self.id!r}: no place {self.table!r} in the report")

    def find(self, files: Files, results: Results) -> Finding | None:
        """What the files say on one data set; None where the claim is not about it."""
        if results.dataset not in self.on:
            return None
        if self.judge is None:
            return Finding(UNTESTED, note=self.reason)
        return self.judge(files, results) or Finding(MISSING)


PLACES = {
    "method": "The method (sections 1 and 3)",
    "1": "Table 1: the data",
    "2": "Table 2: recommendation",
    "3": "Table 3: conversation",
    "4": "Table 4: human evaluation",
    "5": "Table 5: ablation",
    "6": "Table 6: fields of the item text",
    "7": "Table 7: language models without training",
    "8": "Table 8: decoding strategies",
    "figure-3": "Figure 3: negatives",
    "figure-4": "Figure 4: utterances before",
    "9": "Tables 9 and 10: genres",
}

NO_RIVALS = "The other systems are not part of this package, and were not run here."
TWO_SIZES = "There are no runs of two sizes of the same backbone."
SECONDS = (
    "One timing a run, on a machine with other work; and one pass per dialogue has other costs "
    "than the paper's passes. The seconds stand in the files, without a verdict."
)


def _ablations() -> list[Claim]:
    says = {
        "w/o Recall loss": "Without the retrieval loss recommendation breaks down.",
        "w/o Rerank loss": "Without the re-rank loss recommendation breaks down.",
        "w/o Generation loss": "Without the response loss recommendation suffers.",
        "w/o Neg. sharing (batch)": "Sharing negatives over the batch gains a little recall.",
        "w/o Neg. sharing (tasks)": "Without sharing negatives over both tasks recall is a little "
        "higher (the table; the text says the opposite).",
        "w/o Item pooling": "Learned pooling of the item's tokens gains recall.",
        "w/o Item head": "The head on items gains recall.",
        "w/o Metadata (just title)": "Item texts gain recall over titles alone.",
    }
    return [
        Claim(f"5-{variant.removeprefix('w/o ').split(' (just')[0].lower().translate(_SLUG)}",
              "5", "section 4.3, Table 5", text, R50, ablation(variant))
        for variant, text in says.items()
    ]  # fmt: skip


_SLUG = str.maketrans({" ": "-", ".": None, "(": None, ")": None})


def _rivals() -> list[Claim]:
    def one(name: str, text: str, **more: object) -> Claim:
        model = str(more.get("model", "PECRS-small"))
        cuts = (1,) if name == "MESE" and more.get("on") == ("redial",) else (1, 10, 50)
        on = more.get("on", ("redial",))
        slug = name.lower() + ("-redial" if name == "MESE" and on == ("redial",) else "")
        return Claim(f"2-{slug}", "2", "section 4.2, Table 2", text, "recall (points)",
                     rival(name, model, cuts), on=on)  # type: ignore[arg-type]  # fmt: skip

    return [
        one("KGSF", "PECRS recalls more than KGSF, which has a knowledge graph."),
        one("UniCRS", "PECRS recalls more than UniCRS, which has a knowledge graph.", on=PAPERS),
        one("BARCOR", "PECRS recalls more than BARCOR, which has one training stage, too."),
        one("RecInDial", "PECRS recalls more than RecInDial, which has one stage, too."),
        one("MESE", "PECRS-medium is ahead of MESE at R@1 on ReDial.",
            model="PECRS-medium", on=("redial",)),
        one("MESE", "PECRS-medium is far ahead of MESE at every cut on INSPIRED.",
            model="PECRS-medium", on=("inspired",)),
    ]  # fmt: skip


CLAIMS: tuple[Claim, ...] = (
    Claim("m-trained", "method", "section 3.5", "About five percent of the parameters are trained.",
          "trained parameters (%)", trained_share),
    Claim("m-stage", "method", "sections 1 and 3.6",
          "A single stage of training is enough: an earlier one gains nothing.", R50, single_stage),
    Claim("m-graph", "method", "section 1",
          "No knowledge graph and no extra item encoder is needed.",
          reason="A property of the method, which this code shares; what a graph would add needs "
          "a system with one."),
    Claim("m-cost", "method", "sections 1 and 3.5",
          "Training few parameters costs little and is as good as training all.",
          reason="No run trains all parameters."),
    Claim("1-counts", "1", "Table 1", "The data sets have the sizes that the table prints.",
          judge=statistics, on=PAPERS),
    *_rivals(),
    Claim("2-medium", "2", "section 4.2, Table 2", "GPT-2 medium recalls more than GPT-2 small.",
          "recall (points)", larger_backbone, on=PAPERS),
    Claim("3-when", "3", "Table 3", "The model's reply shows well whether to recommend (F-1).",
          "F-1 less that of always recommending (points)", when_to_recommend),
    Claim("3-dist", "3", "section 4.2, Table 3",
          "Replies are more varied than those of every baseline (Dist@3, Dist@4).",
          reason=NO_RIVALS + " Dist@n depends on the number of replies, too."),
    Claim("3-perplexity", "3", "Table 3", "The replies' perplexity is below that of MESE.",
          reason=NO_RIVALS + " Perplexities under different tokenizers are not comparable."),
    Claim("3-scale", "3", "section 4.2, Table 3", "A larger backbone makes replies more varied.",
          reason=TWO_SIZES),
    Claim("4-preferred", "4", "section 4.2, Table 4",
          "People find PECRS's replies more fluent and more relevant than those of MESE.",
          reason="No people were asked; `pecrs rate` collects and counts such judgements."),
    *_ablations(),
    Claim("5-rouge", "5", "section 4.3, Table 5",
          "Without the response loss replies lose most of their ROUGE-1.", "ROUGE-1 (points)",
          rouge("w/o Generation loss")),
    Claim("5-seconds", "5", "section 4.3, Table 5",
          "Sharing negatives makes a training step cheaper.", reason=SECONDS),
    *(Claim(f"6-{name}", "6", "section 4.3, Table 6",
            f"Recall falls without the {name} of films at inference.", R50, field(name))
      for name in ("title", "actors", "directors", "genres", "plot")),
    Claim("6-most", "6", "section 4.3, Table 6", "The plot matters more than any other field.",
          R50, plot_most),
    Claim("7-first", "7", "section 4.4, Table 7",
          "Language models without training are ahead of PECRS-small at R@1.",
          "language model less PECRS, R@1 (points)",
          zero_shot("vicuna: list of 20", "Vicuna-1.5-7B", 1), on=("inspired",)),
    Claim("7-ten", "7", "section 4.4, Table 7",
          "They name too few films, so PECRS is ahead at R@10 (here even of a list of twenty).",
          "language model less PECRS, R@10 (points)",
          zero_shot("vicuna: list of 20", "Vicuna-1.5-7B", 10), on=("inspired",)),
    Claim("7-unique", "7", "section 4.4, Table 7", "They recommend fewer different films (Unique).",
          on=("inspired",), reason="The paper's Unique of these rows is the number of their hits "
          "(notebook 09), and counts of different films have no interval."),
    Claim("7-rouge", "7", "Table 7", "PECRS's replies are closer to the true ones (ROUGE).",
          on=("inspired",), reason="The recorded answers are lists of films, not replies."),
    Claim("8-moves", "8", "section 5.1, Table 8",
          "ROUGE varies much less with the decoding strategy than Dist@n.",
          "most over least: Dist@2 against ROUGE-1 (times)", dist_moves_more, on=("minireel",)),
    Claim("8-weak", "8", "section 5.1, Table 8",
          "Over decoding strategies ROUGE and Dist@n are weakly related.", "rank correlation",
          weakly_related, on=("minireel",)),
    Claim("8-misleads", "8", "section 5.1, Table 5",
          "Dist@n does not show quality: without the response loss it rises while ROUGE falls.",
          "ROUGE-1 (points)", dist_misleads),
    Claim("f3-train", "figure-3", "section 5.2, Figure 3",
          "More negatives in training recall more.", R50, more_negatives),
    Claim("f3-inference", "figure-3", "section 5.2, Figure 3",
          "More candidates re-ranked recall more.", R50, more_candidates),
    Claim("f3-cost", "figure-3", "section 5.2", "More negatives and candidates cost time.",
          reason=SECONDS),
    Claim("f4-wide", "figure-4", "section 5.3, Figure 4",
          "Recall is good over a wide range of context lengths.",
          "R@50 less half of that elsewhere (points)", turns(((2, 3), (4, 7), (8, 15), (16, 999)))),
    Claim("f4-one", "figure-4", "section 5.3, Figure 4",
          "With one utterance before, recall drops only moderately.",
          "R@50 less half of that elsewhere (points)", turns(((1, 1),))),
    Claim("9-common", "9", "appendix B, Tables 9 and 10",
          "The genre is right much more often for common genres than for rare ones.",
          "right genre (points)", common_genres),
    Claim("9-chance", "9", "appendix B",
          "A wrong film is of the right genre more often than a random one.",
          "right genre (points)", genre_hit),
)  # fmt: skip


def claims(results: Results) -> pd.DataFrame:
    """A row per claim that has a verdict from an interval on one data set, in `COLUMNS`.

    ``paper difference`` is NaN where the paper draws its numbers without printing them; then only
    the direction is judged, see `evidence.verdict`.
    """
    files = Files({}, {}, {results.dataset: results})
    rows = [
        {
            "table": claim.table,
            "claim": f"{claim.says} [{claim.unit}]",
            "paper difference": found.paper,
            "difference": found.ours,
            **{k: getattr(found, k) for k in ("low", "high", "n", "verdict")},
        }
        for claim, each in findings(files).items()
        for found in each.values()
        if found is not None and found.verdict in JUDGED and found.has_interval
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def findings(files: Files) -> Mapping[Claim, Mapping[str, Finding | None]]:
    """Claim -> data set -> what was found; None where the claim is not about the data set."""
    return {
        claim: {name: claim.find(files, results) for name, results in files.columns.items()}
        for claim in CLAIMS
    }
