"""A conversation with a trained model, as the terminal and the widget hold it.

Comes after `generation`, `transcript` and `why`. Holds what was said and what the model made of it;
it neither prints nor reads keys, so `cli.chat` and `chat_widget` are thin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from pecrs_lib.context import SPECIAL_TOKENS
from pecrs_lib.data import Catalogue, Dialogue, Mention, Movie, Utterance
from pecrs_lib.data.jsonl import jsonl_bytes, write_bytes
from pecrs_lib.generation import Reply, respond
from pecrs_lib.model import PECRS
from pecrs_lib.recommend import Recommendation, history_windows
from pecrs_lib.transcript import find_items, near_misses
from pecrs_lib.why import nearest_said

ITEM = SPECIAL_TOKENS[0]
Reaction = Literal["liked", "seen", "not for me"]
WORDS: dict[Reaction, str] = {
    "liked": "I liked {}.", "seen": "I have seen {}. What else?",
    "not for me": "{} is not for me. Something else, please.",
}  # fmt: skip
TITLES_WITHIN = 2000  # characters of a line that are searched for films; the model reads fewer


@dataclass(frozen=True)
class Answer:
    """What came of one line of the seeker.

    Attributes:
        reply: the recommender's turn, with the films that rank first after re-ranking.
        retrieved: the films that were nearest before it, in that order. Here and in `reply`,
            places count only films that may be recommended.
        recognised: films of the catalogue that the line names.
        unknown: words written like a title that no film bears, with films of near spelling.
        cut: the line was longer than the model reads; its end was left out.
    """

    reply: Reply
    retrieved: list[Recommendation]
    recognised: list[Movie]
    unknown: dict[str, list[Movie]]
    cut: bool


class Chat:
    """A conversation in progress. What goes wrong raises and leaves it as it was.

    Args:
        v: (N, D) item vectors.
        top: films listed with each reply.
        seed: of sampling; with equal words and seed a conversation repeats.
        always_recommend: prompt every reply with a film, as the paper does.
        exclude_mentioned: recommend nothing that was named before. The paper does not exclude it,
            but who presses "seen" wants another film.
        on_text: gets the pieces of each reply as they come, see `generation.respond`.
        decoding: see `generation.respond`.

    Attributes:
        answers: one per exchange.
    """

    def __init__(
        self,
        model: PECRS,
        catalogue: Catalogue,
        v: Tensor,
        *,
        top: int = 10,
        seed: int = 0,
        always_recommend: bool = False,
        exclude_mentioned: bool = True,
        on_text: Callable[[str], None] | None = None,
        **decoding: Any,
    ) -> None:
        self.model, self.catalogue, self.v = model, catalogue, v
        self.settings = {
            "always_recommend": always_recommend, "exclude_mentioned": exclude_mentioned, **decoding
        }  # fmt: skip
        self.top, self.seed, self.on_text = top, seed, on_text
        self.answers: list[Answer] = []
        self._said: list[Utterance] = []

    @property
    def dialogue(self) -> Dialogue:
        """Everything said so far, in this package's form."""
        return Dialogue("chat", tuple(self._said))

    def say(self, text: str) -> Answer:
        """Say something as the seeker.

        Raises:
            ValueError: the text is empty.
        """
        return self._say(text, self._said)

    def correct(self, words: str, movie: Movie) -> Answer:
        """Say the last line again, with `movie` for words of it that no film bears.

        Raises:
            ValueError: the last line has no such words, or the film is not in the catalogue.
        """
        self._check(movie)
        if not self.answers or words not in self.answers[-1].unknown:
            raise ValueError(f"the last line names no unknown film {words!r}")
        name = movie.name if movie.year else f'"{movie.title}"'  # so that it is recognised
        return self._say(self._said[-2].text.replace(words, name), self._said[:-2])

    def react(self, movie: Movie, how: Reaction) -> Answer:
        """Say of a film that it was liked, seen, or is not wanted.

        Raises:
            ValueError: no such reaction, or the film is not in the catalogue.
        """
        if how not in get_args(Reaction):
            raise ValueError(f"a reaction is one of {', '.join(get_args(Reaction))}, got {how!r}")
        self._check(movie)
        start = WORDS[how].index("{}")
        mention = Mention(movie.id, start, start + len(movie.name))
        heard = Utterance("seeker", WORDS[how].format(movie.name), (mention,))
        return self._exchange(heard, {}, self._said)

    def undo(self) -> bool:
        """Take back the last exchange; False if there is none."""
        done = bool(self.answers)
        del self._said[-2:], self.answers[-1:]
        return done

    def restart(self) -> None:
        """Forget everything."""
        self._said.clear()
        self.answers.clear()

    def why(self, movies: Sequence[Movie], k: int = 3) -> list[list[tuple[str, float]]]:
        """Per film the k things said before the last reply that speak most for it.

        See `why.nearest_said`. Raises ValueError when nothing was said yet.
        """
        if not self.answers:
            raise ValueError("nothing was said yet")
        history = Dialogue("chat", tuple(self._said[:-1]))
        return nearest_said(self.model, history, self.catalogue, self.v, movies, k)

    def export(self) -> bytes:
        """The conversation as one line of JSON, UTF-8, which `read_jsonl` reads.

        Raises:
            ValueError: nothing was said yet.
        """
        if not self._said:
            raise ValueError("nothing to save")
        return jsonl_bytes([self.dialogue])

    def save(self, path: Path) -> None:
        """Write the same to a file, gzipped if its name ends in ``.gz``.

        Raises:
            ValueError: nothing was said yet.
            OSError: the file cannot be written.
        """
        write_bytes(self.export(), path)

    def _check(self, movie: Movie) -> None:
        if movie.id not in self.catalogue:
            raise ValueError(f"{movie.name} is not in the catalogue")

    def _say(self, text: str, past: Sequence[Utterance]) -> Answer:
        text = text.strip().encode(errors="replace").decode()  # no half surrogate pairs
        if not text:
            raise ValueError("say something: the line is empty")
        start = text[:TITLES_WITHIN]
        heard = Utterance("seeker", text, find_items(start, self.catalogue))
        return self._exchange(heard, near_misses(start, self.catalogue), past)

    def _exchange(
        self, heard: Utterance, unknown: dict[str, list[Movie]], past: Sequence[Utterance]
    ) -> Answer:
        history = Dialogue("chat", (*past, heard))
        (reply,) = respond(
            self.model, [history], self.catalogue, self.v, seed=self.seed + len(history),
            top=len(self.catalogue), on_text=self.on_text, **self.settings,
        )  # fmt: skip
        recognised = [self.catalogue[self.catalogue.row[item]] for item in heard.items]
        by_distance = sorted(reply.ranked, key=lambda r: r.retrieved)
        place = {r.movie.id: k for k, r in enumerate(by_distance, start=1)}
        before, after = (
            [replace(r, retrieved=place[r.movie.id]) for r in films[: self.top]]
            for films in (by_distance, reply.ranked)
        )
        (line,) = history_windows(self.model, [Dialogue("line", (heard,))], self.catalogue)
        listed = replace(reply, ranked=after)
        answer = Answer(listed, before, recognised, unknown, line.cut > 0)
        self.answers[len(past) // 2 :] = [answer]
        self._said[len(past) :] = [heard, spoken(reply)]
        return answer


def spoken(reply: Reply) -> Utterance:
    """A reply as an utterance, with the films that stand for its ``[ITEM]``s as mentions."""
    mentions, end = [], 0
    for k in range(reply.raw.count(ITEM) if reply.ranked else 0):
        movie = reply.ranked[min(k, len(reply.ranked) - 1)].movie
        if (start := reply.text.find(movie.name, end)) >= 0:
            end = start + len(movie.name)
            mentions.append(Mention(movie.id, start, end))
    return Utterance("recommender", reply.text, tuple(mentions))
