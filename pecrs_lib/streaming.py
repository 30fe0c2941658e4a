"""A reply as it grows: token ids in, pieces of text out.

Before `generation`, which hands a `TextStream` to `transformers`' `generate`. A token is not a
piece of text: one letter may take several tokens, and ``[ITEM]`` stands for a title. So all ids so
far are decoded at every step, and what may still change is held back: trailing white space, and
the replacement characters of a letter whose last bytes are yet to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from pecrs_lib.context import DialogueTokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoding makes of half a letter


class TextStream(BaseStreamer):
    """Calls `on_text` with each new piece; together they are the text of the reply.

    Args:
        titles: what ``[ITEM]`` reads, see `DialogueTokenizer.decode`.
    """

    def __init__(
        self, tok: DialogueTokenizer, titles: Sequence[str], on_text: Callable[[str], None]
    ) -> None:
        self.tok, self.titles, self.on_text = tok, titles, on_text
        self.ids: list[int] = []
        self.sent = ""

    def put(self, value: Tensor) -> None:
        """Take new ids, () or (1,); a prompt given as vectors arrives as none, (1, 0)."""
        self.ids += value.flatten().tolist()
        self._send(self.tok.decode(self.ids, *self.titles).rstrip(UNFINISHED).rstrip())

    def end(self) -> None:
        """Send what was held back."""
        self._send(self.tok.decode(self.ids, *self.titles))

    def _send(self, text: str) -> None:
        if len(text) > len(self.sent):
            new, self.sent = text[len(self.sent) :], text
            self.on_text(new)
