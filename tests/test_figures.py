"""Figures draw the data they are given."""

from __future__ import annotations

import pytest

from pecrs_lib.figures import bands_figure, dots_figure, dots_table


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
