"""What is kept of a text that is longer than the context (`data.truncation`)."""

from __future__ import annotations

import numpy as np


def truncate(ids_T: np.ndarray, room: int, how: str) -> np.ndarray:
    """At most `room` ids: the start ("head"), the end ("tail"), or half of each ("both").

    Sun et al. (2019, arXiv 1905.05583, section 5.3.1) compare the three on long reviews.
    """
    room = max(room, 0)
    if len(ids_T) <= room:
        return ids_T
    last = {"head": 0, "tail": room, "both": room // 2}[how]
    return np.concatenate([ids_T[:room - last], ids_T[len(ids_T) - last:]])


def truncate_pair(first_T: np.ndarray, second_T: np.ndarray, room: int, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Both within `room` ids together: what one does not need of its half is the other's."""
    half = max(room, 0) // 2
    for_second = min(len(second_T), max(half, room - len(first_T)))
    return truncate(first_T, room - for_second, how), truncate(second_T, for_second, how)
