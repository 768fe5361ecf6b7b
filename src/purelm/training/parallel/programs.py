"""Compiled steps, one for each shape of batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax


class Programs:
    """Programs compiled ahead of time, so that none can be compiled again unnoticed."""

    def __init__(self):
        self._compiled: dict[tuple, jax.stages.Compiled] = {}

    def of(self, batch: Mapping[str, Any], lower: Callable[[Any], jax.stages.Lowered]) -> jax.stages.Compiled:
        """The program for batches of this one's shapes; `lower` is called with those shapes the first time."""
        key = tuple((name, leaf.shape, str(leaf.dtype)) for name, leaf in sorted(batch.items()))
        if key not in self._compiled:
            shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
            self._compiled[key] = lower(shapes).compile()
        return self._compiled[key]
