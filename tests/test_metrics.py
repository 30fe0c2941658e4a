"""Metrics at their limits, against values worked by hand, and the bootstrap against a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pecrs_lib import metrics
from pecrs_lib.metrics import (
    bootstrap_means,
    distinct_n,
    item_f1,
    perplexity,
    recall_at_k,
    rouge,
    unique_items,
)


class TestRecall:
    def test_limits(self) -> None:
        assert recall_at_k([1, 1, 1], 1) == 100
        assert recall_at_k([2, 2, 2], 1) == 0
        assert recall_at_k([math.inf, math.inf], 10**9) == 0

    def test_by_hand(self) -> None:
        ranks = [1, 10, 11, math.inf]
        assert [recall_at_k(ranks, k) for k in (1, 9, 10, 11, 50)] == [25, 25, 50, 75, 75]

    @pytest.mark.parametrize("ranks", [[], [[1, 2]], [1, math.nan], [0, 1]])
    def test_bad_ranks_raise(self, ranks: list[float]) -> None:
        with pytest.raises(ValueError, match="ranks"):
            recall_at_k(ranks, 1)

    def test_bad_k_raises(self) -> None:
        with pytest.raises(ValueError, match="got 0"):
            recall_at_k([1], 0)


def test_unique_items() -> None:
    assert unique_items([4, 4, 4]) == 1
    assert unique_items([3, 1, 2, 1]) == 3
    assert unique_items([]) == 0
    assert unique_items([-1, 2, -1]) == 1


class TestRouge:
    def test_limits(self) -> None:
        assert rouge(["a great film"], ["a great film"]) == {"rouge1": 100, "rouge2": 100}
        assert rouge(["nothing shared"], ["a great film"]) == {"rouge1": 0, "rouge2": 0}
        assert rouge(["", "."], ["a great film", "a film"]) == {"rouge1": 0, "rouge2": 0}

    def test_by_hand(self) -> None:
        # 2 of 3 and 2 of 4 words: P 2/3, R 1/2, F 4/7; 1 of 2 and 1 of 3 bigrams: F 2/5.
        one = rouge(["red car drives"], ["the red car stops"])
        assert one["rouge1"] == pytest.approx(100 * 4 / 7)
        assert one["rouge2"] == pytest.approx(100 * 2 / 5)
        two = rouge(["red car drives", "yes"], ["the red car stops", "yes"])
        assert two["rouge1"] == pytest.approx((100 * 4 / 7 + 100) / 2)
        assert two["rouge2"] == pytest.approx(100 * 2 / 5 / 2)  # one word has no bigram

    def test_stems_and_ignores_case(self) -> None:
        assert rouge(["Loved MOVIES"], ["loving movie"])["rouge2"] == 100

    def test_f_measure_is_symmetric_precision_is_not(self) -> None:
        long, short = ["red car red car drives on"], ["red car"]
        assert rouge(long, short) == rouge(short, long)
        assert rouge(long, short)["rouge1"] == pytest.approx(100 * 2 * 2 / (6 + 2))

    @pytest.mark.parametrize(("a", "b"), [([], []), (["x"], []), (["x"], ["x", "y"])])
    def test_lengths_must_agree(self, a: list[str], b: list[str]) -> None:
        with pytest.raises(ValueError, match=f"got {len(a)} and {len(b)}"):
            rouge(a, b)


class TestDistinct:
    replies = ("i like it", "i like films", "yes")

    def test_by_hand(self) -> None:
        # bigrams: i-like (twice), like-it, like-films: 3 distinct of 4, over 3 replies.
        assert distinct_n(self.replies, 2, per="sentence") == 3 / 3
        assert distinct_n(self.replies, 2, per="ngram") == 3 / 4
        assert distinct_n(self.replies, 1, per="sentence") == 5 / 3  # more than 1
        assert distinct_n(self.replies, 1, per="ngram") == 5 / 7

    def test_limits(self) -> None:
        assert distinct_n(["a b c d"], 2, per="ngram") == 1
        assert distinct_n(["a a a a a"] * 20, 2, per="ngram") == 1 / 80
        assert distinct_n(["a a a a a"] * 20, 2, per="sentence") == 1 / 20

    def test_no_ngram_crosses_two_replies(self) -> None:
        assert distinct_n(["a b", "c d"], 2, per="sentence") == 2 / 2
        assert distinct_n(["a", "b"], 2, per="sentence") == 0
        assert math.isnan(distinct_n(["a", ""], 2, per="ngram"))

    def test_tokens_are_as_good_as_strings(self) -> None:
        tokens = [reply.split() for reply in self.replies]
        assert distinct_n(tokens, 2, per="ngram") == distinct_n(self.replies, 2, per="ngram")

    def test_bad_input_raises(self) -> None:
        with pytest.raises(ValueError, match="no replies"):
            distinct_n([], 2, per="ngram")
        with pytest.raises(ValueError, match="got 0"):
            distinct_n(["a"], 0, per="ngram")
        with pytest.raises(ValueError, match="got 'reply'"):
            distinct_n(["a"], 1, per="reply")  # type: ignore[arg-type]


class TestItemF1:
    def test_limits(self) -> None:
        assert item_f1([True, False], [True, False]) == 100
        assert item_f1([True, False], [False, True]) == 0
        assert item_f1([False, False], [True, False]) == 0
        assert math.isnan(item_f1([False, False], [False, False]))

    def test_by_hand(self) -> None:
        # TP 2, FP 1, FN 3: precision 2/3, recall 2/5, F 1/2.
        predicted = [True, True, True, False, False, False, False]
        reference = [True, True, False, True, True, True, False]
        assert item_f1(predicted, reference) == 50
        assert item_f1(reference, predicted) == 50

    def test_bad_input_raises(self) -> None:
        with pytest.raises(ValueError, match="P > 0"):
            item_f1([], [])
        with pytest.raises(ValueError, match="P > 0"):
            item_f1([True], [True, False])
        with pytest.raises(ValueError, match="must be bool"):
            item_f1([1, 0], [True, False])  # type: ignore[list-item]


class TestPerplexity:
    def test_limits(self) -> None:
        assert perplexity(0, 7) == 1  # certain of every token
        assert perplexity(12 * math.log(50_257), 12) == pytest.approx(50_257)  # knows nothing
        assert perplexity(math.inf, 3) == math.inf
        assert perplexity(1e6, 1) == math.inf

    def test_is_one_mean_over_tokens(self) -> None:
        # 1 token at 4 nats and 3 at 0: e^1, while the mean of batch perplexities is far above.
        assert perplexity(4 + 0, 1 + 3) == pytest.approx(math.e)
        assert (perplexity(4, 1) + perplexity(0, 3)) / 2 > 27

    @pytest.mark.parametrize(("nll", "tokens"), [(1.0, 0), (math.nan, 1), (-1.0, 1)])
    def test_bad_input_raises(self, nll: float, tokens: int) -> None:
        with pytest.raises(ValueError, match="got"):
            perplexity(nll, tokens)


class TestBootstrap:
    groups = np.array([7, 7, 7, 2, 5, 5, 9])
    values = np.array([[1, 0], [0, 0], [1, 0], [1, 1], [0, 0], [1, 0], [0, 1]])

    def test_agrees_with_a_slow_loop(self) -> None:
        """The same draws, but every resample is written out point by point."""
        fast = bootstrap_means(self.groups, self.values, samples=200, seed=3)
        generator = np.random.default_rng(3)
        slow = []
        for _ in range(200):
            drawn: list[np.ndarray] = []
            for group, times in zip(
                (2, 5, 7, 9), generator.multinomial(4, [0.25] * 4), strict=True
            ):
                for _ in range(times):
                    drawn += list(self.values[self.groups == group])
            slow.append(np.mean(drawn, axis=0))
        np.testing.assert_allclose(fast, slow, rtol=1e-12)

    def test_agrees_with_drawing_group_by_group(self) -> None:
        """Another generator and no multinomial: mean and spread agree within 5 standard errors."""
        fast = bootstrap_means(self.groups, self.values, samples=20_000, seed=0)[:, 0]
        generator = np.random.default_rng(1)
        sums, sizes = np.array([1, 1, 2, 0]), np.array([1, 2, 3, 1])
        picks = generator.integers(0, 4, size=(20_000, 4))
        slow = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
        tolerance = 5 * slow.std() * math.sqrt(2 / 20_000)
        assert abs(fast.mean() - slow.mean()) < tolerance
        assert abs(fast.std() - slow.std()) < tolerance
        assert slow.std() > 10 * tolerance  # the tolerance says something

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = bootstrap_means(self.groups, self.values, samples=101, seed=0)
        monkeypatch.setattr(metrics, "_CELLS", 4 * 10)
        np.testing.assert_array_equal(
            bootstrap_means(self.groups, self.values, samples=101, seed=0), whole
        )

    def test_one_dialogue_has_no_spread(self) -> None:
        means = bootstrap_means(np.zeros(4, int), np.array([[1], [0], [0], [0]]), 50, seed=0)
        assert (means == 0.25).all()

    def test_no_points_are_nan(self) -> None:
        assert np.isnan(bootstrap_means(np.zeros(0, int), np.zeros((0, 2)), 5, seed=0)).all()

    def test_bad_input_raises(self) -> None:
        for groups, values, samples in (([0], [[1], [1]], 9), ([0], [1], 9), ([0], [[1]], 0)):
            with pytest.raises(ValueError, match="at least one sample"):
                bootstrap_means(np.array(groups), values, samples, seed=0)

    def test_covers_where_points_of_a_dialogue_agree(self) -> None:
        """95 % intervals hold the truth 95 % of the time; drawing points instead, far less."""
        generator = np.random.default_rng(0)
        by_dialogue = by_point = 0
        for _ in range(300):
            sizes = generator.integers(1, 9, size=60)
            chance = generator.choice([0.05, 0.95], p=[0.7, 0.3], size=60)  # mean .32
            groups = np.repeat(np.arange(60), sizes)
            hits = (generator.random(len(groups)) < np.repeat(chance, sizes))[:, None]
            low, high = np.quantile(bootstrap_means(groups, hits, 300, seed=0), (0.025, 0.975))
            by_dialogue += low <= 0.32 <= high
            each = np.arange(len(groups))
            low, high = np.quantile(bootstrap_means(each, hits, 300, seed=0), (0.025, 0.975))
            by_point += low <= 0.32 <= high
        assert 0.90 * 300 <= by_dialogue <= 0.98 * 300
        assert by_point < 0.80 * 300
