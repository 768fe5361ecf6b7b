"""Cells trained together whose batches are split over devices: by pmap, or on a mesh (see together.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from purelm.config import Config
from purelm.training.parallel import make_engine
from purelm.training.parallel.engine import HostBatch, Sums
from purelm.training.parallel.mesh import ROWS
from purelm.training.parallel.pmap import AXIS
from purelm.training.parallel.programs import memory_of
from purelm.training.parallel.together import (
    StackedEngine,
    States,
    TogetherEngine,
    cells_of,
    over_cells,
    stack_batches,
)
from purelm.training.state import TrainState, evaluated_params


class MeshCells(StackedEngine):
    """The mesh engine's shardings behind a leading axis of cells."""

    name = "mesh of cells"

    def __init__(self, configs: Sequence[Config], devices: Sequence[jax.Device]):
        super().__init__(configs, devices)
        one = make_engine(self.config, devices)
        self.devices = one.devices
        self._states_at = jax.tree.map(lambda at: NamedSharding(one.mesh, PartitionSpec(None, *at.spec)),
                                       one.state_shardings)
        self._batches_at = NamedSharding(one.mesh, PartitionSpec(None, *ROWS))
        self._shared_at, self._values_at = NamedSharding(one.mesh, ROWS), NamedSharding(one.mesh, PartitionSpec())
        self._compile_with(functools.partial(self._step_one, prepare=one.prepare),
                           functools.partial(self._evaluate_one, prepare=one.prepare),
                           lambda function, have_cells: function)


class PmapCells(TogetherEngine):
    """State [devices, G, ...], the same on every device; batches [devices, G, B / devices, ...]."""

    name = "pmap of cells"

    def __init__(self, configs: Sequence[Config], devices: Sequence[jax.Device]):
        super().__init__(configs, devices)
        make_engine(self.config, devices)  # Refuses what does not divide.
        platform, options = self.devices[0].platform, {"axis_name": AXIS, "devices": self.devices}
        evaluate_one: Callable = functools.partial(self._evaluate_one, axis_name=AXIS)

        def evaluate_all(params: Any, batch: Any, values: Any) -> Sums:
            return over_cells(lambda params, values: evaluate_one(params, batch, values), platform)(params, values)

        self._init = jax.pmap(over_cells(self._init_one, platform), **options)
        self._train = jax.pmap(over_cells(functools.partial(self._step_one, axis_name=AXIS), platform),
                               out_axes=(0, None), donate_argnums=0, **options)
        self._evaluate = jax.pmap(over_cells(evaluate_one, platform), out_axes=None, **options)
        self._evaluate_all = jax.pmap(evaluate_all, out_axes=None, **options)
        self._replicate = jax.pmap(lambda tree: jax.tree.map(jax.numpy.copy, tree), **options)
        self._values = self._replicate(self._repeated(self.values))

    def init(self) -> States:
        return self._init(self._values)

    def train_step(self, states: States, batches: Sequence[HostBatch]) -> tuple[States, Sums]:
        return self._train(states, self._split(stack_batches(batches), 1), self._values)

    def evaluate_step(self, states: States, batches: Sequence[HostBatch] | HostBatch) -> Sums:
        params = evaluated_params(states)
        if isinstance(batches, Mapping):
            return self._evaluate_all(params, self._split(batches, 0), self._values)
        return self._evaluate(params, self._split(stack_batches(batches), 1), self._values)

    def place(self, host_states: Sequence[TrainState]) -> States:
        return self._replicate(self._repeated(jax.tree.map(lambda *leaves: np.stack(leaves), *host_states)))

    def gather(self, states: States) -> list[TrainState]:
        host = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], states)
        return cells_of(host, len(self.configs))

    def memory_bytes(self) -> int | None:
        count, cells = len(self.devices), len(self.configs)
        state, batch = (jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, cells, *leaf.shape), leaf.dtype), tree)
                        for tree in (self.shapes(), self._part_of_batch(count)))
        return memory_of(self._train.lower(state, batch, self._values).compile())

    def _part_of_batch(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct((leaf.shape[0] // count, *leaf.shape[1:]), leaf.dtype)
                for name, leaf in self._full_batch().items()}

    def _repeated(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(self.devices), *np.shape(leaf))), tree)

    def _split(self, batch: HostBatch, axis: int) -> dict[str, np.ndarray]:
        """The rows, on `axis`, over a new first axis of devices."""
        count = len(self.devices)

        def split(leaf: np.ndarray) -> np.ndarray:
            parts = leaf.reshape(*leaf.shape[:axis], count, leaf.shape[axis] // count, *leaf.shape[axis + 1:])
            return np.moveaxis(parts, axis, 0)

        return {name: split(leaf) for name, leaf in batch.items()}
