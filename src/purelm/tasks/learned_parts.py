"""Texts of which only parts are learned: what was given is read, what is to be written is counted.

A record has `ids` and `learned`, 1 on the ids that the loss counts, both 1-D and of one length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from purelm.config import Config
from purelm.tasks.language_modeling import BATCH_TYPES


def length(record: Mapping[str, np.ndarray]) -> int:
    """Inputs of the record: all ids but the last."""
    return len(record["ids"]) - 1


def collate(config: Config, records: Sequence[Mapping[str, np.ndarray] | None], length: int) -> dict[str, np.ndarray]:
    """The batch as language modeling has it, a text a row: each target's weight is whether it is learned."""
    shape = (len(records), length)
    batch = {name: np.zeros(shape, kind) for name, kind in BATCH_TYPES.items()}
    for row, record in enumerate(records):
        if record is None:
            continue
        size = len(record["ids"]) - 1
        batch["tokens"][row, :size] = record["ids"][:-1]
        batch["targets"][row, :size] = record["ids"][1:]
        batch["weights"][row, :size] = record["learned"][1:]
        batch["segments"][row, :size] = 1
        batch["positions"][row, :size] = np.arange(size)
    return batch
