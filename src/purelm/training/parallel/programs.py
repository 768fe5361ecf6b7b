"""Compiled steps, one for each shape of batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax


def memory_of(compiled: jax.stages.Compiled) -> int | None:
    """Bytes on a device of the program's arguments, results and temporaries; None where XLA does not say."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return (found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
            + found.temp_size_in_bytes)


class Programs:
    """Programs compiled ahead of time, so that none can be compiled again unnoticed."""

    def __init__(self):
        self._compiled: dict[tuple, jax.stages.Compiled] = {}

    def memory_bytes(self) -> int | None:
        """Of the largest, or None where none is compiled or XLA does not say."""
        known = [size for size in map(memory_of, self._compiled.values()) if size is not None]
        return max(known, default=None)

    def of(self, batch: Mapping[str, Any], lower: Callable[[Any], jax.stages.Lowered]) -> jax.stages.Compiled:
        """The program for batches of this one's shapes; `lower` is called with those shapes the first time."""
        key = tuple((name, leaf.shape, str(leaf.dtype)) for name, leaf in sorted(batch.items()))
        if key not in self._compiled:
            shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in batch.items()}
            self._compiled[key] = lower(shapes).compile()
        return self._compiled[key]
