"""A mesh of devices: parameters and batch split by rules, the compiler moves what must move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from purelm.config import Config
from purelm.training import rules, step
from purelm.training.parallel.engine import Engine, HostBatch, Sums
from purelm.training.parallel.sharding import USE_RULES, check_sizes, state_specs
from purelm.training.state import TrainState, evaluated_params

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))


class MeshEngine(Engine):
    """The pure step under `jax.jit` with shardings (Xu et al. 2021, "GSPMD"): written as for one device."""

    name = "mesh"

    def __init__(self, config: Config, devices: Sequence[jax.Device]):
        check_sizes(config)
        fsdp, tensor = config.parallel.fsdp, config.parallel.tensor
        shape = (len(devices) // (fsdp * tensor), fsdp, tensor)
        self.mesh = jax.make_mesh(shape, AXES, devices=devices, axis_types=(AxisType.Auto,) * len(AXES))
        self._rows, self._whole = NamedSharding(self.mesh, ROWS), NamedSharding(self.mesh, PartitionSpec())
        super().__init__(config, list(self.mesh.devices.flat))
        self.state_shardings = jax.tree.map(
            lambda spec: NamedSharding(self.mesh, spec), state_specs(self.shapes(), self.shapes().params),
            is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
        self._shapes = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self._shapes, self.state_shardings)
        params = self.state_shardings.params
        self._init = jax.jit(self._initial_state, out_shardings=self.state_shardings)
        self._train = jax.jit(self._step, in_shardings=(self.state_shardings, self._rows),
                              out_shardings=(self.state_shardings, self._whole), donate_argnums=0)
        self._evaluate = jax.jit(lambda params, batch: step.evaluate_step(config, self.prepare(params), batch),
                                 in_shardings=(params, self._rows), out_shardings=self._whole)
        self._gather = jax.jit(lambda tree: tree, out_shardings=self._whole)

    def init(self, seed: int) -> TrainState:
        return self._init(seed)

    def train_step(self, state: TrainState, batch: HostBatch) -> tuple[TrainState, Sums]:
        batch = self._global(batch)
        return self._programs.of(batch, self.lower_train_step)(state, batch)

    def evaluate_step(self, state_or_params: TrainState | Any, batch: HostBatch) -> Sums:
        return self._evaluate(evaluated_params(state_or_params), self._global(batch))

    def place(self, host_state: TrainState) -> TrainState:
        def put(leaf, sharding):
            if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
                return leaf
            leaf = np.asarray(leaf)
            # The copy keeps a donating step from writing over numpy's memory, which a CPU array may share.
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index].copy())

        return jax.tree.map(put, host_state, self.state_shardings)

    def for_checkpoint(self, state: TrainState) -> TrainState:
        return state

    def gather(self, state: TrainState) -> TrainState:
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), self._gather(state))

    def lower_train_step(self, batch: Any = None) -> jax.stages.Lowered:
        batch = self._batch_shapes(self.config.training.batch_size) if batch is None else batch
        return self._train.lower(self.shapes(), batch)

    def _step(self, state: TrainState, batch: step.Batch) -> tuple[TrainState, Sums]:
        return step.train_step(self.config, self.optimizer, state, batch, prepare=self.prepare)

    def prepare(self, params: Any) -> Any:
        """The parameters as the model reads them: tables that rows are taken from are whole in width.

        Else what is taken from them is split by width where its rows are split too, on the same devices, and the
        compiler can only go from one to the other by way of the whole.
        """
        specs = rules.match_rules(USE_RULES, params, "training/parallel/sharding.py USE_RULES")
        return jax.tree.map(lambda leaf, spec: leaf if spec is None else jax.lax.with_sharding_constraint(
            leaf, NamedSharding(self.mesh, spec)), params, specs)

    def _global(self, batch: HostBatch) -> dict[str, jax.Array]:
        """This process's rows as part of the global batch."""
        return {name: jax.make_array_from_process_local_data(self._rows, np.asarray(leaf))
                for name, leaf in batch.items()}

    def _data_shard(self) -> tuple[int, int]:
        """Processes are grouped by the rows that their devices hold."""
        position = {device: index[0].start or 0
                    for device, index in self._rows.devices_indices_map((self._rows.num_devices,)).items()}
        held: dict[int, set[int]] = {}
        for device, row in position.items():
            held.setdefault(device.process_index, set()).add(row)
        groups = sorted({tuple(sorted(rows)) for rows in held.values()})
        mine = tuple(sorted(held[jax.process_index()]))
        return groups.index(mine), len(groups)
