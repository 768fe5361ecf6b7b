"""Windows of a token stream that go through noise on their way to a batch: masks, corrupted spans, prefixes.

The noise of a training batch comes from (seed, step), that of an evaluation window from the window's number alone: a
split is the same problem at every evaluation, for every seed and at every batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.data import Batch, PreparedData, Tokenizer, TokenSplit

# draw(n, ...) gives float64 [B, n, ...], uniform on [0, 1): what a noise may be made from.
Draw = Callable[..., np.ndarray]
Noise = Callable[[Config, Tokenizer, Batch, Draw], Batch]

_TRAINING, _EVALUATION = 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class NoisedWindows:
    """Prepared data (data.prepared.Prepared) whose batches are `noise` of those of `inner`.

    Attributes:
        inner: the token streams.
        noise: (config, tokenizer, batch of plain windows, draw) -> batch.
        num_specials: special tokens, whose ids follow the tokenizer's.
        window_length: tokens of a plain window, by config; the context's length where noise keeps the length.
        purpose: tells this noise's random numbers from another's.
    """

    inner: PreparedData
    noise: Noise
    num_specials: int
    window_length: Callable[[Config], int]
    purpose: int

    @property
    def tokenizer(self) -> Tokenizer:
        return self.inner.tokenizer

    @property
    def labels(self) -> None:
        return None

    @property
    def splits(self) -> dict[str, TokenSplit]:
        return self.inner.splits

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self.inner.fingerprint

    @property
    def vocabulary_size(self) -> int:
        return self.inner.vocabulary_size + self.num_specials

    def tokens_per_epoch(self, config: Config) -> int:
        """Windows an epoch, each counted as a whole context."""
        plain = self._plain(config)
        windows = self.inner.tokens_per_epoch(plain) // plain.model.context_length
        return windows * config.model.context_length

    def training_batches(self, config: Config, *, start_step: int, process_index: int = 0,
                         process_count: int = 1) -> Iterator[Batch]:
        batches = self.inner.training_batches(self._plain(config), start_step=start_step, process_index=process_index,
                                              process_count=process_count)
        rows = config.training.batch_size
        for step, batch in enumerate(batches, start_step):
            random = np.random.default_rng([self.purpose, _TRAINING, config.seed, step])

            def draw(*shape: int, random: np.random.Generator = random) -> np.ndarray:
                # For all processes' rows, of which this one keeps its own: any number of them draws the same.
                return random.random((rows, *shape))[process_index::process_count]

            yield self.noise(config, self.tokenizer, batch, draw)

    def evaluation_batches(self, split_name: str, config: Config, *, batch_size: int, process_index: int = 0,
                           process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
        batches = self.inner.evaluation_batches(
            split_name, self._plain(config), batch_size=batch_size, process_index=process_index,
            process_count=process_count, limit=limit)
        for number, batch in enumerate(batches):
            windows = range(number * batch_size + process_index, (number + 1) * batch_size, process_count)
            randoms = [np.random.default_rng([self.purpose, _EVALUATION, window]) for window in windows]

            def draw(*shape: int, randoms: list[np.random.Generator] = randoms) -> np.ndarray:
                return np.stack([random.random(shape) for random in randoms])

            yield self.noise(config, self.tokenizer, batch, draw)

    def describe(self) -> str:
        return self.inner.describe()

    def locate(self, config: Config, step: int) -> str:
        return self.inner.locate(self._plain(config), step)

    def num_bytes(self, split_name: str) -> None:
        """None: the loss is not that of the whole text."""
        return

    def _plain(self, config: Config) -> Config:
        return with_context(config, self.window_length(config))


def with_context(config: Config, length: int) -> Config:
    """The config with another model.context_length, as the plain windows are cut by."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, context_length=length))
