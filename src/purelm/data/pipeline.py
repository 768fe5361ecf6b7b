"""The order of training windows, and the batches of training and evaluation.

The order is global: position g of the run is window order[g] of epoch g // windows. It depends on the seed, the data
and the context length, not on processes, devices or where a run was resumed; step s has positions sB .. sB+B-1, and
process p of P has every P-th of them from p. So the state of the iterator is the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from purelm.config import Config
from purelm.data.packing import Batch, TokenSplit, epoch_offset, evaluation_windows, gather_windows, window_start
from purelm.errors import UserError

if TYPE_CHECKING:
    import grain

_ENDLESS = 1 << 60


def _window_starts(split: TokenSplit, config: Config) -> grain.MapDataset[int]:
    """First tokens of windows without end: all of an epoch's in shuffled order, then the next epoch's in another."""
    import grain
    context_length, num_windows = config.model.context_length, split.num_windows(config.model.context_length)
    if num_windows < 1:
        raise UserError(f"the {split.name} split has {split.num_tokens} tokens, fewer than one window of "
                        f"{context_length} + 1; give more text or a smaller model.context_length")
    offsets: dict[int, int] = {}

    def start(position: int, window: int) -> int:
        epoch = position // num_windows
        if epoch not in offsets:
            offsets[epoch] = epoch_offset(config.seed, epoch, context_length, config.data.window_offset)
        return window_start(split, context_length, window, offsets[epoch])

    # Grain's endless repeat() has length sys.maxsize, which overflows when a batch of one rounds it up.
    order = grain.MapDataset.range(num_windows).seed(config.seed).shuffle().repeat(_ENDLESS // num_windows)
    return order.map_with_index(start)


def training_batches(split: TokenSplit, *, config: Config, batch_size: int, start_step: int, process_index: int = 0,
                     process_count: int = 1) -> Iterator[Batch]:
    """Batches from `start_step` on, without end: rows process_index, process_index + process_count, ... of each
    global batch of `batch_size` windows. Keys and shapes are those of `gather_windows`.

    Raises ValueError where batch_size is no multiple of process_count.
    """
    import grain
    rows = _local_rows(batch_size, process_count)

    def batch(starts: list[int]) -> Batch:
        return gather_windows(split, starts, config.model.context_length, config.data.packing)

    starts = _window_starts(split, config)[process_index::process_count]
    # num_threads=0: a batch takes less than a thread's hand-over, and the device works while the next is made.
    return iter(starts.batch(rows, batch_fn=batch)[start_step:].to_iter_dataset(
        grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def batch_starts(split: TokenSplit, config: Config, batch_size: int, step: int) -> list[int]:
    """Where in the split's tokens the windows of the global batch of `step` begin, for a report of that batch."""
    starts = _window_starts(split, config)
    return [int(starts[position]) for position in range(step * batch_size, (step + 1) * batch_size)]


def evaluation_batches(split: TokenSplit, *, context_length: int, packing: str, batch_size: int,
                       process_index: int = 0, process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
    """Every target of the split exactly once, in order; `limit` stops after so many batches.

    All processes give the same number of batches, all of one shape: rows past the last window have weight 0.
    """
    _local_rows(batch_size, process_count)
    num_batches = -(-split.num_evaluation_windows(context_length) // batch_size)
    for number in range(num_batches if limit is None else min(limit, num_batches)):
        windows = np.arange(number * batch_size, (number + 1) * batch_size)[process_index::process_count]
        yield evaluation_windows(split, windows, context_length, packing)


def _local_rows(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise ValueError(f"batch_size {batch_size} is no multiple of the {process_count} processes")
    return batch_size // process_count
