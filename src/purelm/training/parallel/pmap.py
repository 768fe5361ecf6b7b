"""Replicated data parallelism by `jax.pmap`: every device holds the whole state and adds up the sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from purelm.config import Config
from purelm.training import step
from purelm.training.parallel.engine import Engine, HostBatch, Sums
from purelm.training.state import TrainState, evaluated_params

AXIS = "devices"


class PmapEngine(Engine):
    """The state has a leading axis of this process's devices, on which it is the same everywhere."""

    name = "pmap"

    def __init__(self, config: Config, devices: Sequence[jax.Device]):
        super().__init__(config, devices)
        self._local = [device for device in self.devices if device.process_index == jax.process_index()]
        options = {"axis_name": AXIS, "devices": self.devices}
        self._init = jax.pmap(self._initial_state, **options)
        self._train = jax.pmap(self._step, out_axes=(0, None), donate_argnums=0, **options)
        self._evaluate = jax.pmap(lambda params, batch: step.evaluate_step(config, params, batch, axis_name=AXIS),
                                  out_axes=None, **options)
        self._replicate = jax.pmap(lambda tree: jax.tree.map(jax.numpy.copy, tree), **options)

    def init(self, seed: int) -> TrainState:
        return self._init(np.full(len(self._local), seed, np.int32))

    def train_step(self, state: TrainState, batch: HostBatch) -> tuple[TrainState, Sums]:
        return self._train(state, self._split(batch))

    def evaluate_step(self, state_or_params: TrainState | Any, batch: HostBatch) -> Sums:
        return self._evaluate(evaluated_params(state_or_params), self._split(batch))

    def place(self, host_state: TrainState) -> TrainState:
        count = len(self._local)
        return self._replicate(jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), host_state))

    def for_checkpoint(self, state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], state)

    def lower_train_step(self, batch: Any = None) -> jax.stages.Lowered:
        count = len(self._local)

        def stacked(leaf):
            if jax.process_count() == 1:
                return jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype)
            # Over several processes pmap lowers arrays only, and what it compiles ahead of time cannot be called.
            return np.broadcast_to(np.zeros((), leaf.dtype), (count, *leaf.shape))

        assert batch is None, "pmap compiles by itself for each shape"
        batch = self._batch_shapes(self.batch_rows // count)
        return self._train.lower(*jax.tree.map(stacked, (self.shapes(), batch)))

    def _step(self, state: TrainState, batch: step.Batch) -> tuple[TrainState, Sums]:
        return step.train_step(self.config, self.optimizer, state, batch, axis_name=AXIS)

    def _split(self, batch: HostBatch) -> dict[str, np.ndarray]:
        """[B, T] -> [devices, B / devices, T]."""
        count = len(self._local)
        return {name: leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:]) for name, leaf in batch.items()}
