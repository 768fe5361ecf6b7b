"""The order of a task's records, and how they are cut in batches of few lengths.

All of it follows from (seed, epoch, step) and the records' lengths: an iterator has no state but its step, and every
process knows each global batch, of which process p of P takes the rows p, p + P, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from purelm.config import Config
from purelm.data.augmentation import Augmenter
from purelm.data.example_recipe import Batch, Recipe, Record
from purelm.data.example_store import ExampleSplit
from purelm.data.mixture import draw_order, probabilities

_POOL_BATCHES = 50
_ORDER = 1  # Purposes of random numbers: they are drawn from (seed, purpose, ...).


def padded_lengths(context_length: int) -> list[int]:
    """The lengths that batches are padded to: 1/8, 1/4, 1/2, 3/4 and all of the context, in multiples of 8."""
    return sorted({min(-(-context_length * eighths // 64) * 8, context_length) for eighths in (1, 2, 4, 6, 8)})


def padded_length(longest: int, context_length: int, bucketing: bool) -> int:
    """The smallest of `padded_lengths` that holds a record of this length; the whole context without bucketing."""
    if not bucketing:
        return context_length
    return next((length for length in padded_lengths(context_length) if length >= longest), context_length)


def epoch_batches(lengths: np.ndarray, *, seed: int, epoch: int, batch_size: int, bucketing: bool,
                  component_of: np.ndarray | None = None, rates: np.ndarray | None = None) -> np.ndarray:
    """[ceil(N / B), B] numbers of records: all of an epoch's once, and the first of it again where B does not divide N.

    Of a mixture, with the component [N] of each record and the rates [C] of components, an epoch is N draws.

    With `bucketing`, the epoch's order is cut in pools of 50 batches; each is sorted by length, so that a batch holds
    records of like length, and then the batches are shuffled.
    """
    generator = np.random.default_rng([seed, _ORDER, epoch])
    if component_of is None:
        order = generator.permutation(len(lengths))
    else:
        order = draw_order(generator, component_of, rates)
    num_batches = -(-len(order) // batch_size)
    order = np.resize(order, num_batches * batch_size)
    if not bucketing:
        return order.reshape(num_batches, batch_size)
    pool = _POOL_BATCHES * batch_size
    pools = [order[start:start + pool] for start in range(0, len(order), pool)]
    batches = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in pools])
    return batches.reshape(num_batches, batch_size)[generator.permutation(num_batches)]


class TrainingOrder:
    """Which records each step trains on. The last epoch that was asked for is kept."""

    def __init__(self, split: ExampleSplit, config: Config):
        self._lengths, self._config, self._component_of = split.lengths, config, split.component_of
        self._rates = None
        if split.component_of is not None:
            sizes = np.bincount(split.component_of, minlength=len(config.data.mixture))
            self._rates = probabilities(config.data, sizes)
        self.batches_per_epoch = -(-split.num_records // config.training.batch_size)
        self._kept: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, [B] numbers of records) of the batch of `step`, from 0."""
        epoch, number = divmod(step, self.batches_per_epoch)
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, epoch_batches(
                self._lengths, seed=self._config.seed, epoch=epoch, batch_size=self._config.training.batch_size,
                bucketing=self._config.data.bucketing, component_of=self._component_of, rates=self._rates)
        return epoch, self._kept[1][number]


def training_batches(split: ExampleSplit, order: TrainingOrder, recipe: Recipe, config: Config, augmenter: Augmenter, *,
                     start_step: int, process_index: int, process_count: int) -> Iterator[Batch]:
    """Batches from `start_step` on, without end."""
    check_rows(config.training.batch_size, process_count)
    context_length, bucketing = config.model.context_length, config.data.bucketing
    step = start_step
    while True:
        epoch, rows_B = order.rows(step)
        mine = rows_B[process_index::process_count]
        if augmenter.lengthens:
            # The global batch decides the padded length, so every process must know all of it.
            augmented = {int(i): augmenter(split.record(int(i)), epoch, int(i)) for i in rows_B}
            records: list[Record] = [augmented[int(i)] for i in mine]
            longest = max(recipe.length(record) for record in augmented.values())
        else:
            records = [augmenter(split.record(int(i)), epoch, int(i)) for i in mine]
            longest = int(split.lengths[rows_B].max())
        yield recipe.collate(config, records, padded_length(longest, context_length, bucketing))
        step += 1


def evaluation_batches(split: ExampleSplit, recipe: Recipe, config: Config, *, batch_size: int, process_index: int,
                       process_count: int, limit: int | None) -> Iterator[Batch]:
    """Every record exactly once, in order of length; rows past the last record are padding, of weight 0.

    `limit` takes so many of these batches, spread over all lengths. All processes give the same number of batches.
    """
    check_rows(batch_size, process_count)
    order = np.argsort(split.lengths, kind="stable")
    num_batches = -(-len(order) // batch_size)
    for number in _spread(num_batches, limit):
        rows = order[number * batch_size:(number + 1) * batch_size]
        length = padded_length(int(split.lengths[rows].max()), config.model.context_length, config.data.bucketing)
        # collate sees at least one record: a process whose rows are all padding is given one, and its batch is
        # weighed down to nothing by collating the padding alone with it and leaving that row out.
        mine: list[Record | None] = [split.record(int(i)) for i in rows[process_index::process_count]]
        mine += [None] * (batch_size // process_count - len(mine))
        if mine[0] is not None:
            yield recipe.collate(config, mine, length)
        else:
            batch = recipe.collate(config, [split.record(int(rows[0])), *mine], length)
            yield {name: value[1:] for name, value in batch.items()}


def _spread(num_batches: int, limit: int | None) -> Sequence[int]:
    if limit is None or limit >= num_batches:
        return range(num_batches)
    return [(2 * i + 1) * num_batches // (2 * limit) for i in range(limit)]


def check_rows(batch_size: int, process_count: int) -> None:
    if batch_size % process_count:
        raise ValueError(f"batch_size {batch_size} is no multiple of the {process_count} processes")
