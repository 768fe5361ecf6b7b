"""A run's parameters by name, one leaf at a time, in the form that a family has them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from purelm.config import Config, ModelConfig
from purelm.interop.choosing import export_task
from purelm.interop.mapping import leaves_of
from purelm.interop.task_parameters import task_shapes
from purelm.training.checkpoint_restore import StoredParams, open_params
from purelm.training.run_folder import RunFolder
from purelm.training.state import params_shapes

# In place of a parameter that the family has and the run has not.
_FILL = {"bias": 0.0, "scale": 1.0}


class HeldParams(NamedTuple):
    """Parameters in memory, read as `StoredParams` are."""

    shapes: dict[str, np.ndarray]
    step: int

    def read(self, name: str, layer: int | None = None) -> np.ndarray:
        """One array, or one layer of it."""
        return self.shapes[name] if layer is None else self.shapes[name][layer]


@dataclasses.dataclass(frozen=True)
class RunLeaves:
    """Leaves of `written`, the model as a family has it, made of a run's own parameters."""

    stored: StoredParams | HeldParams
    config: Config
    written: ModelConfig

    def read(self, path: str, layer: int | None) -> np.ndarray:
        """One leaf, or one layer of a stacked one, on the host; where the run has none, what changes nothing."""
        model, stored = self.config.model, self.stored
        if path == "embedding/embedding" and model.embedding_norm and not self.written.embedding_norm:
            return _normalized(model, stored)
        if path in stored.shapes:
            return stored.read(path, layer)
        if path == "head/kernel":  # Tied before it was folded.
            return stored.read("embedding/embedding").T
        fill = 0.0 if self.written.norm_offset else _FILL[path.rpartition("/")[2]]
        leaf = self.shapes[path]
        return np.full(leaf.shape if layer is None else leaf.shape[1:], fill, np.float32)

    @functools.cached_property
    def shapes(self) -> dict[str, Any]:
        """Of every leaf of `written`."""
        return dict(leaves_of(task_shapes(self.written, export_task(self.config.task.name, self.written))))


def open_leaves(run: RunFolder, config: Config, checkpoint: str, written: ModelConfig) -> RunLeaves:
    """The run's parameters, its adapters merged; raises UserError as `load_run`."""
    if config.adapter.rank is not None:
        from purelm.training.load import load_run

        loaded = load_run(str(run.path), checkpoint)
        held = {path: np.asarray(leaf) for path, leaf in leaves_of(loaded.params)}
        return RunLeaves(HeldParams(held, loaded.step), config, written)
    which = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    return RunLeaves(open_params(run.checkpoints, which, params_shapes(config)), config, written)


def _normalized(model: ModelConfig, stored: StoredParams | HeldParams) -> np.ndarray:
    """The table of embeddings after the norm that reads nothing else."""
    from purelm.models.norms import Norm

    prefix = "embedding_norm/"
    params = {name.removeprefix(prefix): stored.read(name) for name in stored.shapes if name.startswith(prefix)}
    scale = model.width ** 0.5 if model.embedding_scale == "sqrt_width" else 1.0
    table_VD = np.asarray(stored.read("embedding/embedding"), np.float32) * scale
    return np.asarray(Norm(model).apply({"params": params}, table_VD))
