"""What every engine offers the loop."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from purelm.config import Config
from purelm.tasks import task_of
from purelm.training.optimizer import make_optimizer
from purelm.training.parallel.programs import Programs
from purelm.training.state import TrainState, initial_state, params_shapes

HostBatch = Mapping[str, np.ndarray]
Sums = dict[str, jax.Array]


class Engine(abc.ABC):
    """One way to run the pure step. The step is compiled once for each shape of batches, ahead of its first call; no
    method waits for the device, except `gather` and, where its result is on the host, `for_checkpoint`.

    name: "single", "pmap" or "mesh".
    devices: all that take part, of every process.
    batch_rows: rows of the batch that this process gives `train_step`.
    evaluation_rows: rows of an evaluation batch of this process that need no more memory than a micro-batch.
    data_shard: (index, count): which part of the global batch is this process's; processes that hold pieces of the same
      rows have the same index.
    """

    name: str

    def __init__(self, config: Config, devices: Sequence[jax.Device]):
        self.config = config
        self.devices = list(devices)
        self._programs = Programs()
        self.optimizer = make_optimizer(config, params_shapes(config))
        self._shapes = jax.eval_shape(self._initial_state, 0)
        self.data_shard = self._data_shard()
        self.batch_rows = config.training.batch_size // self.data_shard[1]
        self.evaluation_rows = self.batch_rows // config.training.accumulation_steps

    def shapes(self) -> TrainState:
        """The abstract state without replicas, with shardings where it is split; `gather` and `place` go by it."""
        return self._shapes

    @abc.abstractmethod
    def init(self, seed: int) -> TrainState:
        """The state before the first update, made where it will live."""

    @abc.abstractmethod
    def train_step(self, state: TrainState, batch: HostBatch) -> tuple[TrainState, Sums]:
        """One update by this process's rows; the given state is donated. See `step.train_step`; sums are global."""

    @abc.abstractmethod
    def evaluate_step(self, state_or_params: TrainState | Any, batch: HostBatch) -> Sums:
        """The global sums of a batch, with the averaged parameters where the state has them."""

    @abc.abstractmethod
    def place(self, host_state: TrainState) -> TrainState:
        """A state on the host, or restored by the shardings of `shapes`, where it will live; it is used up."""

    @abc.abstractmethod
    def for_checkpoint(self, state: TrainState) -> TrainState:
        """The state as a checkpoint wants it: replicas removed, arrays that are split left so."""

    @abc.abstractmethod
    def lower_train_step(self, batch: Any = None) -> jax.stages.Lowered:
        """The lowered step for batches of these shapes, this process's rows (none: of the full context length).

        Its `.compile()` tells costs and memory.
        """

    def memory_bytes(self) -> int | None:
        """Of a device, by the steps that were compiled; None where unknown."""
        return self._programs.memory_bytes()

    def gather(self, state: TrainState) -> TrainState:
        """The whole state as numpy arrays of this host; waits for the device. Every process must call it."""
        return jax.tree.map(np.asarray, self.for_checkpoint(state))

    def _batch_shapes(self, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
        return task_of(self.config).batch_shapes(self.config, rows)

    def _initial_state(self, seed: int | jax.Array) -> TrainState:
        return initial_state(self.config, self.optimizer, seed)

    def _data_shard(self) -> tuple[int, int]:
        return jax.process_index(), jax.process_count()
