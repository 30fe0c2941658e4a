"""MiniReel's dialogues: simulated seekers with a hidden taste, and recommenders who find it out.

Beside the flow: it makes the bundled data set that the readers read. A seeker has a hidden taste
over genres, plot themes, people and eras, which shows only in what they say and like; a
recommender draws films by the part of the taste that has been said, with some intuition for the
rest. `world` has the films and the tastes, `conversation` the talk, `grammar` the words.

The distribution p that a recommendation is drawn from is known, so the rank of the film under p is
that of an oracle, which knows the hidden taste and the recommender's habits (`Simulation.oracle`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pecrs_lib.data.schema import Catalogue
from pecrs_lib.simulator.conversation import Conversation
from pecrs_lib.simulator.world import Knobs, Seeker, World, make_seeker

FEWEST = 100  # films that a seeker's past and present need to choose from


@dataclass(frozen=True)
class Simulation:
    """`dialogues` by split in ReDial's raw schema; the rest is what they came from."""

    dialogues: dict[str, list[dict[str, Any]]]
    seekers: list[Seeker]
    oracle: list[dict[str, Any]]  # conversation, turn, movie, rank under p (1 is best)


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
    if not 0 <= knobs.cold <= len(catalogue) - FEWEST:
        raise ValueError(
            f"cold={knobs.cold} of {len(catalogue)} films; at least {FEWEST} must be left"
        )
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
                conversation = Conversation(world, shown, seeker, number, seed)
                dialogues[split].append(conversation.run())
                oracle += [
                    {"conversation": str(number), "turn": o["turn"],
                     "movie": catalogue[o["row"]].id, "rank": o["rank"]}
                    for o in conversation.oracle
                ]  # fmt: skip
                number += 1
    return Simulation(dialogues, seekers, oracle)
