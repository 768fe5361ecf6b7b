"""How likely continuations are: windows of tokens in batches of few shapes, log-probabilities alone on the host."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import Config, ModelConfig
from purelm.errors import UserError
from purelm.models import make_model
from purelm.tasks.head_statistics import head_statistics

_SHORTEST = 16
# Rows at once: more gain nothing on a CPU's few cores, and little on an accelerator.
_MOST_ROWS = {"cpu": 16}
_MOST_ROWS_ELSEWHERE = 256
_CPU_BYTES = 1 << 30
# Of logits that may be held at once; beyond, the vocabulary is taken in chunks.
_LOGIT_BYTES = 1 << 28
_CHUNK = 8192


class Window(NamedTuple):
    """Ids of a context, at least one, and of its continuation, at least one."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Score(NamedTuple):
    """number: of the window. log_probability: nats, of the continuation. greedy: each of its ids is the likeliest."""

    number: int
    log_probability: float
    greedy: bool


class Row(NamedTuple):
    """What the model reads, and which windows it answers: those that differ in the last id alone share it.

    longest: ids of the longest continuation among them. numbers, lengths, last_ids: of the windows.
    """

    inputs: tuple[int, ...]
    longest: int
    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    last_ids: tuple[int, ...]

    @property
    def choices(self) -> list[int]:
        """The last ids, each once."""
        return list(dict.fromkeys(self.last_ids))

    @property
    def num_pairs(self) -> int:
        return self.longest - 1 + len(self.choices)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(place, the id that follows it): the longest continuation but its last id, then every last id."""
        end = len(self.inputs) - 1
        inner = [(place, self.inputs[place + 1]) for place in range(end + 1 - self.longest, end)]
        return inner + [(end, choice) for choice in self.choices]


def make_rows(windows: Sequence[Window], context_length: int, *, share: bool = True) -> list[Row]:
    """The rows that answer all windows.

    Args:
      windows: no continuation longer than context_length.
      context_length: of the model; longer windows lose their beginning.
      share: False keeps windows apart whose continuations begin at different places.
    """
    found: dict[tuple, list[int]] = {}
    for number, (context, continuation) in enumerate(windows):
        inputs = (*context, *continuation)[-(context_length + 1):][:-1]
        found.setdefault((inputs, 0 if share else len(continuation)), []).append(number)
    rows = []
    for (inputs, _), numbers in found.items():
        continuations = [windows[number].continuation for number in numbers]
        lengths = tuple(map(len, continuations))
        rows.append(Row(inputs, max(lengths), tuple(numbers), lengths, tuple(ids[-1] for ids in continuations)))
    return rows


def score_windows(config: Config, params: Any, windows: Sequence[Window], *, batch_size: int | None = None,
                  advance: Callable[[int], Any] = lambda count: None) -> Iterator[Score]:
    """The score of every window, once, in the order in which they are computed: the longest first.

    Args:
      config: of a decoder or a recurrent language model.
      params: its parameters.
      windows: of any length; see `make_rows`.
      batch_size: rows at once; None is as many as fit in memory.
      advance: called with how many windows were answered.

    Raises UserError for logits that are not finite.
    """
    model = config.model
    rows = sorted(make_rows(windows, model.context_length, share=not model.prefix_attention),
                  key=lambda row: (*(-size for size in shape_of([row], model.context_length)), row.inputs))
    if not rows:
        return
    batch_size = batch_size or automatic_batch_size(model, padded(len(rows[0].inputs), model.context_length))
    params = jax.device_put(params)
    pending = None
    for start in range(0, len(rows) + batch_size, batch_size):
        batch = rows[start:start + batch_size]
        computed = _dispatch(config, params, batch, batch_size) if batch else None
        if pending is not None:
            # The device computes the next batch while the host reads this one.
            scores = list(_scores(*pending))
            advance(len(scores))
            yield from scores
        pending = (batch, computed) if batch else None


def padded(length: int, largest: int) -> int:
    """The next of 16, 24, 32, 48, 64, ... from `length` on, at most `largest`: few shapes, little padding."""
    size = _SHORTEST
    while size < length:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return min(size, largest)


def shape_of(rows: Sequence[Row], context_length: int) -> tuple[int, int]:
    """(T, P): tokens that the model reads of each row, and places of which the output layer gives logits.

    P is a third, two thirds or all of T, as continuations are mostly shorter than their contexts.
    """
    length = padded(max(len(row.inputs) for row in rows), context_length)
    most = max(row.num_pairs for row in rows)
    return length, next(size for size in (length // 3, 2 * length // 3, length, padded(most, most)) if size >= most)


def automatic_batch_size(model: ModelConfig, length: int) -> int:
    """Rows of `length` tokens that fit in half of an accelerator's free memory, or in a sixteenth of the host's, at
    most 1 GiB; a power of two."""
    device = jax.devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics:
        free = (statistics["bytes_limit"] - statistics["bytes_in_use"]) // 2
    else:
        free = min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 16, _CPU_BYTES)
    # Activations of a layer that are alive at once, attention's weights, logits and their exponentials.
    numbers = 24 * model.width + 2 * model.num_heads * length + 3 * min(model.vocabulary_size, _CHUNK)
    rows = max(free // (4 * length * numbers), 1)
    return min(1 << (int(rows).bit_length() - 1), _MOST_ROWS.get(device.platform, _MOST_ROWS_ELSEWHERE))


def _dispatch(config: Config, params: Any, rows: Sequence[Row], batch_size: int) -> tuple[jax.Array, jax.Array]:
    """(log-probability, whether the likeliest) of each row's pairs, [B, P] each."""
    length, width = shape_of(rows, config.model.context_length)
    tokens_BT = np.zeros((batch_size, length), np.int32)
    places_BP, targets_BP = np.zeros((2, batch_size, width), np.int32)
    prefixes_B = np.ones(batch_size, np.int32)
    for number, row in enumerate(rows):
        tokens_BT[number, :len(row.inputs)] = row.inputs
        places_BP[number, :len(row.pairs)], targets_BP[number, :len(row.pairs)] = np.transpose(row.pairs)
        prefixes_B[number] = len(row.inputs) - row.longest + 1
    large = batch_size * width * config.model.vocabulary_size * 4 > _LOGIT_BYTES
    program = _program(dataclasses.replace(
        config, seed=0, training=dataclasses.replace(config.training, loss_chunk=_CHUNK if large else None),
        # There are many shapes: a loop over layers compiles in half of the time, or less.
        model=dataclasses.replace(config.model, scan_layers=True)))
    return program(params, tokens_BT, places_BP, targets_BP, prefixes_B)


