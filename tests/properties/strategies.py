"""Text and data of the kinds that people and files really contain, good and bad."""

from __future__ import annotations

from hypothesis import strategies as st

from pecrs_lib.context import SPECIAL_TOKENS
from pecrs_lib.data import Dialogue, Mention, Movie, Utterance
from tests.toys import toy_catalogue

CATALOGUE = toy_catalogue(12)
CONTROL = [*SPECIAL_TOKENS, "<|endoftext|>", "<s>", "</s>", "<pad>", "User:", "System:", "[MASK]"]
PIECES = [
    *CONTROL, *(m.name for m in CATALOGUE), *(m.title for m in CATALOGUE), "\x00", "\x1b[31m",
    "\t", "\n", "\r\n", "\u2028", "\x85", "\x1c", " ", "\u00a0", "🎬", "👩\u200d👧", "e\u0301",
    "\u202eRTL", "שלום", "مرحبا", "ﬁ", "ß", "İ", "²", "٣", "(1999)", "(", ")", '"', "“", "'", "`",
    "@1", "@99999", "&amp;", "%20", "%", "&#0;", "[MOVIE_ID]", "QUOTATION_MARK", "A: ", "B: ",
    "1. ", "- ", "null", "NaN", ";", "|", ",", "It", "Up", "The", "x" * 300,
]  # fmt: skip
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = st.lists(st.one_of(st.sampled_from(PIECES), text), max_size=6).map("".join)
anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), said, st.just("\ud800"), st.just("")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(said, inner, max_size=3)),
    max_leaves=6,
)


def mostly(valid: st.SearchStrategy) -> st.SearchStrategy:
    """Valid nine times in ten, or anything else."""
    return st.integers(0, 9).flatmap(lambda k: valid if k else anything)


def record(drop: bool = True, **fields: st.SearchStrategy) -> st.SearchStrategy:
    """An object, each field mostly valid, at times with one missing or one too many."""
    whole = st.fixed_dictionaries({name: mostly(value) for name, value in fields.items()})
    extra = st.fixed_dictionaries({}, optional={"more": anything})
    lost = st.sampled_from([None] * 9 + [*fields]) if drop else st.none()
    return st.builds(
        lambda a, b, k: {n: v for n, v in (a | b).items() if n != k}, whole, extra, lost
    )


ids = st.one_of(
    st.sampled_from([m.id for m in CATALOGUE]),
    st.integers(0, 30),
    st.sampled_from(["m99", "1", ""]),
)
roles = st.sampled_from(["seeker", "recommender"])


@st.composite
def utterances(draw: st.DrawFn) -> Utterance:
    """Text with mentions spelled out, of items known and unknown, and others beside it."""
    words, mentions = draw(said), []
    for item in draw(
        st.lists(st.sampled_from([*CATALOGUE, Movie("alien", "[REC] x")]), max_size=3)
    ):
        start = len(words)
        words += item.name
        mentions.append(Mention(item.id, start, len(words)))
        words += draw(said)
    beside = draw(st.lists(st.sampled_from(["m1", "m2", "alien", "[ITEM]"]), max_size=2))
    return Utterance(draw(roles), words, (*mentions, *(Mention(i) for i in beside)))


dialogues = st.builds(
    Dialogue, st.text("abc[]é0", min_size=1, max_size=4),
    st.lists(utterances(), max_size=8).map(tuple),
)  # fmt: skip
