"""The token layout of Eq 2 and 6, what people type stays text, and windows over long dialogues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pecrs_lib.context import NO_ITEM, DialogueTokenizer, history_window, windows_of
from pecrs_lib.data import Catalogue, Dialogue, Mention, Movie, Utterance
from tests.toys import WORDS, toy_catalogue

MOVIES = toy_catalogue(6)
TYPED = ("[REC]", "[REC_END]", "[SEP]", "[ITEM]", "<|endoftext|>")
UNCUT = {"context_tokens": 64, "utterance_tokens": 4096, "window": 10**6}


@pytest.fixture(scope="session")
def tok(tiny_backbone: str) -> DialogueTokenizer:
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    return DialogueTokenizer(tokenizer, first_special=len(tokenizer) + 3)  # a padded table


def words(tok: DialogueTokenizer, text: str) -> list[int]:
    """Ids by the tokenizer itself."""
    return tok.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def says(role: str, text: str, *items: str) -> Utterance:
    """An utterance in which each item is spelled by its id, mentioned where it first stands."""
    mentions = tuple(Mention(i, text.index(i), text.index(i) + len(i)) for i in items)
    return Utterance(role, text, mentions)  # type: ignore[arg-type]


def dialogue(*utterances: Utterance) -> Dialogue:
    return Dialogue("d", utterances)


# -- the layout -----------------------------------------------------------------------------------


def test_ids_stand_behind_the_embedding_table_in_the_documented_order(tok):
    rows = len(tok.tokenizer) + 3
    assert tok.special_ids == [rows, rows + 1, rows + 2, rows + 3]
    assert (tok.item, tok.sep, tok.rec, tok.rec_end) == tuple(tok.special_ids)
    assert tok.speaker == {"seeker": words(tok, "User:"), "recommender": words(tok, "System:")}


def test_tokenizers_that_cannot_serve_are_refused(tok, tiny_backbone):
    with pytest.raises(ValueError, match=rf"knows {len(tok.tokenizer)} tokens.* table 12"):
        DialogueTokenizer(tok.tokenizer, first_special=12)
    without = AutoTokenizer.from_pretrained(tiny_backbone)
    without.eos_token = None
    with pytest.raises(ValueError, match="no eos token"):
        DialogueTokenizer(without, first_special=10_000)


def test_the_trunk_spelled_out(tok):
    d = dialogue(
        says("seeker", "I like m0 and (m1) !", "m0", "m1"),
        says("recommender", "why ?"),
        says("seeker", "m2", "m2"),
        says("recommender", "see m3 tonight", "m3"),
        says("recommender", "or m4, m5", "m4", "m5"),
        says("seeker", ""),
    )
    I, S, R, E, eos = tok.item, tok.sep, tok.rec, tok.rec_end, tok.eos  # noqa: E741
    user, system = words(tok, "User:"), words(tok, "System:")
    w = lambda text: words(tok, text)  # noqa: E731
    parts = [
        [tok.bos],
        [S, I, I, S, *user, *w(" I like"), I, *w(" and ("), I, *w(") !"), eos],
        [*system, *w(" why ?"), eos],
        [S, I, S, *user, I, eos],
        [R, I, E, *system, *w(" see"), I, *w(" tonight"), eos],
        [R, I, I, E, *system, *w(" or"), I, *w(","), I, eos],
        [*user, eos],
    ]
    [window] = windows_of(d, 7, MOVIES, tok, **UNCUT)
    assert window.dialogue == 7 and window.cut == 0
    assert window.token.tolist() == [t for part in parts for t in part]

    # slots carry rows, in the order of mention; [ITEM] inside the text carries none
    start = np.cumsum([0, *(len(part) for part in parts)])
    slots = {start[1] + 1: 0, start[1] + 2: 1, start[3] + 1: 2, start[4] + 1: 3,
             start[5] + 1: 4, start[5] + 2: 5}  # fmt: skip
    expected = [slots.get(t, NO_ITEM) for t in range(len(window.token))]
    assert window.item.tolist() == expected

    assert [(t.utterance, t.items) for t in window.turns] == [(1, ()), (3, (3,)), (4, (4, 5))]
    for turn, k in zip(window.turns, (2, 4, 5), strict=True):
        assert (turn.start, turn.end) == (start[k], start[k + 1])
        head = len(system) + (len(turn.items) + 2 if turn.items else 0)
        assert turn.response == turn.start + head
        assert window.token[turn.end - 1] == eos
        opening = window.token[turn.start]  # where the query of Eq 2 ends
        assert opening == (R if turn.items else system[0])
        # where the generation input of Eq 6 ends
        assert window.token[turn.response - len(system) : turn.response].tolist() == system
    assert tok.decode(window.token[window.turns[1].response :], "m3") == "see m3 tonight"


def test_an_item_named_twice_is_one_slot_and_two_words(tok):
    twice = Utterance("recommender", "m2 ? m2 !", (Mention("m2", 0, 2), Mention("m2", 5, 7)))
    [window] = windows_of(dialogue(twice), 0, MOVIES, tok, **UNCUT)
    assert window.turns[0].items == (2,)
    assert (window.token == tok.item).sum() == 3 and (window.item == 2).sum() == 1


def test_a_mention_without_a_span_is_a_slot_but_no_word(tok):
    u = Utterance("recommender", "yes", (Mention("m4"),))
    [window] = windows_of(dialogue(u), 0, MOVIES, tok, **UNCUT)
    system = words(tok, "System:")
    expected = [tok.bos, tok.rec, tok.item, tok.rec_end, *system, *words(tok, " yes"), tok.eos]
    assert window.token.tolist() == expected
    assert window.item[2] == 4 and window.turns[0].items == (4,)


def test_an_unknown_item_keeps_its_words(tok):
    known, unknown = says("recommender", "m1 or m77", "m1", "m77"), says("seeker", "m77 ?", "m77")
    [window] = windows_of(dialogue(unknown, known), 0, MOVIES, tok, **UNCUT)
    seeker = [*words(tok, "User:"), *words(tok, " m77 ?"), tok.eos]
    assert window.token[1 : 1 + len(seeker)].tolist() == seeker
    assert window.turns[0].items == (1,)
    assert tok.decode(window.token[window.turns[0].response :], "m1") == "m1 or m77"


@pytest.mark.parametrize("typed", TYPED)
def test_control_tokens_that_people_type_stay_text(tok, typed):
    movie = Movie("x", f"The {typed} movie")
    text = f"{typed} and {movie.name} or{typed}"
    start = len(typed) + 5
    u = Utterance("recommender", text, (Mention("x", start, start + len(movie.name)),))
    for known, n_items in ((Catalogue((movie,)), 2), (MOVIES, 0)):
        [window] = windows_of(dialogue(u), 0, known, tok, **UNCUT)
        token = window.token[1:-1]  # between bos and the utterance's own eos
        assert not {tok.eos, tok.sep} & set(token.tolist())
        assert (token == tok.item).sum() == n_items
        assert (token == tok.rec).sum() == (token == tok.rec_end).sum() == n_items / 2
        assert tok.decode(window.token[window.turns[0].response :], movie.name) == text


# -- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "plain words", "naïve café", "I 💜 🎬👨‍👩‍👧", "שלום, סרט טוב", "\u202ertl\u202c",
     "a\x00b\x07c", "don't , won 't .", "日本語 映画", "1 234", "x" * 500],
)  # fmt: skip
def test_decode_returns_the_text(tok, text):
    [ids] = tok.encode_texts([Utterance("seeker", text)], MOVIES)
    assert tok.decode(ids) == text
    assert tok.decode([*ids, tok.eos, *ids]) == text, "nothing after the first eos"


def test_white_space_is_squeezed(tok):
    [ids] = tok.encode_texts([Utterance("seeker", " \t two\n\n  words\x85 ")], MOVIES)
    assert ids == words(tok, " two words")


@pytest.mark.parametrize(
    "template",
    ["{}", "{} !", "see {}", "see {}.", "({})", '"{}"', "I say '{}' now", 'the "old" {} is', "“{}”",
     "the robots' {}", "{} {}", "{}, {} or {}", '("{}")', "שלום {} טוב", "🎬 {} 🎬"],
)  # fmt: skip
def test_decode_puts_the_title_where_it_stood(tok, template):
    n = template.count("{}")
    text, mentions = "", []
    for k, part in enumerate(template.split("{}")):
        text += part
        if k < n:
            mentions.append(Mention("m0", len(text), len(text) + len(MOVIES[0].name)))
            text += MOVIES[0].name
    [ids] = tok.encode_texts([Utterance("seeker", text, tuple(mentions))], MOVIES)
    assert ids.count(tok.item) == n
    assert tok.decode(ids, MOVIES[0].name) == text


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_sentencepiece_tokenizers_keep_words_apart(scheme):
    """Llama 2 and Mistral write a space as part of a word, and drop the first one they read."""
    model = Tokenizer(models.BPE(unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    model.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "</s>"], show_progress=False)
    model.train_from_iterator([" ".join([*WORDS, "User: System: m0 !"])] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", unk_token="<unk>")
    tok = DialogueTokenizer(tokenizer, len(tokenizer))
    u = Utterance("seeker", "m0 and a m0 !", (Mention("m0", 0, 2), Mention("m0", 9, 11)))
    [ids] = tok.encode_texts([u], MOVIES)
    assert ids.count(tok.item) == 2
    assert tok.decode(ids, "m0") == u.text


def test_decode_skips_the_other_markers(tok):
    ids = [tok.rec, tok.item, tok.rec_end, *words(tok, " ok")]
    assert tok.decode(ids, "Up") == "Up ok"
    assert tok.decode([*ids, *ids, *ids], "Up", "Her") == "Up ok Her ok Her ok"
    assert tok.decode([]) == "" == tok.decode([tok.eos])


# -- windows --------------------------------------------------------------------------------------


def made_of(plan: list[tuple[bool, int, int]]) -> Dialogue:
    """(seeker?, words, items) per utterance."""
    utterances = []
    for k, (seeker, n_words, n_items) in enumerate(plan):
        text, mentions = " ".join(WORDS[(k + i) % len(WORDS)] for i in range(n_words)), []
        for i in range(n_items):
            name = MOVIES[(k + i) % len(MOVIES)].id
            text += f" {name}"
            mentions.append(Mention(name, len(text) - len(name), len(text)))
        role = "seeker" if seeker else "recommender"
        utterances.append(Utterance(role, text, tuple(mentions)))
    return dialogue(*utterances)


plans = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 3)), max_size=14)
limits = st.tuples(st.integers(1, 60), st.integers(20, 50), st.integers(0, 40)).map(
    lambda c: {
        "context_tokens": c[0],
        "utterance_tokens": c[1],
        "window": c[0] + 2 * c[1] + c[2],
    }
)
repeatable = settings(max_examples=60, deadline=None, derandomize=True, database=None)
LONG = [(k % 2 == 0, 9, k % 3) for k in range(14)]
TIGHT = {"context_tokens": 30, "utterance_tokens": 20, "window": 70}


@given(plan=plans, limits=limits)
@example(plan=LONG, limits=TIGHT)
@repeatable
def test_every_turn_is_scored_once_with_its_past_before_it(tok, plan, limits):
    d = made_of(plan)
    windows = windows_of(d, 0, MOVIES, tok, **limits)
    # the same utterances without a limit on the window: the whole past
    uncut = {**limits, "window": 10**6}
    [whole] = windows_of(d, 0, MOVIES, tok, **uncut)
    scored = [(window, turn) for window in windows for turn in window.turns]
    assert [t.utterance for _, t in scored] == [t.utterance for t in whole.turns]
    for (window, turn), reference in zip(scored, whole.turns, strict=True):
        assert (turn.items, turn.end - turn.start) == (
            reference.items, reference.end - reference.start,
        )  # fmt: skip
        past = turn.start - 1  # without bos
        assert past >= min(limits["context_tokens"], reference.start - 1)
        assert window.token[0] == tok.bos
        for field in ("token", "item"):
            own, full = getattr(window, field), getattr(whole, field)
            assert np.array_equal(own[1 : turn.end], full[reference.start - past : reference.end])
    assert all(len(w.token) <= limits["window"] for w in windows)
    assert sum(w.cut for w in windows) == whole.cut


@given(plan=plans, limits=limits)
@example(plan=LONG, limits=TIGHT)
@repeatable
def test_the_history_reads_as_it_will_in_the_finished_dialogue(tok, plan, limits):
    d = made_of(plan)
    for window in windows_of(d, 0, MOVIES, tok, **limits):
        for turn in window.turns:
            history = Dialogue(d.id, d.utterances[: turn.utterance])
            coming = history_window(history, MOVIES, tok, **limits)
            assert np.array_equal(coming.token, window.token[: turn.start])
            assert np.array_equal(coming.item, window.item[: turn.start])
            assert coming.turns == ()


def test_the_examples_above_do_make_several_windows(tok):
    assert len(windows_of(made_of(LONG), 0, MOVIES, tok, **TIGHT)) >= 3


def test_long_utterances_are_cut_and_counted(tok):
    limits = {"context_tokens": 8, "utterance_tokens": 24, "window": 100}
    fits = 24 - len(words(tok, "System:")) - 1
    for n, cut in ((fits, 0), (fits + 1, 1)):
        u = Utterance("recommender", " ".join(["a"] * n))
        [window] = windows_of(dialogue(u), 0, MOVIES, tok, **limits)
        assert len(words(tok, f" {u.text}")) == n, "one token a word, or this test says nothing"
        assert len(window.token) == 1 + 24 and window.cut == cut
        assert window.token[-1] == tok.eos
    many = Utterance("seeker", "", tuple(Mention(m.id) for m in toy_catalogue(13)))
    [window] = windows_of(dialogue(many), 0, toy_catalogue(13), tok, **limits)
    assert window.item[window.item >= 0].tolist() == list(range(12))
    assert window.cut == 1, "the thirteenth item is gone: that is counted, too"


@pytest.mark.parametrize("text", ["a" * 2**20, "space robots " * 80_000], ids=["a word", "words"])
def test_a_megabyte_in_one_utterance(tok, text):
    d = dialogue(Utterance("seeker", text), says("recommender", "m0", "m0"))
    [window] = windows_of(d, 0, MOVIES, tok, context_tokens=64, utterance_tokens=48, window=192)
    assert window.cut == 1 and len(window.token) < 192
    assert window.turns[0].start == 1 + 48


def test_three_thousand_turns_make_linear_work(tok):
    d = made_of([(k % 2 == 0, 3, k % 2) for k in range(3000)])
    limits = {"context_tokens": 64, "utterance_tokens": 48, "window": 256}
    windows = windows_of(d, 0, MOVIES, tok, **limits)
    [whole] = windows_of(d, 0, MOVIES, tok, **{**limits, "window": 10**6})
    assert sum(len(w.turns) for w in windows) == 1500
    # a window repeats at most context + an utterance, and is left with at most one free
    new = 256 - 48 - (64 + 48) - 1
    assert len(windows) <= 1 + len(whole.token) / new


def test_empty_dialogues(tok):
    [window] = windows_of(dialogue(), 3, MOVIES, tok)
    assert window.token.tolist() == [tok.bos] and window.turns == () and window.dialogue == 3
    coming = history_window(dialogue(), MOVIES, tok)
    assert coming.token.tolist() == [tok.bos]


def test_limits_that_cannot_work_are_refused(tok):
    with pytest.raises(ValueError, match="window 99 < 40"):
        windows_of(dialogue(), 0, MOVIES, tok, context_tokens=40, utterance_tokens=30, window=99)
    least = 2 * (len(words(tok, "System:")) + 4)
    with pytest.raises(ValueError, match=f"at least {least}, got {least - 1}"):
        windows_of(dialogue(), 0, MOVIES, tok, utterance_tokens=least - 1)
    many = Utterance("recommender", "a b", tuple(Mention(m.id) for m in toy_catalogue(24)))
    [window] = windows_of(dialogue(many), 0, toy_catalogue(24), tok, utterance_tokens=least)
    assert len(window.token) == 1 + least
