"""MiniReel's dialogues: simulated seekers with a hidden taste, and recommenders who find it out.

Beside the flow: it makes the bundled data set that the readers read. A seeker has a hidden taste
over genres, plot themes, people and eras, which shows only in what they say and like; a
recommender draws films by the part of the taste that has been said, with some intuition for the
rest. Words come from `grammar`. Themes are tags of the films (`themes.json`) that no item text
contains: dialogues name them in other words, and plots show them in others again.

The distribution p that a recommendation is drawn from is known, so the rank of the film under p is
that of an oracle, which knows the hidden taste and the recommender's habits (`Simulation.oracle`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pecrs_lib.data.schema import Catalogue, Movie
from pecrs_lib.grammar import Typist, clause, expand, pieces, recall


@dataclass(frozen=True)
class Knobs:
    """What makes a simulated corpus harder, longer or noisier."""

    popularity: float = 0.45  # skew of fame: a film of fame rank r weighs (r + 3)^-popularity
    sharpness: float = 5.0  # how closely recommendations follow the taste (0: fame alone)
    intuition: float = 0.2  # weight of taste not yet said; at 0 words would tell all there is
    miss: float = 0.1  # recommendations that ignore the taste, as people's do
    repeat: float = 0.12  # recommendations of a film already named
    talkativeness: float = 1.0  # scales rounds, explanations and small talk
    noise: float = 0.055  # slips per word of the average typist
    change: float = 0.12  # seekers who change their mind on the way
    theme_films: int = 24  # themes of fewer films are nobody's taste: too rare to be learned
    person_films: int = 7  # the same for people
    habit: float = 2.0  # the k-th name of a theme or genre is said (1 + k)^-habit as often
    drift: float = 0.6  # films named by the seeker that fit the person, but not today's mood
    openness: int = 3  # most parts of a taste that a seeker says at once
    visits: float = 3.0  # mean dialogues per seeker
    cold: int = 30  # films that only test dialogues may name


@dataclass
class Seeker:
    """A person: weights of features liked (+) and disliked (-), and what they watched, in order."""

    id: int
    split: str
    taste: dict[int, float]  # column of `World.features` -> weight
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Simulation:
    """`dialogues` by split in ReDial's raw schema; the rest is what they came from."""

    dialogues: dict[str, list[dict[str, Any]]]
    seekers: list[Seeker]
    oracle: list[dict[str, Any]]  # conversation, turn, movie, rank under p (1 is best)


class World:
    """The films as a simulator sees them: features (N, K) and fame weights (N,).

    Args:
        catalogue: N films.
        folder: holds `themes.json` (tags and fame of every film) and `grammar.json`.
    """

    def __init__(self, catalogue: Catalogue, folder: str | Path, knobs: Knobs) -> None:
        hidden = json.loads((Path(folder) / "themes.json").read_text(encoding="utf-8"))
        grammar = (Path(folder) / "grammar.json").read_text(encoding="utf-8")
        self.grammar: dict[str, list[str]] = json.loads(grammar)
        self.catalogue, self.knobs = catalogue, knobs
        films = [hidden["films"][movie.id] for movie in catalogue]
        self.fame = (np.array([f["fame"] for f in films]) + 3.0) ** -knobs.popularity
        described = [_describe(m, f["themes"]) for m, f in zip(catalogue, films, strict=True)]
        every = [name for names in described for name in names]
        least = {"genre": 5, "theme": knobs.theme_films, "person": knobs.person_films, "era": 1}
        self.names = sorted(
            name for name in set(every) if every.count(name) >= least[name.split(":")[0]]
        )
        column = {name: k for k, name in enumerate(self.names)}
        self.features = np.zeros((len(catalogue), len(column)))
        for j, names in enumerate(described):
            self.features[j, [column[name] for name in names if name in column]] = 1.0
        self.kind = [name.split(":")[0] for name in self.names]
        self.words = [
            hidden["phrases"][value] if kind == "theme" else self.grammar.get(name, [value])
            for name in self.names
            for kind, value in [name.split(":", 1)]
        ]
        self.pieces = [pieces(movie.plot) for movie in catalogue]

    def utility(self, weights: dict[int, float]) -> np.ndarray:
        """(N,) how well each film fits weighted features."""
        columns = list(weights)
        return self.features[:, columns] @ np.array([weights[k] for k in columns])