@functools.lru_cache(maxsize=8)
def _program(config: Config) -> Callable[..., tuple[jax.Array, jax.Array]]:
    @jax.jit
    def score(params, tokens_BT, places_BP, targets_BP, prefixes_B):
        inputs = {}
        if config.model.prefix_attention:
            inputs["prefix_BT"] = jnp.arange(tokens_BT.shape[1]) < prefixes_B[:, None]
        # Padding is on the right, where no causal model looks.
        x_BTD = make_model(config.model).apply({"params": params}, tokens_BT, method="hidden", **inputs).logits_BTV
        x_BPD = jnp.take_along_axis(x_BTD, places_BP[..., None], axis=1)
        found = head_statistics(config, params, x_BPD, targets_BP)
        return found.target - found.logsumexp, found.hit > 0

    return score


def _scores(rows: Sequence[Row], computed: tuple[jax.Array, jax.Array]) -> Iterator[Score]:
    values_BP, hits_BP = jax.device_get(computed)
    for row, values_P, hits_P in zip(rows, values_BP.astype(np.float64), hits_BP):
        place = {choice: row.longest - 1 + number for number, choice in enumerate(row.choices)}
        for number, length, last_id in zip(row.numbers, row.lengths, row.last_ids):
            parts = [*range(row.longest - length, row.longest - 1), place[last_id]]
            total = float(values_P[parts].sum())
            if not math.isfinite(total):
                raise UserError("the model's logits are not finite: its parameters are damaged, or its training "
                                "diverged; take an earlier --checkpoint")
            yield Score(number, total, bool(hits_P[parts].all()))
