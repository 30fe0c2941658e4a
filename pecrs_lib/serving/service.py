"""What can be asked of a served model, what it answers, and the batched calls in between.

Comes after `generation` and `transcript`, before `application`, which puts it behind HTTP; knows
nothing of HTTP itself. Needs pydantic, which the extra ``serve`` brings.

A dialogue is written as in this package's JSON lines (`data.jsonl`). Every field is checked, and
every length is bounded, so that no request can cost much more than another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from pecrs_lib.data import Catalogue, Dialogue, Mention, Utterance
from pecrs_lib.data.matching import TitleIndex
from pecrs_lib.data.schema import ROLES
from pecrs_lib.decoding import GREEDY
from pecrs_lib.generation import Reply, say_turns
from pecrs_lib.model import PECRS
from pecrs_lib.recommend import Recommendation, next_turns
from pecrs_lib.transcript import find_items

MAX_UTTERANCES = 100  # of a dialogue; ReDial's longest are shorter
MAX_CHARACTERS = 2_000  # of an utterance; the model reads fewer
MAX_TEXT = 8_000  # characters of a dialogue; a window of 1,024 tokens holds fewer
MAX_MENTIONS = 32  # of an utterance
MAX_ID = 200  # characters
MAX_TOP = 100  # items of an answer
EXAMPLE: dict[str, Any] = {
    "dialogue": {
        "utterances": [
            {"role": "seeker", "text": "Hi! I loved Home Alone. Something for Christmas?"},
            {"role": "recommender", "text": "Do you want another family film?"},
            {"role": "seeker", "text": "Yes, please."},
        ]
    },
    "top": 5,
    "reply": True,
}

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]


class _Asked(BaseModel):
    """Unknown fields and values of another type are refused, not guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MentionIn(_Asked):
    """An item, and the words of the text that name it: a Python slice, in characters."""

    item: Id
    start: int = Field(ge=0)
    end: int = Field(ge=1)


class UtteranceIn(_Asked):
    """One turn of one speaker."""

    role: Literal["seeker", "user", "recommender", "system"]
    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    mentions: list[MentionIn | Id] | None = Field(
        None,
        max_length=MAX_MENTIONS,
        description="Items of the catalogue that the utterance names, in the order of the text; "
        "an id alone is an item the text does not spell out. Without this field, films are "
        'recognised by year, quotation marks or capitals: Up (2009), "Up", Home Alone. [] says '
        "that it names none.",
    )

    @model_validator(mode="after")
    def _spans(self) -> Self:
        self.read(())  # raises DataError, a ValueError, for spans that overlap or leave the text
        return self

    def read(self, found: Sequence[Mention]) -> Utterance:
        """The utterance with its own mentions, or with `found` where it has no such field."""
        own = self.mentions
        mentions = found if own is None else [
            Mention(m) if isinstance(m, str) else Mention(m.item, m.start, m.end) for m in own
        ]  # fmt: skip
        return Utterance(ROLES[self.role], self.text, tuple(mentions))


class DialogueIn(_Asked):
    """A dialogue so far; what is asked for is the recommender's next turn."""

    id: str = Field("", max_length=MAX_ID, description="Comes back with the answer.")
    utterances: list[UtteranceIn] = Field(min_length=1, max_length=MAX_UTTERANCES)

    @model_validator(mode="after")
    def _length(self) -> Self:
        length = sum(len(u.text) for u in self.utterances)
        if length > MAX_TEXT:
            raise ValueError(
                f"the dialogue has {length} characters, at most {MAX_TEXT} are taken; leave out "
                "its oldest utterances, which the model would not read"
            )
        return self


