"""The tokens of prompts and answers: ids of users and items, and the words between them.

Comes after `item_ids`, before `prompts`. Ids are written with tokens of their own, which no word
shares; words are BPE tokens learned from the templates and the training sentences.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, EOS = 0, 1  # T5's; the decoder starts from PAD
USER_BASE = 64  # a user is two tokens: `u // 64` and `u % 64`


class Vocabulary:
    """Token ids: PAD, EOS, the codes of items place by place, the two of users, then words.

    Args:
        codes: (N, L) id scheme of `item_ids`.
        users: U.
        texts: templates and training sentences.
        words: size of the BPE vocabulary.

    Attributes:
        item_tokens: (N, L).
        user_tokens: (U, 2).

    Raises:
        ValueError: two items share an id.
    """

    def __init__(self, codes: np.ndarray, users: int, texts: Iterable[str], words: int) -> None:
        if len(np.unique(codes, axis=0)) < len(codes):
            raise ValueError("two items have the same id")
        self.item_tokens, free = _places(codes, EOS + 1)
        number = np.arange(users)
        self.user_tokens, self.first_word = _places(
            np.stack([number // USER_BASE, number % USER_BASE], 1), free
        )
        self._bpe = Tokenizer(models.BPE(unk_token="<unk>"))
        self._bpe.pre_tokenizer = pre_tokenizers.Metaspace()
        self._bpe.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=words, special_tokens=["<unk>"], show_progress=False
        )
        self._bpe.train_from_iterator(texts, trainer)
        self._known: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self.first_word + self._bpe.get_vocab_size()

    def words(self, text: str) -> np.ndarray:
        """Token ids of a text without ids in it."""
        if text not in self._known:
            ids = self._bpe.encode(" ".join(text.split())).ids if text.strip() else []
            self._known[text] = np.array(ids, dtype=np.int64) + self.first_word
        return self._known[text]

    def text(self, tokens: Iterable[int]) -> str:
        """Words of an answer up to its EOS; tokens of ids and padding are left out."""
        ids = []
        for token in tokens:
            if token == EOS:
                break
            if token >= self.first_word:
                ids.append(int(token) - self.first_word)
        return self._bpe.decode(ids)

    def items(self, tokens: np.ndarray) -> np.ndarray:
        """(…, L or more) answers -> (…) items they spell, -1 where they spell none."""
        length = self.item_tokens.shape[1]
        radix = len(self) ** np.arange(length)[::-1]
        known = self.item_tokens @ radix
        order = np.argsort(known)
        key = tokens[..., :length] @ radix
        place = np.searchsorted(known, key, sorter=order).clip(max=len(known) - 1)
        found = order[place]
        return np.where(known[found] == key, found, -1)


def _places(codes: np.ndarray, first: int) -> tuple[np.ndarray, int]:
    """Codes as token ids from `first` on, each place with a range of its own; the next free id."""
    sizes = codes.max(0) + 1
    start = first + np.concatenate([[0], sizes.cumsum()])
    return codes + start[:-1], int(start[-1])
