"""How much is asked of the device at once: little, so that streams stay smooth, but more than the host's own work."""

from __future__ import annotations

from purelm.inference.engine.programs import MAX_STEPS

# Of a round: short for a reader, long beside what the host does between two.
_ROUND_SECONDS = 0.025
# Of the newest round in the running mean.
_WEIGHT = 0.2


class Pace:
    """seconds_per_step: lately, of one step of all rows; seconds_per_token: of one that a prefill reads, padding
    included. 0 before the first."""

    def __init__(self) -> None:
        self.seconds_per_step = 0.0
        self.seconds_per_token = 0.0

    def measured(self, seconds: float, steps: int) -> None:
        """Tells how long a round took."""
        self.seconds_per_step = _mean(self.seconds_per_step, seconds / steps)

    def measured_prefill(self, seconds: float, tokens: int) -> None:
        """Tells how long a prefill took."""
        self.seconds_per_token = _mean(self.seconds_per_token, seconds / tokens)

    def steps(self) -> int:
        """Steps of the next round, where nothing else limits it."""
        if not self.seconds_per_step:
            return 1
        return min(max(round(_ROUND_SECONDS / self.seconds_per_step), 1), MAX_STEPS)

    def reads_on(self, tokens: int) -> bool:
        """Whether another prefill may follow those that read so many tokens, before the next round."""
        return 0 < tokens * self.seconds_per_token < _ROUND_SECONDS / 2


def _mean(old: float, new: float) -> float:
    return (1 - _WEIGHT) * (old or new) + _WEIGHT * new
