"""How many steps a round has: few enough that streams stay smooth, enough that the host is not in the way."""

from __future__ import annotations

from purelm.inference.engine.programs import MAX_STEPS

# Of a round: short for a reader, long beside what the host does between two.
_ROUND_SECONDS = 0.025
# Of the newest round in the running mean.
_WEIGHT = 0.2


class Pace:
    """seconds_per_step: lately, of one step of all rows; 0 before the first."""

    def __init__(self) -> None:
        self.seconds_per_step = 0.0

    def measured(self, seconds: float, steps: int) -> None:
        """Tells how long a round took."""
        new = seconds / steps
        old = self.seconds_per_step or new
        self.seconds_per_step = (1 - _WEIGHT) * old + _WEIGHT * new

    def steps(self) -> int:
        """Steps of the next round, where nothing else limits it."""
        if not self.seconds_per_step:
            return 1
        return min(max(round(_ROUND_SECONDS / self.seconds_per_step), 1), MAX_STEPS)
