"""The rows as the host has them: who sits where, and each row's text."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from purelm.inference.decode_loop import window_start
from purelm.inference.engine.job import Job
from purelm.inference.engine.rows import MAX_BIASES, MAX_STOPS, Rows, empty_rows, taken, write_row
from purelm.inference.row_sampling import stack_samplers
from purelm.inference.stops import stop_array


class Slots:
    """`slots` rows of Rows, NumPy arrays written in place; programs are given copies.

    window: the most tokens that one is drawn from. vocabulary_size: the model's.
    """

    def __init__(self, slots: int, *, window: int, pages: int, max_tokens: int, vocabulary_size: int) -> None:
        self._window = window
        self._vocabulary_size = vocabulary_size
        self._rows = empty_rows(slots, pages=pages, tokens=max_tokens, vocabulary_size=vocabulary_size,
                                key_words=_key_data(0, 0).size)
        self._empty = taken(self._rows, slice(0, 1))
        self._free = list(range(slots - 1, -1, -1))

    @property
    def any_free(self) -> bool:
        """Whether a job can sit down."""
        return bool(self._free)

    def reserve(self) -> int:
        """A free slot."""
        return self._free.pop()

    def sit(self, job: Job) -> None:
        """Writes the job's row: its text, its rules and its random key."""
        request, rows, prompt = job.request, self._rows, job.request.prompt_ids
        origin = window_start(len(prompt), self._window)
        text = prompt[origin:]
        row = taken(self._empty, slice(0, 1))
        row.ids_BX[0, :len(text)] = text
        row.lengths_B[0] = row.starts_B[0] = len(text)
        row.origins_B[0] = origin
        row.key_data_BW[0] = _key_data(request.seed, request.index)
        row.stop_ids_BS[0] = stop_array(request.stop_id, MAX_STOPS)
        row.alternatives_B[0] = -1 if request.alternatives is None else request.alternatives
        row.constrained_B[0] = request.constraint is not None
        write_row(rows, job.slot, row._replace(samplers=stack_samplers([request.sampler], max_biases=MAX_BIASES)))

    def leave(self, job: Job) -> None:
        """Frees the job's slot."""
        write_row(self._rows, job.slot, self._empty)
        self._free.append(job.slot)

    def text(self, job: Job) -> np.ndarray:
        """The known tokens of the job's window."""
        rows, slot = self._rows, job.slot
        return rows.ids_BX[slot, rows.window_starts_B[slot]:rows.lengths_B[slot]]

    def append(self, job: Job, token: int) -> None:
        """Adds a token to the job's text."""
        rows, slot = self._rows, job.slot
        rows.ids_BX[slot, rows.lengths_B[slot]] = token
        rows.lengths_B[slot] += 1

    def turn(self, job: Job) -> bool:
        """Moves the job's window on, where its next token needs it; whether it did."""
        rows, slot = self._rows, job.slot
        start = window_start(self._position(slot), self._window) - rows.origins_B[slot]
        turned = start != rows.window_starts_B[slot]
        rows.window_starts_B[slot] = start
        return bool(turned)

    def set_pages(self, job: Job) -> None:
        """Writes the table of the job's lease."""
        pages = job.lease.pages()
        self._rows.tables_BP[job.slot] = 0
        self._rows.tables_BP[job.slot, :len(pages)] = pages

    def budget(self, job: Job) -> int:
        """How many tokens the job may draw before its window ends or itself."""
        position = self._position(job.slot)
        start = self._rows.origins_B[job.slot] + self._rows.window_starts_B[job.slot]
        return int(min(job.request.max_new_tokens - job.generated, start + self._window + 1 - position))

    def for_decode(self, jobs: list[Job]) -> Rows:
        """A copy of all rows, of which the jobs' may draw."""
        self._rows.budgets_B[:] = 0
        for job in jobs:
            self._rows.budgets_B[job.slot] = self.budget(job)
            self._constrain(job)
        return taken(self._rows, slice(None))

    def for_prefill(self, job: Job, *, draws: bool) -> Rows:
        """A copy of the job's row, which may draw or not."""
        self._rows.budgets_B[job.slot] = draws
        if draws:
            self._constrain(job)
        return taken(self._rows, slice(job.slot, job.slot + 1))

    def _constrain(self, job: Job) -> None:
        if job.request.constraint is not None:
            allowed_V = job.allowed(self._vocabulary_size)
            self._rows.allowed_BV8[job.slot] = np.packbits(allowed_V, bitorder="little")

    def _position(self, slot: int) -> int:
        return int(self._rows.origins_B[slot] + self._rows.lengths_B[slot])


def _key_data(seed: int, index: int) -> np.ndarray:
    """Of the random key of one request. On the host, which then need not wait for what an accelerator is doing."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        key: Any = jax.random.fold_in(jax.random.key(np.int64(seed)), index)
        return np.asarray(jax.random.key_data(key))
