"""Figures draw the data they are given."""

from __future__ import annotations

import numpy as np
import pytest

from pecrs_lib.figures import bands_figure, dots_figure, dots_table
from pecrs_lib.figures.diagrams import KINDS, lines_figure, map_figure, token_strip


def test_dots_stand_at_their_values() -> None:
    cells = [{"value": 3.0, "low": 1.0, "high": 4.0}, {"value": None}, {"value": 5.0}]
    figure = dots_figure(["a", "b", "c"], {"x": {"s": cells, "t": cells}, "y": {"s": cells}})
    left, right = figure.axes
    for container in (*left.containers, *right.containers):
        line, _, (bars,) = container
        assert line.get_xdata().tolist() == [3.0, 5.0]
        assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[1, 4], [5, 5]]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["s", "t"]
    assert not dots_figure(["a"], {"x": {"s": cells[:1]}}).legends  # nothing to tell apart


def test_the_table_holds_what_the_dots_show() -> None:
    cells = [{"value": 3.04, "low": 1.0, "high": 4.0}, {"value": None}, {"value": 5.0}]
    table = dots_table(["a", "b", "c"], {"x": {"": cells}})
    assert table["x"].to_dict() == {"a": "3.0 [1.0, 4.0]", "b": "–", "c": "5.0"}
    two = dots_table(["a", "b", "c"], {"x": {"s": cells, "t": cells}})
    assert list(two.columns) == [("x", "s"), ("x", "t")]


def test_bands_add_up_and_the_last_is_hatched() -> None:
    shares = {
        "a": {"top": 20.0, "rest": 50.0, "none": 30.0},
        "b": {"top": 0, "rest": 0, "none": 100},
    }
    (ax,) = bands_figure(shares, "share (%)").axes
    ends = [bar.get_x() + bar.get_width() for bar in ax.containers[-1]]
    assert ends == pytest.approx([100, 100])
    hatched = [bool(container[0].get_hatch()) for container in ax.containers]
    assert hatched == [False, False, True]
    shades = [container[0].get_facecolor()[0] for container in ax.containers]
    assert shades == sorted(shades)  # dark to light: legible in greyscale


def test_kinds_of_tokens_differ_without_colour_and_the_legend_has_those_that_occur() -> None:
    hatches = [hatch for _, hatch in KINDS.values()]
    assert len(set(hatches)) == len(KINDS)
    figure = token_strip(["<|endoftext|>", "Extraordinarily", "Ġfilms"], ["marker", "word", "word"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["word", "marker"]
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["<eos>", "0", "Extraordi…", "1", "films", "2"]
    with pytest.raises(ValueError, match="3 tokens, but 1 kinds"):
        token_strip(["a", "b", "c"], ["word"])


def test_names_on_a_map_stand_below_one_another_in_the_order_of_their_points() -> None:
    points = [(0.0, 0.0), (0.01, 0.01), (0.02, 0.0), (5.0, 5.0)]
    (ax,) = map_figure(points, ["a", "a", "b", "b"], {0: "low", 1: "middle", 3: "high"}).axes
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert heights["high"] > heights["middle"] > heights["low"]
    assert min(-np.diff(sorted(heights.values(), reverse=True))) > 0.1


def test_a_marked_place_is_drawn_and_named() -> None:
    (ax,) = lines_figure([1, 2, 3], {"a": [3, 2, 1]}, "x", "y", mark=("chosen", 2)).axes
    assert [line.get_label() for line in ax.lines] == ["a", "chosen"]
    assert list(ax.lines[1].get_xdata()) == [2, 2]