def _describe(movie: Movie, themes: Sequence[str]) -> list[str]:
    year = movie.year or 0
    return [
        *(f"genre:{g}" for g in movie.genres),
        *(f"theme:{t}" for t in themes),
        *(f"person:{p}" for p in dict.fromkeys(movie.actors + movie.directors)),
        "era:old" if year < 1990 else "era:middle" if year < 2007 else "era:new",
    ]


_WEIGHT = {"genre": 1.0, "theme": 1.5, "person": 1.5, "era": 0.7}


class _Speaker:
    """Draws that seekers and recommenders share, from one generator each for words and films."""

    def __init__(self, world: World, shown: np.ndarray, seed: Sequence[int]) -> None:
        self.world, self.knobs, self.shown = world, world.knobs, shown
        self.rng = random.Random(repr(tuple(seed)))
        self.np = np.random.default_rng(seed)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def draw(self, p: np.ndarray) -> int:
        return int(self.np.choice(len(p), p=p / p.sum()))

    def fitting(self, weights: dict[int, float]) -> np.ndarray:
        """(N,) unnormalised: fame times how well a film fits, hidden films left out."""
        fit = np.exp(self.knobs.sharpness * self.world.utility(weights)) if weights else 1.0
        return self.world.fame * fit * self.shown

    def enjoys(self, row: int, weights: dict[int, float]) -> bool:
        u = self.world.utility(weights)[row] if weights else 0.0
        return self.chance(float(1 / (1 + np.exp(-1.6 * (u - 0.9)))))

    def features_of(self, row: int, *kinds: str) -> list[int]:
        columns = np.flatnonzero(self.world.features[row])
        return [int(k) for k in columns if self.world.kind[k] in kinds]


def make_seeker(world: World, shown: np.ndarray, number: int, split: str, seed: int) -> Seeker:
    """A taste grown from two films somebody might love, and a past that fits it."""
    s = _Speaker(world, shown, [seed, 1, number])
    taste: dict[int, float] = {}
    for _ in range(2):
        anchor = s.draw(s.fitting({}))
        for kind, most in (("genre", 2), ("theme", 2), ("person", 1), ("era", 1)):
            options = s.features_of(anchor, kind)
            s.rng.shuffle(options)
            for k in options[: s.rng.randint(int(kind in ("genre", "theme")), most)]:
                taste[k] = _WEIGHT[kind]
    genres = [k for k, kind in enumerate(world.kind) if kind in ("genre", "theme")]
    for k in s.rng.sample(genres, 2):
        taste.setdefault(k, -1.5)
    seeker = Seeker(number, split, taste)
    p = 0.7 * _normal(s.fitting(taste)) + 0.3 * _normal(s.fitting({}))
    for row in s.np.choice(len(p), size=6 + int(s.np.poisson(8)), replace=False, p=p):
        liked = s.enjoys(int(row), taste)
        seeker.history.append({"row": int(row), "liked": liked, "conversation": None})
    return seeker


def _normal(p: np.ndarray) -> np.ndarray:
    total = p.sum()
    return p / total if total else p


