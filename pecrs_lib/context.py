"""A dialogue as one token sequence: text, markers and item slots (Eq 2 and Eq 6).

Comes after `data`, before `packing`. The four special tokens live *behind* the tokenizer's own
ids and the tokenizer never learns of them, so nothing a person types can become one: "[REC]" in
an utterance is five characters of text.

The sequence of a dialogue, its **trunk**, is, utterance after utterance::

    seeker, with items          [SEP] v_1 … v_k [SEP]      User: text <eos>
    recommender, with items     [REC] v_1 … v_k [REC_END]  System: text <eos>
    without items                                          User: text <eos>  (or System:)

where v_j is an item slot and mentions inside the text read ``[ITEM]``. Everything the three tasks
of the paper need is a position in it, so one causal pass serves them all:

- the query of turn t (Eq 2, ``… v_rec``) ends at that turn's ``[REC]``;
- its generation input (Eq 6, ``… v_rec v_p v_rec_end``) ends at ``[REC_END] System:``;
- its response is what follows, up to ``<eos>``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from pecrs_lib.data.schema import Catalogue, Dialogue, Role, Utterance

SPECIAL_TOKENS = ("[ITEM]", "[SEP]", "[REC]", "[REC_END]")
# DEVIATION: the paper does not say how the LM tells the speakers apart; its code writes "A:", "B:".
SPEAKER = {"seeker": "User:", "recommender": "System:"}
NO_ITEM = -1


class DialogueTokenizer:
    """The backbone's tokenizer plus four ids behind its vocabulary.

    Args:
        tokenizer: a `transformers` tokenizer with an end-of-sequence token.
        first_special: id of ``[ITEM]``; the others follow. It is the number of rows of the
            backbone's embedding table before the four were added.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token, or ids beyond the table.
    """

    def __init__(self, tokenizer: Any, first_special: int) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the backbone's tokenizer has no eos token; set tokenizer.eos_token")
        if len(tokenizer) > first_special:
            raise ValueError(
                f"the tokenizer knows {len(tokenizer)} tokens, the embedding table {first_special}"
            )
        self.tokenizer = tokenizer
        self.item, self.sep, self.rec, self.rec_end = range(first_special, first_special + 4)
        self.eos: int = tokenizer.eos_token_id
        self.bos: int = self.eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.speaker = {role: self.encode([text])[0] for role, text in SPEAKER.items()}

    @property
    def special_ids(self) -> list[int]:
        return [self.item, self.sep, self.rec, self.rec_end]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; control tokens spelled in the text stay text."""
        if not texts:
            return []
        batch = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        return batch["input_ids"]

    def decode(self, ids: Iterable[int], *titles: str) -> str:
        """Text of `ids` up to the first eos, with the k-th title for the k-th ``[ITEM]``.

        Further ones read as the last title; without titles, all read ``[ITEM]``.
        """
        text, run, left = "", [], deque(titles or ["[ITEM]"])
        for token in [*ids, self.eos]:
            if token < self.item and token != self.eos:
                run.append(token)
                continue
            text += self._words(run)
            run = []
            if token == self.eos:
                break
            if token == self.item:
                opening = text[-1:] in " (“" or (text[-1:] in "\"'" and text[-2:-1] in " (“")
                title = left.popleft() if len(left) > 1 else left[0]
                text += title if opening else f" {title}"
        return text.strip()

    def _words(self, run: list[int]) -> str:
        # read behind other words: SentencePiece drops the space before a text's first one
        before = self.speaker["seeker"]
        both = self.tokenizer.decode([*before, *run], clean_up_tokenization_spaces=False)
        alone = self.tokenizer.decode(before, clean_up_tokenization_spaces=False)
        return both[len(alone) :]

    def encode_texts(self, utterances: Sequence[Utterance], known: Catalogue) -> list[list[int]]:
        """Each utterance's text as ids, every mention of a known item one ``[ITEM]``.

        A mention of an item outside the catalogue has no vector, so its words stay words.
        """
        pieces: list[str] = []
        counts: list[int] = []
        for utterance in utterances:
            spans = [m for m in utterance.mentions if m.start is not None and m.item in known]
            edges = [0, *(e for m in spans for e in (m.start, m.end)), len(utterance.text)]
            texts = [utterance.text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
            # one space stands before the text and none before [ITEM], which plays " title"
            pieces += [_tidy(piece, first=k == 0) for k, piece in enumerate(texts)]
            counts.append(len(texts))
        encoded = self.encode(pieces)
        starts = accumulate(counts, initial=0)
        return [
            [t for k in range(n) for t in ([self.item] if k else []) + encoded[start + k]]
            for start, n in zip(starts, counts, strict=False)
        ]


def _tidy(piece: str, first: bool) -> str:
    words = " ".join(piece.split())
    space_before = first or piece[:1].isspace()
    return f" {words}" if words and space_before else words


@dataclass(frozen=True, slots=True)
class Turn:
    """A recommender turn that a window scores; columns are positions in the window's trunk.

    ``trunk[start]`` is ``[REC]`` when the turn recommends, else the first token of ``System:``;
    the response (text and eos) is ``trunk[response:end]``, of which the first `response_tokens`
    are scored.
    """

    utterance: int
    items: tuple[int, ...]  # catalogue rows recommended, in order of mention
    start: int
    response: int
    end: int


@dataclass(frozen=True, slots=True)
class Window:
    """A trunk: a dialogue, or as much of a long one as one pass reads.

    Attributes:
        dialogue: index of the dialogue in the list it came from.
        token: (T,) ids; an item slot holds ``[ITEM]``.
        item: (T,) catalogue row in an item slot, -1 elsewhere.
        turns: the recommender turns scored here; earlier ones are context only.
        cut: how many utterances were longer than `utterance_tokens`.
    """

    dialogue: int
    token: np.ndarray
    item: np.ndarray
    turns: tuple[Turn, ...]
    cut: int


@dataclass(frozen=True, slots=True)
class _Encoded:
    role: Role
    items: list[int]
    token: list[int]  # markers, slots, speaker, text, eos
    response: int  # offset of the first token of the text
    cut: bool

    @property
    def slots(self) -> list[int]:
        marker = 1 if self.items else 0
        tail = len(self.token) - marker - len(self.items)
        return [NO_ITEM] * marker + self.items + [NO_ITEM] * tail


def _encode(
    utterance: Utterance, text: list[int], tok: DialogueTokenizer, catalogue: Catalogue, limit: int
) -> _Encoded:
    known = [catalogue.row[i] for i in utterance.items if i in catalogue]
    items = known[: limit // 2]
    opening, closing = (
        (tok.rec, tok.rec_end) if utterance.role == "recommender" else (tok.sep, tok.sep)
    )
    head = [opening, *([tok.item] * len(items)), closing] if items else []
    head = head + tok.speaker[utterance.role]
    room = limit - len(head) - 1
    cut = len(text) > room or len(known) > len(items)
    return _Encoded(utterance.role, items, [*head, *text[:room], tok.eos], len(head), cut)


def windows_of(
    dialogue: Dialogue,
    index: int,
    catalogue: Catalogue,
    tok: DialogueTokenizer,
    *,
    context_tokens: int = 256,
    utterance_tokens: int = 192,
    window: int = 1024,
) -> list[Window]:
    """The dialogue as one trunk, or as overlapping ones when it is longer than `window`.

    Every recommender turn is scored in exactly one window, in which it sees at least
    `context_tokens` of its past (or all of it). Where a window ends depends on the past alone, so
    a turn's context is the same whether or not the dialogue goes on.

    Args:
        index: stored as `Window.dialogue`.
        utterance_tokens: an utterance, markers included, is cut to this many tokens.
        window: longest trunk in tokens; at least context_tokens + 2 × utterance_tokens.

    Raises:
        ValueError: `window` is too short to move on, or `utterance_tokens` to hold any text.
    """
    if window < context_tokens + 2 * utterance_tokens:
        raise ValueError(f"window {window} < {context_tokens} + 2 × {utterance_tokens} tokens")
    least = 2 * (max(len(ids) for ids in tok.speaker.values()) + 4)  # half of it may be items
    if utterance_tokens < least:
        raise ValueError(f"utterance_tokens must be at least {least}, got {utterance_tokens}")
    texts = tok.encode_texts(dialogue.utterances, catalogue)
    encoded = [
        _encode(utterance, text, tok, catalogue, utterance_tokens)
        for utterance, text in zip(dialogue.utterances, texts, strict=True)
    ]
    ends = list(accumulate((len(u.token) for u in encoded), initial=0))  # ends[i]: before i
    windows: list[Window] = []
    first, scored_from = 0, 0
    for i in range(len(encoded) + 1):
        full = i < len(encoded) and 1 + ends[i] - ends[first] + utterance_tokens > window
        if full or i == len(encoded):
            windows.append(_window(index, encoded, first, scored_from, i, tok))
        if full:
            scored_from = i
            first = i
            while first > 0 and ends[i] - ends[first] < context_tokens:
                first -= 1
    return windows


def _window(
    index: int,
    encoded: list[_Encoded],
    first: int,
    scored_from: int,
    end: int,
    tok: DialogueTokenizer,
) -> Window:
    part = encoded[first:end]
    token = [tok.bos, *(t for u in part for t in u.token)]
    item = [NO_ITEM, *(s for u in part for s in u.slots)]
    starts = list(accumulate((len(u.token) for u in part), initial=1))
    turns = tuple(
        Turn(first + k, tuple(u.items), starts[k], starts[k] + u.response, starts[k + 1])
        for k, u in enumerate(part)
        if u.role == "recommender" and first + k >= scored_from
    )
    return Window(
        index, np.array(token), np.array(item), turns, sum(u.cut for u in encoded[scored_from:end])
    )


def encode_dialogues(
    dialogues: Sequence[Dialogue], catalogue: Catalogue, tok: DialogueTokenizer, **limits: int
) -> list[Window]:
    """`windows_of` for every dialogue; `limits` are its keyword arguments."""
    return [w for k, d in enumerate(dialogues) for w in windows_of(d, k, catalogue, tok, **limits)]


def history_window(
    history: Dialogue, catalogue: Catalogue, tok: DialogueTokenizer, **limits: int
) -> Window:
    """The trunk before a recommender turn that is yet to come: what `recommend` reads.

    Its last column is where the model decides; append ``[REC]`` for the query (Eq 2). The trunk
    equals the one the turn would have in `windows_of` of the finished dialogue.
    """
    coming = Dialogue(history.id, (*history.utterances, Utterance("recommender", "")))
    last = windows_of(coming, 0, catalogue, tok, **limits)[-1]
    start = last.turns[-1].start
    return Window(0, last.token[:start], last.item[:start], (), last.cut)
