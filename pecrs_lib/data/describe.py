"""How large a corpus is: the paper's Table 1, recounted.

A look at the result of the readers, before anything is trained. The paper counts *data points*:
every utterance of the recommender except the first utterance of a dialogue (it has no context),
and an utterance that recommends k films counts k times, a film named twice in it twice. Beside
these stand the plain counts of utterances, so that nobody compares one with the other.

INSPIRED: with the authors' processed files (train, dev and test) this gives the paper's 999
dialogues, 21,124 utterances and 10,122 = 7,243 + 2,879 data points exactly. Its 1,546 unique items
are not reproduced: the three files mention 1,662 (1,540 without dev, the nearest count we found).

ReDial (paper: 11,348 dialogues, 139,557 utterances, 73,999 = 31,119 + 42,880 points): measured on
10,005 of the 10,006 training dialogues and scaled to 11,348, since the test dialogues were not at
hand. All mentions give 140,477 utterances and 74,694 = 30,751 + 43,942 points; only mentions of
films whose title is among the authors' item texts (`catalogue`; of several films with that title
the first) give 74,340 = 31,147 + 43,193, within 0.8 % of each. That is the convention offered
here. Counting a film once per utterance comes nearer still (73,891 = 31,147 + 42,744) but breaks
INSPIRED (2,842 instead of 2,879 points with a recommendation), so it is not what the paper does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from pecrs_lib.data.schema import Catalogue, Dialogue


@dataclass(frozen=True)
class Statistics:
    """Counts of a set of dialogues; `table` titles them."""

    dialogues: int
    utterances: int
    items: int  # distinct, mentioned by either speaker
    mentions: int  # of those items
    outside: int  # mentions of items that the catalogue lacks; not counted anywhere else
    points: int  # the paper's "recommender utterances"
    points_without: int
    points_with: int
    recommender_utterances: int  # plainly counted, first utterances included
    recommender_without: int
    recommender_with: int
    mean_turns: float  # utterances per dialogue
    mean_words: float  # words (between blanks) per utterance

    def to_json(self) -> dict[str, Any]:
        """Field names and numbers, for ``json.dump``."""
        return asdict(self)

    def table(self) -> str:
        """Text, one line per count; the paper's Table 1 is its first block."""
        width = max(map(len, _TITLES.values()))
        lines = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
            lines.append(f"{_TITLES[entry.name]:<{width}}  {shown:>9}")
        return "\n".join(lines)


_TITLES = {
    "dialogues": "Dialogues",
    "utterances": "Utterances",
    "items": "Unique items",
    "mentions": "Mentions of items",
    "outside": "Mentions outside the catalogue",
    "points": "Recommender data points (paper)",
    "points_without": "  without recommendation",
    "points_with": "  with recommendation",
    "recommender_utterances": "Recommender utterances (plain)",
    "recommender_without": "  without recommendation",
    "recommender_with": "  with recommendation",
    "mean_turns": "Utterances per dialogue",
    "mean_words": "Words per utterance",
}


def describe(dialogues: Iterable[Dialogue], catalogue: Catalogue | None = None) -> Statistics:
    """Count. With a `catalogue`, a mention of an item that it lacks is no mention of an item."""
    n_dialogues = utterances = words = mentions = outside = 0
    without = with_ = plain_without = plain_with = 0
    items: set[str] = set()
    for dialogue in dialogues:
        n_dialogues += 1
        for turn, utterance in enumerate(dialogue.utterances):
            named = [mention.item for mention in utterance.mentions]
            known = [item for item in named if catalogue is None or item in catalogue]
            utterances += 1
            words += len(utterance.text.split())
            mentions += len(known)
            outside += len(named) - len(known)
            items.update(known)
            if utterance.role == "seeker":
                continue
            plain_with += bool(known)
            plain_without += not known
            if turn > 0:
                with_ += len(known)
                without += not known
    return Statistics(
        dialogues=n_dialogues,
        utterances=utterances,
        items=len(items),
        mentions=mentions,
        outside=outside,
        points=without + with_,
        points_without=without,
        points_with=with_,
        recommender_utterances=plain_without + plain_with,
        recommender_without=plain_without,
        recommender_with=plain_with,
        mean_turns=utterances / n_dialogues if n_dialogues else 0.0,
        mean_words=words / utterances if utterances else 0.0,
    )