class _Conversation(_Speaker):
    """One dialogue, turn by turn; `run` returns it in ReDial's raw schema."""

    def __init__(
        self, world: World, shown: np.ndarray, seeker: Seeker, number: int, seed: int
    ) -> None:
        super().__init__(world, shown, [seed, 2, number])
        self.seeker, self.number = seeker, number
        self.typist = {r: Typist(self.knobs.noise, self.rng) for r in ("seeker", "recommender")}
        self.turns: list[tuple[str, list[str]]] = []
        self.named: dict[int, dict[str, int]] = {}  # row -> ReDial's form: suggested, seen, liked
        self.oracle: list[dict[str, Any]] = []
        self.known: set[int] = set()  # columns of the mood that have been said or shown
        self.mood = self.new_mood()

    def new_mood(self) -> dict[int, float]:
        """The part of the taste that matters today; dislikes always do."""
        taste = self.seeker.taste
        mood = {k: w for k, w in taste.items() if w < 0}
        for kind, most in (("genre", 1), ("theme", 2), ("person", 1), ("era", 1)):
            options = [k for k, w in taste.items() if w > 0 and self.world.kind[k] == kind]
            self.rng.shuffle(options)
            least = int(kind in ("genre", "theme"))
            for k in options[: self.rng.randint(least, most)]:
                mood[k] = taste[k]
        return mood

    # -- words ------------------------------------------------------------------------------------

    def say(self, role: str, symbol: str, *rows: int, taste: int | None = None) -> None:
        """Add a sentence to the turn of `role`, which begins if it is not under way."""
        world, rng = self.world, self.rng
        about = rows[0] if rows else self.draw(self.fitting(self.mood))
        movie = world.catalogue[about]
        people = rng.sample(movie.actors + movie.directors, 2)
        slots = {
            "piece": lambda: recall(world.pieces[about], rng),
            "clause": lambda: clause(movie.plot),
            "person": lambda: people[0],
            "person2": lambda: people[1],
            "taste": lambda: self.word(taste or 0),
        }
        for name, row in zip(("film", "film2"), rows, strict=False):
            slots[name] = lambda row=row: f"@{world.catalogue[row].id}"
        text = expand(f"{{{symbol}}}", world.grammar, slots, rng)
        if not self.turns or self.turns[-1][0] != role:
            self.turns.append((role, []))
        self.turns[-1][1].append(text)

    def word(self, column: int) -> str:
        """What a part of the taste is called: some names are more common than others."""
        words = self.world.words[column]
        (chosen,) = self.rng.choices(words, [(1 + k) ** -self.knobs.habit for k in range(len(words))])
        return chosen

    def name(self, row: int, by: str, seen: int, liked: int) -> None:
        form = self.named.setdefault(row, {"suggested": int(by == "recommender")})
        form.update(seen=seen, liked=liked)

    # -- the seeker -------------------------------------------------------------------------------

    def reveal(self, most: int) -> None:
        """Say up to `most` parts of the mood that nobody has heard, else name a film."""
        hidden = [k for k, w in self.mood.items() if k not in self.known and w > 0]
        self.rng.shuffle(hidden)
        for n, k in enumerate(hidden[: self.rng.randint(1, most)]):
            symbol = "and" if n and self.chance(0.5) else f"request:{self.world.kind[k]}"
            self.say("seeker", symbol, taste=k)
            self.known.add(k)
        if not hidden or self.chance(0.55):
            self.name_liked()
        bad = [k for k, w in self.mood.items() if k not in self.known and w < 0]
        if bad and self.chance(0.15):
            self.say("seeker", f"refuse:{self.world.kind[bad[0]]}", taste=bad[0])
            self.known.add(bad[0])
        if self.chance(0.12):
            p = self.fitting({k: -w for k, w in self.mood.items()})
            p[list(self.named)] = 0
            row = self.draw(p)
            self.say("seeker", "disliked", row)
            self.name(row, "seeker", 1, 0)

    def name_liked(self) -> None:
        p = self.fitting(self.seeker.taste if self.chance(self.knobs.drift) else self.mood)
        p[list(self.named)] = 0
        rows = [self.draw(p)]
        if self.chance(0.3):
            p[rows[0]] = 0
            rows.append(self.draw(p))
        self.say("seeker", "liked" if len(rows) == 1 else "liked2", *rows)
        for row in rows:
            self.name(row, "seeker", 1, 1)
            self.infer(row)

    def infer(self, row: int) -> None:
        """A listener guesses from a film somebody likes what they like about it."""
        self.known |= {k for k in self.mood if self.world.features[row, k] and self.chance(0.5)}

    def react(self, row: int) -> bool:
        """The seeker's answer to a recommendation; True ends the search."""
        likes = self.enjoys(row, self.mood)
        watched = [h for h in self.seeker.history if h["row"] == row]
        fame = self.world.fame[row] / self.world.fame.max()
        if watched or self.chance(0.25 + 0.35 * fame):
            likes = watched[-1]["liked"] if watched else likes
            self.say("seeker", "seen:liked" if likes else "seen:disliked", row)
            self.name(row, "recommender", 1, int(likes))
            self.remember(row, likes)
            if likes:
                self.infer(row)
            if self.chance(0.4):
                self.reveal(1)
            else:
                self.say("seeker", "more", row)
            return False
        if self.chance(0.4 * self.knobs.talkativeness):
            self.say("seeker", "unseen", row)
            self.say("recommender", "tell", row)
        self.name(row, "recommender", 0, int(likes))
        if likes:
            self.say("seeker", "accept", row)
            self.remember(row, self.chance(0.85))
            if self.chance(0.45):
                return True
            self.say("seeker", "more", row)
            return False
        bad = [k for k in self.mood if self.mood[k] < 0 and self.world.features[row, k]]
        if bad:
            self.say("seeker", f"refuse:{self.world.kind[bad[0]]}", row, taste=bad[0])
            self.known.add(bad[0])
        else:
            self.say("seeker", "refuse", row)
        if self.chance(0.6):
            self.reveal(1)
        return False

    def remember(self, row: int, liked: bool) -> None:
        self.seeker.history.append({"row": row, "liked": liked, "conversation": self.number})

    # -- the recommender --------------------------------------------------------------------------

    def p(self) -> np.ndarray:
        """(N,) the distribution the next recommendation is drawn from."""
        heard = {
            k: w * (1.0 if k in self.known else self.knobs.intuition) for k, w in self.mood.items()
        }
        new, any_film = self.fitting(heard), self.fitting({})
        again = np.zeros(len(new))
        for row, form in self.named.items():
            new[row] = any_film[row] = 0
            again[row] = float(form["liked"])
        repeat = self.knobs.repeat if again.any() else 0.0
        rest = (1 - repeat - self.knobs.miss) * _normal(new)
        return rest + self.knobs.miss * _normal(any_film) + repeat * _normal(again)

    def recommend(self) -> list[int]:
        rows: list[int] = []
        for _ in range(1 + self.chance(0.3)):
            p = self.p()
            p[rows] = 0
            rows.append(self.draw(p))
            rank = 1 + int((p > p[rows[-1]]).sum())
            self.oracle.append({"turn": len(self.turns), "row": rows[-1], "rank": rank})
        again = len(rows) == 1 and rows[0] in self.named
        self.say("recommender", "recommend:again" if again else
                 "recommend" if len(rows) == 1 else "recommend2", *rows)  # fmt: skip
        if self.chance(0.33 * self.knobs.talkativeness):
            fits = [k for k in self.known if self.mood.get(k, 0) > 0
                    and self.world.features[rows[0], k]]  # fmt: skip
            if fits and self.chance(0.55):
                k = self.rng.choice(fits)
                self.say("recommender", f"why:{self.world.kind[k]}", rows[0], taste=k)
            else:
                self.say("recommender", self.rng.choice(("why:plot", "why:plain")), rows[0])
        return rows

    # -- the whole --------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        talk = self.knobs.talkativeness
        first, second = self.rng.choice((("seeker", "recommender"), ("recommender", "seeker")))
        self.say(first, "hello")
        if second == "seeker":
            self.say(first, "offer")
        elif self.chance(0.6):
            self.say(second, self.rng.choice(("hello", "fine")))
            self.say(second, "offer")
        if self.chance(0.3):
            self.say("seeker", "fine" if second == "seeker" else "talk")
        self.reveal(self.knobs.openness)
        asked = False
        for _ in range(2 + int(self.np.poisson(2.5 * talk))):
            if not asked and self.chance(0.25):
                self.say("recommender", "ask")
                self.reveal(1)
                asked = True
                continue
            asked = False
            rows = self.recommend()
            for row in rows[:-1]:
                self.name(row, "recommender", 0, int(self.enjoys(row, self.mood)))
            if self.react(rows[-1]):
                break
            if self.chance(0.1 * talk):
                self.say("seeker", "talk")
                self.say("recommender", "talkback")
                self.say("seeker", "more")
            if self.chance(self.knobs.change / 2):
                self.say("seeker", "change")
                self.mood, self.known = self.new_mood(), set()
                self.reveal(self.knobs.openness)
        self.say("seeker", "thanks")
        self.say("recommender", "bye")
        if self.chance(0.6):
            self.say("seeker", "bye2")
        return self.record()

    def record(self) -> dict[str, Any]:
        world = self.world
        ids = {row: world.catalogue[row].id for row in self.named}
        forms = {ids[row]: form for row, form in sorted(self.named.items())}
        workers = {"seeker": self.seeker.id, "recommender": 100_000 + self.number % 97}
        return {
            "conversationId": str(self.number),
            "initiatorWorkerId": workers["seeker"],
            "respondentWorkerId": workers["recommender"],
            "movieMentions": {ids[r]: world.catalogue[r].name for r in sorted(self.named)},
            "initiatorQuestions": forms,
            "respondentQuestions": forms,
            "messages": [
                {"messageId": k, "timeOffset": 20 * k, "senderWorkerId": workers[role],
                 "text": self.typist[role].type(" ".join(parts))}
                for k, (role, parts) in enumerate(self.turns)
            ],
        }  # fmt: skip


