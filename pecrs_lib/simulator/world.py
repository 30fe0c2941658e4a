"""The films and people of a simulation: what can be liked, who likes it, and how to draw by it.

Serves `simulate`. Themes are tags of the films (`themes.json`) that are no part of the item texts:
dialogues name them in words of their own, and plots show them in others again.
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
from pecrs_lib.simulator.grammar import pieces


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


class Speaker:
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
    s = Speaker(world, shown, [seed, 1, number])
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
    p = 0.7 * normal(s.fitting(taste)) + 0.3 * normal(s.fitting({}))
    for row in s.np.choice(len(p), size=6 + int(s.np.poisson(8)), replace=False, p=p):
        liked = s.enjoys(int(row), taste)
        seeker.history.append({"row": int(row), "liked": liked, "conversation": None})
    return seeker


def normal(p: np.ndarray) -> np.ndarray:
    """p with sum 1, or all zeros."""
    total = p.sum()
    return p / total if total else p
