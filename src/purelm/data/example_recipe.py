"""What a task says about its examples: how one becomes records of token ids, and how records become a batch."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.data.tokenizers import Tokenizer

# A row of the data as plain JSON (data/formats.py), with "where" it stands.
Example = dict[str, Any]
# What a batch is made of: 1-D integer arrays and integers, the same keys for all records of a task.
Record = dict[str, Any]
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One task's view of examples. All functions are pure: same arguments, same result.

    Attributes:
        format: the name in formats.FORMATS that the task reads.
        texts: (example) -> texts that a tokenizer is trained on.
        encode: (config, tokenizer, labels, examples, counts) -> for each example its records; none drops it. `labels`
            is the label vocabulary, or None; in `counts` it may count what a person should know (truncated, ...).
        length: (record) -> tokens that decide the padded length of a batch.
        collate: (config, records, length) -> the batch's arrays, a row for each of `records`, padded to `length`. A
            None among the records is a row of padding, with weight 0; the first record never is None.
        labels: (example) -> its labels, where the task has a label vocabulary: the sorted set over the training data.
        augmented: fields of a record, arrays of token ids, that config.data.augmentation changes in training.
        version: raise it when `encode` gives other records for the same example.
        config_fields: paths such as "data.truncation" of all fields of the config that `encode` and `texts` read.
        num_specials: ids after the tokenizer's own that the task gives a meaning: masks, marks of roles.
    """

    format: str
    texts: Callable[[Example], list[str]]
    encode: Callable[[Config, Tokenizer, tuple[str, ...] | None, Sequence[Example], collections.Counter],
                     list[list[Record]]]
    length: Callable[[Record], int]
    collate: Callable[[Config, Sequence[Record | None], int], Batch]
    labels: Callable[[Example], list[str]] | None = None
    augmented: tuple[str, ...] = ()
    version: int = 1
    config_fields: tuple[str, ...] = ()
    num_specials: int = 0


def config_values(config: Config, paths: Sequence[str]) -> dict[str, Any]:
    """The values of fields named like "data.truncation"."""
    values = {}
    for path in paths:
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        values[path] = value
    return values
