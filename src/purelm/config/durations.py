"""Durations: "100" (steps), "2 epochs", "1e6 tokens" or "5%" of the run, resolved to steps once."""

from __future__ import annotations

import math
import re

from purelm.errors import UserError

_PATTERN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(steps?|epochs?|tokens?|%|percent)?\s*", re.IGNORECASE)


def parse_duration(text: str, where: str) -> tuple[float, str]:
    """(amount, unit), unit one of "steps", "epochs", "tokens", "%".

    Raises:
      UserError: `text` is not a duration; `where` names its field.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise UserError(f"{where}: '{text}' is not a duration; write 100, '2 epochs', '1e6 tokens' or '5%'")
    amount, unit = float(match[1]), (match[2] or "steps").lower()
    unit = {"percent": "%", "%": "%"}.get(unit) or unit.rstrip("s") + "s"
    if unit == "steps" and amount != int(amount):
        raise UserError(f"{where}: '{text}' is not a whole number of steps")
    return amount, unit


def to_steps(amount: float, unit: str, *, tokens_per_step: int, tokens_per_epoch: int, num_steps: int | None) -> int:
    """A duration in steps, rounded up so that a positive duration is at least one step."""
    if unit == "%":
        assert num_steps is not None
        return math.ceil(amount * num_steps / 100)
    if unit == "steps":
        return int(amount)
    tokens = amount * tokens_per_epoch if unit == "epochs" else amount
    return math.ceil(tokens / tokens_per_step)
