"""The one exception that a user's mistake raises; every entry point prints it as one line and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, where, and what would be right."""


def did_you_mean(word: str, choices: Iterable[str], *, lists: bool = True) -> str:
    """`"; did you mean 'x'?"` for the nearest of `choices`, or `"; one of a, b, c"` when none is near and `lists`."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; one of {', '.join(choices)}" if choices and lists else ""
