"""Restoring: the first checkpoint whose every byte is right, of the right model, onto any devices."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.errors import UserError, did_you_mean
from purelm.training import manifests
from purelm.training.checkpoint_items import (
    PyTree,
    check_same_model,
    is_empty,
    nest,
    open_array,
    restore_item,
    state_items,
)
from purelm.training.manifests import Manifest

Warn = Callable[[str], None]
_NONE, _ALL_DAMAGED = -1, -2


def warn_on_stderr(message: str) -> None:
    """Prints `warning: message`."""
    print(f"warning: {message}", file=sys.stderr)


class Restored(NamedTuple):
    """A checkpoint's state, the updates made by then, what was given to `save` as metadata, and damaged newer steps."""

    state: Any
    step: int
    metadata: dict[str, Any]
    damaged: frozenset[int]


def restore_latest(folder: str | os.PathLike[str], abstract_state: Any, *, at: int | None = None,
                   warn: Warn = warn_on_stderr) -> Restored | None:
    """The newest checkpoint whose every byte is right, on any devices.

    Args:
      folder: of the checkpoints.
      abstract_state: dataclass with fields step, params, opt_state, ema; leaves are `jax.ShapeDtypeStruct`s or arrays.
        One with a sharding comes back as a jax.Array with it, one without as a numpy array.
      at: this step alone, where it is given.
      warn: told, in one line, which files are damaged and which step is used instead.

    Returns:
      None where nothing was ever saved.

    Raises:
      UserError: all are damaged, or the newest good one is of another model or optimizer.
    """
    folder = Path(folder)
    steps = list(manifests.step_folders(folder))[::-1] if at is None else [at]
    manifest, damaged = _choose(folder, steps, None, warn)
    if manifest is None:
        return None
    path, abstract = folder / str(manifest.step), state_items(abstract_state)
    check_same_model(abstract, manifest, path)
    if "ema" in manifest.arrays and "ema" not in abstract:
        raise UserError(f"checkpoint {path} holds averaged parameters, which this run does not keep; "
                        "set config.training.ema_decay as it was trained with")
    items = {item: restore_item(path / item, tree) for item, tree in abstract.items()}
    state = dataclasses.replace(abstract_state, params=items["params"], ema=items.get("ema"), **items["optimizer"])
    return Restored(state, manifest.step, manifest.metadata, damaged)


class StoredParams(NamedTuple):
    """Parameters in a checkpoint whose every byte is right: `shapes` of what is stored, by names such as
    layers/attention/query/kernel, read one by one and layer by layer."""

    path: Path
    shapes: dict[str, jax.ShapeDtypeStruct]
    step: int

    def read(self, name: str, layer: int | None = None) -> np.ndarray:
        """One array on the host, or one layer of a stacked one: no more of it is in memory."""
        leaf = self.shapes[name]
        if is_empty(leaf.shape):
            return np.zeros(leaf.shape if layer is None else leaf.shape[1:], leaf.dtype)
        stored = open_array(self.path, name)
        return np.asarray((stored if layer is None else stored[layer]).read().result())


def open_params(folder: str | os.PathLike[str], which: int | str, shapes: PyTree, *,
                warn: Warn = warn_on_stderr) -> StoredParams:
    """What `restore_params` would give, opened and not read; raises as it does."""
    folder = Path(folder)
    manifest, item = _params_of(folder, which, shapes, True, warn)
    stored = {name: jax.ShapeDtypeStruct(shape, np.dtype(dtype))
              for name, (dtype, shape) in manifest.arrays[item].items()}
    return StoredParams(folder / str(manifest.step) / item, stored, manifest.step)


def restore_params(folder: str | os.PathLike[str], which: int | str = "latest", *, shapes: PyTree = None,
                   prefer_ema: bool = True, warn: Warn = warn_on_stderr) -> tuple[PyTree, int]:
    """Parameters alone, and their step; the optimizer need not be known, nor its files be whole.

    Args:
      folder: of the checkpoints.
      which: a step; "latest"; or "best", that of the lowest validation loss (the latest where none was scored).
      shapes: leaves as `restore_latest`'s; None takes what is there, as numpy arrays in dictionaries.
      prefer_ema: take the averaged parameters where the checkpoint holds them, in the type they were kept in.

    Raises:
      UserError: there is none, all (or the one asked for) are damaged, or it is of another model.
    """
    folder = Path(folder)
    manifest, item = _params_of(folder, which, shapes, prefer_ema, warn)
    if shapes is None:
        shapes = nest({name: jax.ShapeDtypeStruct(shape, np.dtype(dtype))
                       for name, (dtype, shape) in manifest.arrays[item].items()})
    elif item == "ema":
        dtypes = nest({name: np.dtype(dtype) for name, (dtype, _) in manifest.arrays["ema"].items()})
        shapes = jax.tree.map(
            lambda leaf, dtype: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=getattr(leaf, "sharding", None)),
            shapes, dtypes)
    return restore_item(folder / str(manifest.step) / item, shapes), manifest.step


def _params_of(folder: Path, which: int | str, shapes: PyTree, prefer_ema: bool, warn: Warn) -> tuple[Manifest, str]:
    """The first sound checkpoint, and which of its items are the parameters; raises as `restore_params`."""
    # Which kind of parameters there is is not known yet, so the files of both must be whole.
    manifest, _ = _choose(folder, _order(folder, which), ["params", "ema"], warn)
    if manifest is None:
        raise UserError(f"there is no checkpoint in {folder}; train first, or give the folder of a run that was")
    if shapes is not None:
        check_same_model({"params": shapes}, manifest, folder / str(manifest.step))
    return manifest, "ema" if prefer_ema and "ema" in manifest.arrays else "params"


def _order(folder: Path, which: int | str) -> list[int]:
    """Steps to try, the wanted one first."""
    newest_first = list(manifests.step_folders(folder))[::-1]
    if which == "latest":
        return newest_first
    if which == "best":
        scored = manifests.best_first(manifests.good_manifests(folder))
        return scored + [step for step in newest_first if step not in scored]
    if not str(which).isdecimal():
        raise UserError(f"checkpoint '{which}' is neither latest, best nor a step"
                        f"{did_you_mean(str(which), ['latest', 'best'])}")
    if int(which) not in newest_first:
        known = ", ".join(map(str, newest_first[::-1])) or "none"
        raise UserError(f"there is no checkpoint {which} in {folder}; there are: {known}")
    return [int(which)]


def _choose(folder: Path, order: list[int], items: list[str] | None, warn: Warn
            ) -> tuple[Manifest | None, frozenset[int]]:
    """The first undamaged step in `order` and the damaged ones before it; raises UserError where all are damaged."""
    manifest, problems = None, {}
    if jax.process_index() == 0:
        manifest, problems = manifests.first_good(folder, order, items=items)
    described = ", ".join(f"{step} ({problem})" for step, problem in problems.items())
    step = _agree(manifest.step if manifest else _ALL_DAMAGED if problems else _NONE)
    if step == _ALL_DAMAGED:
        raise UserError(f"no checkpoint in {folder} can be trusted; damaged: {described or 'all'}; "
                        "put back a copy, or delete the folder to start again")
    if step == _NONE:
        return None, frozenset()
    if problems:
        warn(f"damaged checkpoint in {folder}: {described}; using checkpoint {step} instead")
    return manifest or manifests.read_manifest(folder / str(step)), frozenset(problems)


def _agree(step: int) -> int:
    """The primary process's choice, in every process."""
    if jax.process_count() == 1:
        return step
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(step)))
