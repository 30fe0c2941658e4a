"""A conversation with a trained model, as the terminal and the widget hold it.

Comes after `generation` and `transcript`. Holds what was said and what the model made of it; it
neither prints nor reads keys, so `cli.chat` and `chat_widget` are thin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pecrs_lib.data import Catalogue, Dialogue, Mention, Movie, Utterance, write_jsonl
from pecrs_lib.generation import Reply, respond
from pecrs_lib.model import PECRS
from pecrs_lib.packing import pack
from pecrs_lib.recommend import history_windows, with_query
from pecrs_lib.transcript import near_misses, say_as

Reaction = Literal["liked", "seen", "not for me"]
WORDS: dict[Reaction, str] = {
    "liked": "I liked {}.", "seen": "I have seen {}. What else?",
    "not for me": "{} is not for me. Something else, please.",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What came of one line of the seeker.

    Attributes:
        reply: the recommender's turn, with the ranked films.
        recognised: films of the catalogue that the line names.
        unknown: words written like a title that no film bears, with films of near spelling.
    """

    reply: Reply
    recognised: list[Movie]
    unknown: dict[str, list[Movie]]


class Chat:
    """A conversation in progress.

    Args:
        v: (N, D) item vectors.
        top: films each reply ranks.
        seed: of sampling; with equal words and seed a conversation repeats.
        always_recommend: prompt every reply with a film, as the paper does.
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
        **decoding: Any,
    ) -> None:
        self.model, self.catalogue, self.v = model, catalogue, v
        self.settings = {"top": top, "always_recommend": always_recommend, **decoding}
        self.seed = seed
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
        if not text.strip():
            raise ValueError("say something: the line is empty")
        return self._exchange(
            say_as("seeker", text.strip(), self.catalogue), near_misses(text, self.catalogue)
        )

    def react(self, movie: Movie, how: Reaction) -> Answer:
        """Say of a film that it was liked, seen, or is not wanted.

        Raises:
            ValueError: no such reaction, or the film is not in the catalogue.
        """
        if how not in get_args(Reaction):
            raise ValueError(f"a reaction is one of {', '.join(get_args(Reaction))}, got {how!r}")
        if movie.id not in self.catalogue:
            raise ValueError(f"{movie.name} is not in the catalogue")
        start = WORDS[how].index("{}")
        mention = Mention(movie.id, start, start + len(movie.name))
        return self._exchange(Utterance("seeker", WORDS[how].format(movie.name), (mention,)), {})

    def undo(self) -> bool:
        """Take back the last exchange; False if there is none."""
        done = bool(self.answers)
        del self._said[-2:], self.answers[-1:]
        return done

    def restart(self) -> None:
        """Forget everything."""
        self._said.clear()
        self.answers.clear()

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSON that `pecrs` reads again.

        Raises:
            ValueError: nothing was said yet.
            OSError: the file cannot be written.
        """
        if not self._said:
            raise ValueError("nothing to save")
        write_jsonl([self.dialogue], path)

    def _exchange(self, heard: Utterance, unknown: dict[str, list[Movie]]) -> Answer:
        history = Dialogue("chat", (*self._said, heard))
        (reply,) = respond(
            self.model, [history], self.catalogue, self.v, seed=self.seed + len(history),
            **self.settings,
        )  # fmt: skip
        recognised = [self.catalogue[self.catalogue.row[item]] for item in heard.items]
        answer = Answer(reply, recognised, unknown)
        self._said += [heard, spoken(reply)]
        self.answers.append(answer)
        return answer


def spoken(reply: Reply) -> Utterance:
    """A reply as an utterance, with the recommended item where its name stands in the text."""
    if reply.recommended is None:
        return Utterance("recommender", reply.text)
    movie = reply.recommended.movie
    mentions, end = [], 0
    while (start := reply.text.find(movie.name, end)) >= 0:
        end = start + len(movie.name)
        mentions.append(Mention(movie.id, start, end))
    return Utterance("recommender", reply.text, tuple(mentions) or (Mention(movie.id),))


@torch.inference_mode()
def nearest_said(
    model: PECRS, history: Dialogue, catalogue: Catalogue, v: Tensor, movies: Sequence[Movie],
    k: int = 3,
) -> list[list[tuple[str, float]]]:  # fmt: skip
    """Per movie the k things said that speak most for it: words or films, with their part.

    With `query_pooling` the query is made of a weighted mean of what was read, so each token has
    a part in it: its weight times the cosine between its vector and the movie's, in percent of the
    largest weight. What attention adds at ``[REC]`` is not in it. Without pooling: empty lists.
    """
    queries = model.queries
    if queries.words is None:
        return [[] for _ in movies]
    tok = model.backbone.tokenizer
    (window,) = with_query(history_windows(model, [history], catalogue), tok.rec)
    batch = pack([window]).to(model.device)
    x = model.inputs(batch, v, torch.arange(len(v), device=v.device))[0, : len(window.token)]
    z = queries.words(x.float())
    weight = queries.weight(z)
    near = (
        normalize(z, dim=1)
        @ normalize(
            queries.words(model.items.scale * v[[catalogue.row[m.id] for m in movies]]), dim=1
        ).T
    )
    part = 100 * weight[:, None] / weight.max() * near
    found = []
    for column in part.T:
        best: dict[str, float] = {}
        for t in column.argsort(descending=True).tolist():
            item = int(window.item[t])
            if item < 0 and int(window.token[t]) >= tok.item:
                continue  # a marker
            name = catalogue[item].name if item >= 0 else tok.decode([int(window.token[t])])
            if len(name.strip()) > 1 and float(column[t]) > 0:
                best.setdefault(name.strip(), float(column[t]))
        found.append(list(best.items())[:k])
    return found
