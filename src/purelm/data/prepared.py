"""What every kind of prepared data offers the loop, the launcher and the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from purelm.config import Config
from purelm.data.tokenizers import Tokenizer

Batch = dict[str, np.ndarray]


class Prepared(Protocol):
    """Data that is tokenized and cached, and the order in which it is read.

    Attributes:
        tokenizer: turns text into tokens.
        labels: the classes or tags, in the order of their numbers; None where there are none.
        splits: "train", "validation", "test", those that exist.
        fingerprint: JSON; equal fingerprints mean equal batches.
        vocabulary_size: the tokenizer's and the task's special tokens, which follow it.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...] | None
    splits: Mapping[str, Any]
    fingerprint: dict[str, Any]

    @property
    def vocabulary_size(self) -> int: ...

    def tokens_per_epoch(self, config: Config) -> int:
        """Tokens, padding included, of the batches of an epoch: what durations in epochs are reckoned by."""

    def training_batches(self, config: Config, *, start_step: int, process_index: int = 0,
                         process_count: int = 1) -> Iterator[Batch]:
        """Batches from `start_step` on, without end: this process's rows of each global batch."""

    def evaluation_batches(self, split_name: str, config: Config, *, batch_size: int, process_index: int = 0,
                           process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
        """Everything in the split exactly once; padding rows have weight 0."""

    def describe(self) -> str:
        """One line a split, and what was dropped or repaired."""

    def locate(self, config: Config, step: int) -> str:
        """What the global batch of `step` was made of, for a report of that batch."""

    def num_bytes(self, split_name: str) -> int | None:
        """UTF-8 bytes of the split's text where its loss, summed, is that of the whole text; else None."""
