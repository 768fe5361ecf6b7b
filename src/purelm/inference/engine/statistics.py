"""What an engine has done, in numbers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Statistics:
    """One moment's numbers; counts are since the engine was made.

    running, waiting: requests now. slots: the most that run at once. pages_used: held by running requests;
    pages_cached: kept for reuse, given up when needed; pages_free: neither (a recurrent network has no pages: all 0).
    prompt_tokens: of admitted requests; reused_tokens: of those (and of later windows), spared by prefix reuse;
    generated_tokens: drawn and reported. prefills: calls of a prefill program; rounds: of the decode program; steps:
    tokens a row in those rounds. seconds_per_step: lately, of one step of all rows; 0 before the first. finished:
    requests by reason.
    """

    running: int
    waiting: int
    slots: int
    pages_used: int
    pages_cached: int
    pages_free: int
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    prefills: int
    rounds: int
    steps: int
    seconds_per_step: float
    finished: dict[str, int]
