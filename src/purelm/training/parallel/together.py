"""Several runs of one program at once: the cells of a table, G of them, which differ in lifted numbers alone.

What a run is on one device, each cell is here; how cells share the machine is the engine's:

- TurnsEngine, one CPU: cells take turns through the program of one cell, whose lifted numbers are arguments. There a
  batched step takes as long as its cells one after another, or longer, and turns need no padding.
- SpreadEngine, one accelerator or any number of devices: state and batches have a leading axis of cells, split over the
  devices; each trains its own by `jax.vmap`, and nothing is exchanged.
- PmapCells: every device holds all cells and a part of each batch (config.parallel.engine=pmap).
- MeshCells: as the mesh engine, with a leading axis that is not split.

Where batches are stacked, they are padded to the longest of the step. Dropout draws by shape, so that a cell which is
padded and drops out is another sample of the same training.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from purelm.config import Config
from purelm.models.choice import choose_implementation
from purelm.tasks import task_of
from purelm.training import step
from purelm.training.lifted import lifted_values, with_values
from purelm.training.optimizer import make_optimizer
from purelm.training.parallel.engine import HostBatch, Sums
from purelm.training.parallel.programs import Programs, memory_of
from purelm.training.state import TrainState, evaluated_params, initial_state, params_shapes

Values = Mapping[str, jax.Array]
States = Any


def make_together_engine(configs: Sequence[Config], devices: Sequence[jax.Device] | None = None) -> TogetherEngine:
    """The engine for cells of one `program_key`.

    Args:
      configs: finalized.
      devices: of this process; none is all.

    Raises:
      UserError: as `make_engine`.
    """
    from purelm.training.parallel.together_data import MeshCells, PmapCells

    devices = list(jax.local_devices() if devices is None else devices)
    config, parallel = configs[0], configs[0].parallel
    choose_implementation(config.model, num_tokens=config.model.context_length, cached=False, collect=False,
                          training=True)
    if parallel.engine == "mesh" or parallel.fsdp * parallel.tensor > 1:
        return MeshCells(configs, devices)
    if parallel.engine == "pmap" or parallel.data > 1:
        return PmapCells(configs, devices)
    if len(devices) == 1 and devices[0].platform == "cpu":
        return TurnsEngine(configs, devices)
    return SpreadEngine(configs, devices[:len(configs)])


def over_cells(function: Callable, platform: str) -> Callable:
    """`function` of one cell's arguments as one of all cells', on a leading axis.

    On CPU one cell after another: a batch of small matrix products is slower there than the products one by one.
    """
    if platform != "cpu":
        return jax.vmap(function)
    return lambda *arguments: jax.lax.map(lambda one: function(*one), arguments)


def stack_batches(batches: Sequence[HostBatch]) -> dict[str, np.ndarray]:
    """[G, B, T]: the batches, each array padded with zeros to the longest, which every task takes for no token."""
    stacked = {}
    for name in batches[0]:
        leaves = [batch[name] for batch in batches]
        longest = np.max([leaf.shape for leaf in leaves], axis=0)
        stacked[name] = np.stack([
            np.pad(leaf, [(0, size - here) for here, size in zip(leaf.shape, longest)]) for leaf in leaves])
    return stacked


def cells_of(stacked: Any, count: int) -> list[Any]:
    """The first `count` cells of a tree of numpy arrays [G, ...], each with arrays of its own."""
    def cell(number: int) -> Any:
        return jax.tree.map(lambda leaf: np.array(leaf[number]), stacked)

    return [cell(number) for number in range(count)]


class TogetherEngine(abc.ABC):
    """What every way of training cells together offers; no method but `gather` waits for the device.

    States are opaque to the caller. Sums are a dictionary of arrays [G], or of lists of G scalars.

    name: for a person.
    configs: finalized, of one `program_key`.
    devices: that take part.
    batch_rows, evaluation_rows: of one cell, as of an `Engine`.
    """

    name: str

    def __init__(self, configs: Sequence[Config], devices: Sequence[jax.Device]):
        self.configs, self.config, self.devices = list(configs), configs[0], list(devices)
        self.batch_rows = self.config.training.batch_size
        self.evaluation_rows = self.batch_rows // self.config.training.accumulation_steps
        self.values = lifted_values(configs)
        self._params_shapes = params_shapes(self.config)
        self._shapes = jax.eval_shape(self._init_one, {path: value[0] for path, value in self.values.items()})
        self._programs = Programs()

    def shapes(self) -> TrainState:
        """The abstract state of one cell; `gather` and `place` go by it."""
        return self._shapes

    @abc.abstractmethod
    def init(self) -> States:
        """The states before the first update, by each cell's seed."""

    @abc.abstractmethod
    def train_step(self, states: States, batches: Sequence[HostBatch]) -> tuple[States, Sums]:
        """One update of every cell by its own batch; the given states are donated."""

    @abc.abstractmethod
    def evaluate_step(self, states: States, batches: Sequence[HostBatch] | HostBatch) -> Sums:
        """The sums of each cell's batch, or of one batch for all, with averaged parameters where there are any."""

    @abc.abstractmethod
    def place(self, host_states: Sequence[TrainState]) -> States:
        """The cells' states on the host, where they will live."""

    @abc.abstractmethod
    def gather(self, states: States) -> list[TrainState]:
        """Each cell's state as numpy arrays of its own; waits for the device."""

    @abc.abstractmethod
    def memory_bytes(self) -> int | None:
        """Of a device: all states, batches and temporaries of a step at full length; compiles it. None: not known."""

    def _init_one(self, values: Values) -> TrainState:
        config = with_values(self.config, values)
        return initial_state(config, make_optimizer(config, self._params_shapes), config.seed)

    def _step_one(self, state: TrainState, batch: step.Batch, values: Values, *, axis_name: str | None = None,
                  prepare: step.Prepare = lambda params: params) -> tuple[TrainState, Sums]:
        config = with_values(self.config, values)
        return step.train_step(config, make_optimizer(config, state.params), state, batch, axis_name=axis_name,
                               prepare=prepare)

    def _evaluate_one(self, params: Any, batch: step.Batch, values: Values, *, axis_name: str | None = None,
                      prepare: step.Prepare = lambda params: params) -> Sums:
        return step.evaluate_step(with_values(self.config, values), prepare(params), batch, axis_name=axis_name)

    def _full_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        return task_of(self.config).batch_shapes(self.config, self.batch_rows)


