"""Check cells: the notebooks' exercises say whether an answer is right, and how to go on if not.

Beside the flow; used by the notebooks only.
"""

from __future__ import annotations

import math
from typing import Any

OPEN = "Not answered yet: put your answer in place of the three dots."


def check(answer: Any, right: Any, hint: str = "Look again.") -> str:
    """What to tell the reader about an answer.

    Args:
        answer: the reader's; ``...`` while there is none. A function may be asked for: then
            `right` tests it.
        right: the value (whole numbers exactly, others within 1 %, also of NumPy and of tensors; a
            list may stand for a tuple), or a function that tells whether an answer is right.
        hint: for a wrong answer.
    """
    if answer is ...:
        return OPEN
    try:
        ok = right(answer) if callable(right) else _equal(answer, right)
    except Exception as error:  # the reader's own code may do anything; it must not end the lesson
        if type(error) is NameError:
            hint = "Run the cells above first; if they have run, look for a slip in the name."
        return f"This raises {type(error).__name__}: {error}. {hint}"
    return "Right." if ok else f"Not yet: {_form(_plain(answer), _plain(right)) or hint}"


def _form(answer: Any, right: Any) -> str | None:
    """What is wrong with how a number is given, where that is all: its type, unit or digits."""
    if type(right) not in (int, float):
        return None
    if isinstance(answer, str):
        return "give a number, without quotation marks."
    if type(answer) not in (int, float) or not right:
        return None
    if any(math.isclose(answer, right * x, rel_tol=0.01) for x in (0.01, 100)):
        return "this is a factor of 100 away: in percent?"
    if type(right) is float and math.isclose(answer, right, rel_tol=0.05):
        return "close, but give more digits."
    return None


def _equal(answer: Any, right: Any) -> bool:
    answer, right = _plain(answer), _plain(right)
    kinds = {type(answer), type(right)}
    if float in kinds and kinds <= {int, float}:
        return math.isclose(answer, right, rel_tol=0.01, abs_tol=1e-9)
    if bool in kinds and len(kinds) > 1:  # yes is no number
        return False
    if kinds == {tuple}:
        return len(answer) == len(right) and all(map(_equal, answer, right))
    return bool(answer == right)


def _plain(value: Any) -> Any:
    """A number or tuple of Python for one of NumPy, a tensor of one number, or a list."""
    if getattr(value, "shape", None) == ():
        return value.item()
    return tuple(value) if isinstance(value, list) else value
