"""One simulated conversation: who says what next, and what the listener learns from it.

Serves `simulate`. Words come from `grammar`, films and tastes from `world`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pecrs_lib.simulator.grammar import Typist, clause, expand, recall
from pecrs_lib.simulator.world import Seeker, Speaker, World, normal


class Conversation(Speaker):
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
        if people[0] == people[1]:  # somebody who directs and acts
            people[1] = next(name for name in movie.actors if name != people[0])
        slots = {
            "piece": lambda: recall(world.pieces[about], rng),
            "clause": lambda: clause(movie.plot),
            "person": lambda: people[0],
            "person2": lambda: people[1],
            "taste": lambda: self.word(taste or 0),
        }
        for name, row in zip(("film", "film2"), rows, strict=False):
            slots[name] = partial(str, f"@{world.catalogue[row].id}")
        text = expand(f"{{{symbol}}}", world.grammar, slots, rng)
        if not self.turns or self.turns[-1][0] != role:
            self.turns.append((role, []))
        self.turns[-1][1].append(text)

    def word(self, column: int) -> str:
        """What a part of the taste is called: some names are more common than others."""
        words = self.world.words[column]
        (chosen,) = self.rng.choices(
            words, [(1 + k) ** -self.knobs.habit for k in range(len(words))]
        )
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
        rest = (1 - repeat - self.knobs.miss) * normal(new)
        return rest + self.knobs.miss * normal(any_film) + repeat * normal(again)

    def recommend(self) -> list[int]:
        rows: list[int] = []
        for _ in range(1 + self.chance(0.3)):
            p = self.p()
            p[rows] = 0
            rows.append(self.draw(p))
            rank = 1 + int((p > p[rows[-1]]).sum() + (p[: rows[-1]] == p[rows[-1]]).sum())
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
