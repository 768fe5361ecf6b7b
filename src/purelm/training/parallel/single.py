"""One device: plain jit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from purelm.config import Config
from purelm.training import step
from purelm.training.parallel.engine import Engine, HostBatch, Sums
from purelm.training.state import TrainState, evaluated_params


class SingleEngine(Engine):
    """The pure step under `jax.jit` on one device, the state donated."""

    name = "single"

    def __init__(self, config: Config, devices: Sequence[jax.Device]):
        super().__init__(config, devices)
        here = jax.sharding.SingleDeviceSharding(self.devices[0])
        self._init = jax.jit(self._initial_state, out_shardings=here)
        # in_shardings commit every input to the device, so that a restored state is the same to jit as a new one.
        self._train = jax.jit(self._step, in_shardings=here, out_shardings=here, donate_argnums=0)
        self._evaluate = jax.jit(lambda params, batch: step.evaluate_step(config, params, batch),
                                 in_shardings=here, out_shardings=here)
        self._copy = jax.jit(lambda tree: jax.tree.map(jax.numpy.copy, tree), in_shardings=here, out_shardings=here)

    def init(self, seed: int) -> TrainState:
        return self._init(seed)

    def train_step(self, state: TrainState, batch: HostBatch) -> tuple[TrainState, Sums]:
        return self._programs.of(batch, self.lower_train_step)(state, dict(batch))

    def evaluate_step(self, state_or_params: TrainState | Any, batch: HostBatch) -> Sums:
        return self._evaluate(evaluated_params(state_or_params), dict(batch))

    def place(self, host_state: TrainState) -> TrainState:
        # On CPU an array may share the memory of numpy's, which a donating step would then write over.
        return self._copy(host_state)

    def for_checkpoint(self, state: TrainState) -> TrainState:
        return state

    def lower_train_step(self, batch: Any = None) -> jax.stages.Lowered:
        return self._train.lower(self.shapes(), self._batch_shapes(self.batch_rows) if batch is None else batch)

    def _step(self, state: TrainState, batch: step.Batch) -> tuple[TrainState, Sums]:
        return step.train_step(self.config, self.optimizer, state, batch)
