"""Numbers of a config that may be traced, where runs that differ in them are trained as one program.

A traced number (training.lifted) has no value in Python: code asks here where 0 switches something off, and computes in
float32 what would otherwise be rounded later for a number of the config than for a traced one.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def is_zero(number: Any) -> bool:
    """Whether the number is 0; a traced one counts as not."""
    return isinstance(number, (int, float)) and number == 0


def single(number: Any) -> Any:
    """The number in float32, so that 1 - number is the same for a number of the config and for a traced one."""
    return np.float32(number) if isinstance(number, (int, float)) else number
