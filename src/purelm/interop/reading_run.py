"""A run's parameters by name, one leaf at a time, in the form that a family has them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from purelm.config import Config
from purelm.interop.folds import Step, read_through
from purelm.interop.mapping import leaves_of
from purelm.training.checkpoint_restore import StoredParams, open_params
from purelm.training.run_folder import RunFolder
from purelm.training.state import params_shapes


class HeldParams(NamedTuple):
    """Parameters in memory, read as `StoredParams` are."""

    shapes: dict[str, np.ndarray]
    step: int

    def read(self, name: str, layer: int | None = None) -> np.ndarray:
        """One array, or one layer of it."""
        return self.shapes[name] if layer is None else self.shapes[name][layer]


class RunLeaves(NamedTuple):
    """Leaves of a model as a family has it, made of a run's own parameters by the steps that led to it."""

    stored: StoredParams | HeldParams
    steps: tuple[Step, ...]

    def read(self, path: str, layer: int | None) -> np.ndarray:
        """One leaf, or one layer of a stacked one, on the host."""
        return read_through(self.steps, self.stored.read)(path, layer)


def open_leaves(run: RunFolder, config: Config, checkpoint: str, steps: tuple[Step, ...]) -> RunLeaves:
    """The run's parameters, its adapters merged; raises UserError as `load_run`."""
    if config.adapter.rank is not None:
        from purelm.training.load import load_run

        loaded = load_run(str(run.path), checkpoint)
        held = {path: np.asarray(leaf) for path, leaf in leaves_of(loaded.params)}
        return RunLeaves(HeldParams(held, loaded.step), steps)
    which = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    return RunLeaves(open_params(run.checkpoints, which, params_shapes(config)), steps)
