"""A run's parameters by name, one leaf at a time, in the form that a family has them."""

from __future__ import annotations

from collections.abc import Sequence
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

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of these names."""
        return {name: self.shapes[name] for name in names}


def open_run_params(run: RunFolder, config: Config, checkpoint: str) -> tuple[StoredParams | HeldParams, int]:
    """(what reads leaves by name, the step); raises UserError as `load_run`."""
    if config.adapter.rank is not None:
        from purelm.training.load import load_run

        loaded = load_run(str(run.path), checkpoint)
        return HeldParams(_on_host(loaded.params)), loaded.step
    which = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    stored = open_params(run.checkpoints, which, params_shapes(config))
    return stored, stored.step


def _on_host(params: Any) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in leaves_of(params)}


def read_leaves(paths: tuple[str, ...], read: Any, config: Config, model: ModelConfig) -> dict[str, np.ndarray]:
    """Leaves of `model` on the host; those that the run has not, as what changes nothing."""
    found = {path: read.read([path])[path] for path in paths if path in read.shapes}
    is_folded = config.model.embedding_norm and not model.embedding_norm
    if is_folded and "embedding/embedding" in found:
        found["embedding/embedding"] = _normalized(config.model, read, found["embedding/embedding"])
    if "head/kernel" in paths and "head/kernel" not in found:  # Tied before it was folded.
        found["head/kernel"] = read.read(["embedding/embedding"])["embedding/embedding"].T
    missing = [path for path in paths if path not in found]
    if missing:
        shapes = dict(leaves_of(task_shapes(model, export_task(config.task.name, model))))
        for path in missing:
            fill = 0.0 if model.norm_offset else _FILL[path.rpartition("/")[2]]
            found[path] = np.full(shapes[path].shape, fill, np.float32)
    return found


def _normalized(model: ModelConfig, read: Any, table_VD: np.ndarray) -> np.ndarray:
    """The table of embeddings after the norm that reads nothing else."""
    from purelm.models.norms import Norm

    params = read.read([name for name in read.shapes if name.startswith("embedding_norm/")])
    params = {name.removeprefix("embedding_norm/"): leaf for name, leaf in params.items()}
    scale = model.width ** 0.5 if model.embedding_scale == "sqrt_width" else 1.0
    return np.asarray(Norm(model).apply({"params": params}, np.asarray(table_VD, np.float32) * scale))