class Question(_Asked):
    """A dialogue, and what is wanted for it."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    dialogue: DialogueIn
    top: int = Field(
        10, ge=1, le=MAX_TOP, description="How many items; never more than the model re-ranks."
    )
    exclude_mentioned: bool = Field(
        False, description="Leave out what the dialogue has named already."
    )
    reply: bool = Field(
        False, description="Also write the recommender's next turn, by greedy decoding."
    )
    always_recommend: bool = Field(
        False, description="Prompt the reply with an item, whatever the model would do."
    )


class RecommendedItem(BaseModel):
    """An item: its re-rank score, its distance to the query, its place before re-ranking."""

    place: int
    id: str
    title: str
    year: int | None
    score: float
    distance: float
    retrieved: int


class ReplyOut(BaseModel):
    """The recommender's next turn."""

    text: str
    recommended: str | None = Field(description="Id of the item it names first; null if none.")
    opens_with_rec: float = Field(description="How likely a recommendation was here, 0 to 1.")


class Answer(BaseModel):
    """What came of one question."""

    dialogue: str
    mentioned: list[str] = Field(description="Items of the catalogue that the dialogue names.")
    unknown: list[str] = Field(
        description="Ids it names that the catalogue lacks; their words stay words."
    )
    cut: int = Field(description="Utterances longer than the model reads; their ends were left out")
    recommendations: list[RecommendedItem]
    reply: ReplyOut | None


@dataclass(frozen=True)
class Service:
    """Answers questions in batches; a question's answer does not depend on its batch.

    Decoding is greedy: what is drawn at random depends on what else is drawn in the call.
    Rounding differs between batches, by about 1e-6 of a score.

    Args:
        v: (N, D) item vectors.

    Attributes:
        titles: of the catalogue, made once.
    """

    model: PECRS
    catalogue: Catalogue
    v: Tensor
    titles: TitleIndex = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "titles", TitleIndex(self.catalogue))

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question; those that ask for the same things share a call."""
        groups: defaultdict[tuple[bool, ...], list[int]] = defaultdict(list)
        for k, q in enumerate(questions):
            groups[q.reply, q.exclude_mentioned, q.reply and q.always_recommend].append(k)
        answers: dict[int, Answer] = {}
        for members in groups.values():
            part = [questions[k] for k in members]
            answers |= dict(zip(members, self._alike(part), strict=True))
        return [answers[k] for k in range(len(questions))]

    def read(self, question: Question) -> Dialogue:
        """The dialogue asked about, with the films that its texts name."""
        return Dialogue(
            question.dialogue.id,
            tuple(
                u.read(
                    find_items(u.text, self.catalogue, self.titles) if u.mentions is None else ()
                )
                for u in question.dialogue.utterances
            ),
        )

    def _alike(self, questions: Sequence[Question]) -> list[Answer]:
        histories = [self.read(q) for q in questions]
        first = questions[0]
        parts = self.model, histories, self.catalogue, self.v
        new = first.exclude_mentioned
        # a reply's second film is the one that ranks second, however few are asked for
        turns = next_turns(*parts, top=MAX_TOP, exclude_mentioned=new)
        replies: Sequence[Reply | None] = [None] * len(questions)
        if first.reply:
            always = first.always_recommend
            replies = say_turns(
                self.model, turns, self.catalogue, self.v, always_recommend=always, **GREEDY
            )
        return [
            self._answer(history, turn.trunk.cut, turn.ranked[: q.top], reply)
            for q, history, turn, reply in zip(questions, histories, turns, replies, strict=True)
        ]

    def _answer(
        self, history: Dialogue, cut: int, found: Sequence[Recommendation], reply: Reply | None
    ) -> Answer:
        named = sorted(history.mentioned_before(len(history)))
        return Answer(
            dialogue=history.id,
            mentioned=[item for item in named if item in self.catalogue],
            unknown=[item for item in named if item not in self.catalogue],
            cut=cut,
            recommendations=[_item(place, r) for place, r in enumerate(found, start=1)],
            reply=None if reply is None else _reply(reply),
        )


def _reply(reply: Reply) -> ReplyOut:
    named = None if reply.recommended is None else reply.recommended.movie.id
    return ReplyOut(text=reply.text, recommended=named, opens_with_rec=reply.opens_with_rec)


def _item(place: int, r: Recommendation) -> RecommendedItem:
    return RecommendedItem(
        place=place, id=r.movie.id, title=r.movie.title, year=r.movie.year, score=r.score,
        distance=r.distance, retrieved=r.retrieved,
    )  # fmt: skip
