"""A run's parameters by name, one leaf at a time, with its adapters merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from purelm.config import Config
from purelm.interop.mapping import leaves_of
from purelm.training.checkpoint_restore import StoredParams, open_params
from purelm.training.run_folder import RunFolder
from purelm.training.state import params_shapes


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