def simulate(
    catalogue: Catalogue,
    folder: str | Path,
    n: dict[str, int],
    knobs: Knobs | None = None,
    seed: int = 0,
) -> Simulation:
    """Simulate `n` dialogues per split, each split with seekers of its own.

    Args:
        catalogue: N films.
        folder: holds `themes.json` and `grammar.json`, as `data/minireel` does.
        n: number of dialogues by split, in the order they are numbered.
        seed: equal seeds give equal corpora.

    Raises:
        ValueError: fewer films than would be hidden, or a number below 0.
    """
    knobs = knobs or Knobs()
    if not 0 <= knobs.cold < len(catalogue):
        raise ValueError(f"cold={knobs.cold} of {len(catalogue)} films")
    if min(n.values()) < 0:
        raise ValueError(f"numbers of dialogues must not be negative: {n}")
    world = World(catalogue, folder, knobs)
    warm = np.ones(len(catalogue))
    warm[np.random.default_rng([seed, 0]).choice(len(catalogue), knobs.cold, replace=False)] = 0
    dialogues: dict[str, list[dict[str, Any]]] = {}
    seekers: list[Seeker] = []
    oracle: list[dict[str, Any]] = []
    number = 0
    for split, many in n.items():
        shown = np.ones_like(warm) if split == "test" else warm
        dialogues[split] = []
        while len(dialogues[split]) < many:
            seeker = make_seeker(world, shown, len(seekers), split, seed)
            seekers.append(seeker)
            visits = 1 + int(np.random.default_rng([seed, 3, seeker.id]).poisson(knobs.visits - 1))
            for _ in range(min(visits, many - len(dialogues[split]))):
                conversation = _Conversation(world, shown, seeker, number, seed)
                dialogues[split].append(conversation.run())
                oracle += [
                    {"conversation": str(number), "turn": o["turn"],
                     "movie": catalogue[o["row"]].id, "rank": o["rank"]}
                    for o in conversation.oracle
                ]  # fmt: skip
                number += 1
    return Simulation(dialogues, seekers, oracle)