class TurnsEngine(TogetherEngine):
    """One program of one cell, which the cells go through in turn; states and sums are lists."""

    name = "in turns"

    def __init__(self, configs: Sequence[Config], devices: Sequence[jax.Device]):
        super().__init__(configs, devices)
        here = jax.sharding.SingleDeviceSharding(self.devices[0])
        placed = {"in_shardings": here, "out_shardings": here}
        self._init = jax.jit(self._init_one, **placed)
        self._train = jax.jit(self._step_one, donate_argnums=0, **placed)
        self._evaluate = jax.jit(self._evaluate_one, **placed)
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), **placed)
        self._cell_values = [jax.device_put({path: value[number] for path, value in self.values.items()}, here)
                             for number in range(len(configs))]

    def init(self) -> States:
        return [self._init(values) for values in self._cell_values]

    def train_step(self, states: States, batches: Sequence[HostBatch]) -> tuple[States, Sums]:
        stepped = [self._programs.of(batch, self._lower)(state, dict(batch), values)
                   for state, batch, values in zip(states, batches, self._cell_values, strict=True)]
        return [state for state, _ in stepped], _by_name([sums for _, sums in stepped])

    def evaluate_step(self, states: States, batches: Sequence[HostBatch] | HostBatch) -> Sums:
        each = [batches] * len(states) if isinstance(batches, Mapping) else batches
        return _by_name([self._evaluate(evaluated_params(state), dict(batch), values)
                         for state, batch, values in zip(states, each, self._cell_values, strict=True)])

    def place(self, host_states: Sequence[TrainState]) -> States:
        # On CPU an array may share the memory of numpy's, which a donating step would then write over.
        return [self._copy(state) for state in host_states]

    def gather(self, states: States) -> list[TrainState]:
        return [jax.tree.map(np.array, state) for state in states]

    def memory_bytes(self) -> int | None:
        used = memory_of(self._programs.of(self._full_batch(), self._lower))
        waiting = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes()))
        return None if used is None else used + waiting * (len(self.configs) - 1)

    def _lower(self, batch: Any) -> jax.stages.Lowered:
        return self._train.lower(self.shapes(), batch, self._cell_values[0])


