"""Check cells say whether an answer is right, and never end the lesson."""

from __future__ import annotations

import math

import numpy as np
import torch

from pecrs_lib.exercises import OPEN, check


def test_answers_are_judged():
    assert check(..., 3) == OPEN
    assert check(3, 3) == "Right."
    assert check(3.001, 3) == "Right." and check(3.2, 3).startswith("Not yet")
    assert check((600, 128), (600, 128)) == "Right."
    assert check("a", "b", "think") == "Not yet: think"
    assert check(0, 0) == "Right." and check(1, 0).startswith("Not yet")


def test_functions_are_tried():
    assert check(lambda x: x + 1, lambda f: f(1) == 2) == "Right."
    told = check(lambda x: 1 / 0, lambda f: f(1) == 2, "try again")
    assert told.startswith("This raises ZeroDivisionError") and told.endswith("try again")
    assert check(5, lambda f: f(1) == 2).startswith("This raises TypeError")


def test_what_means_the_same_is_right():
    assert check([600, 256], (600, 256)) == "Right." and check((600, 255), (600, 256)) != "Right."
    assert check((1.0, "a"), (1.001, "a")) == "Right." and check((1,), (1, 2)) != "Right."
    for six in (np.float32(math.log(6)), torch.tensor(math.log(6)), np.array(math.log(6))):
        assert check(six, math.log(6)) == "Right." and check(six, 1.7) != "Right."
    assert check(True, 1) != "Right."


def test_the_form_of_a_number_is_told_from_its_value():
    quoted = "Not yet: give a number, without quotation marks."
    assert check("33", 33, "count") == quoted == check("1.39", math.log(4), "count")
    assert check("33", "34", "count") == "Not yet: count"
    close = "Not yet: close, but give more digits."
    assert check(1.4, math.log(4)) == "Right." and check(1.35, math.log(4)) == close
    assert check(torch.tensor(1.35), np.float32(math.log(4))) == close
    assert check(101, 100, "count") == "Not yet: count"  # whole numbers are exact
    for share in (0.305, 0.3, 3050.0):
        told = check(share, 30.5, "count")
        assert told.startswith("Not yet: this is a factor of 100") == (share != 0.3), told
    assert check(1, 100, "count").endswith("in percent?") and check(1, 0, "no") == "Not yet: no"


def test_a_missing_name_is_told():
    told = check(5, lambda answer: answer == not_there, "think")  # noqa: F821
    assert "name 'not_there' is not defined. Run the cells above first" in told
    assert "think" not in told