def _by_name(sums: Sequence[Sums]) -> dict[str, list[jax.Array]]:
    return {name: [one[name] for one in sums] for name in sums[0]}


class StackedEngine(TogetherEngine):
    """State, batches, numbers and sums have a leading axis of cells; a subclass says where they live.

    It sets `_init`, `_train`, `_evaluate` and `_evaluate_all` (one batch for all cells), jitted, and shardings.
    """

    _states_at: Any
    _batches_at: NamedSharding
    _shared_at: NamedSharding
    _values_at: NamedSharding

    def _compile_with(self, step_one: Callable, evaluate_one: Callable, wrap: Callable[..., Callable]) -> None:
        """Makes the jitted functions of one cell's; wrap(function, which arguments have cells) spreads them."""
        platform = self.devices[0].platform

        def evaluate_all(params: Any, batch: step.Batch, values: Values) -> Sums:
            return over_cells(lambda params, values: evaluate_one(params, batch, values), platform)(params, values)

        states, batches, shared, values = self._states_at, self._batches_at, self._shared_at, self._values_at
        self._values = jax.device_put(self.values, values)
        params = states if isinstance(states, NamedSharding) else states.params
        self._init = jax.jit(wrap(over_cells(self._init_one, platform), (True,)), out_shardings=states)
        self._train = jax.jit(wrap(over_cells(step_one, platform), (True, True, True)), donate_argnums=0,
                              in_shardings=(states, batches, values), out_shardings=(states, values))
        self._evaluate = jax.jit(wrap(over_cells(evaluate_one, platform), (True, True, True)),
                                 in_shardings=(params, batches, values))
        self._evaluate_all = jax.jit(wrap(evaluate_all, (True, False, True)), in_shardings=(params, shared, values))
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=states)

    def init(self) -> States:
        return self._init(self._values)

    def train_step(self, states: States, batches: Sequence[HostBatch]) -> tuple[States, Sums]:
        batch = jax.device_put(stack_batches(self._padded(batches)), self._batches_at)
        return self._programs.of(batch, self._lower)(states, batch, self._values)

    def evaluate_step(self, states: States, batches: Sequence[HostBatch] | HostBatch) -> Sums:
        params = evaluated_params(states)
        if isinstance(batches, Mapping):
            return self._evaluate_all(params, jax.device_put(dict(batches), self._shared_at), self._values)
        batch = jax.device_put(stack_batches(self._padded(batches)), self._batches_at)
        return self._evaluate(params, batch, self._values)

    def place(self, host_states: Sequence[TrainState]) -> States:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *self._padded(host_states))
        return self._copy(jax.device_put(stacked, self._states_at))

    def gather(self, states: States) -> list[TrainState]:
        host = jax.device_get(states)
        return cells_of(host, len(self.configs))

    def memory_bytes(self) -> int | None:
        return memory_of(self._programs.of(self._stacked_shapes(self._full_batch()), self._lower))

    def _padded(self, items: Sequence[Any]) -> list[Any]:
        return list(items)

    def _stacked_shapes(self, tree: Any) -> Any:
        count = len(self._padded(self.configs))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), tree)

    def _lower(self, batch: Any) -> jax.stages.Lowered:
        return self._train.lower(self._stacked_shapes(self.shapes()), batch, self._values)


class SpreadEngine(StackedEngine):
    """Each device trains its own cells; the last cell is trained again where they do not divide over devices."""

    name = "cells over devices"

    def __init__(self, configs: Sequence[Config], devices: Sequence[jax.Device]):
        super().__init__(configs, devices)
        self._extra = -len(self.configs) % len(self.devices)
        self.values = lifted_values(self._padded(self.configs))
        mesh = jax.sharding.Mesh(np.array(self.devices), ("cells",))
        cells, whole = PartitionSpec("cells"), PartitionSpec()
        self._states_at = self._batches_at = self._values_at = NamedSharding(mesh, cells)
        self._shared_at = NamedSharding(mesh, whole)

        def wrap(function: Callable, have_cells: tuple[bool, ...]) -> Callable:
            specs = tuple(cells if has else whole for has in have_cells)
            return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=cells, check_vma=False)

        self._compile_with(self._step_one, self._evaluate_one, wrap)

    def _padded(self, items: Sequence[Any]) -> list[Any]:
        return [*items, *[items[-1]] * self._extra]
