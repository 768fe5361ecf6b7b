"""A training state as items for Orbax: parameters, their average, the optimizer; each a nested dictionary of arrays.

Paths are plain names, so that a checkpoint does not depend on the Python classes of an optimizer's state, and any
program with Orbax can read it.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from purelm.errors import UserError
from purelm.training.manifests import Manifest

PyTree = Any


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _report_unraisable(unraisable: Any) -> None:
    """sys.unraisablehook, but for what TensorStore's pending writes say when a failed save has closed their loop."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def load_orbax() -> ModuleType:
    # A failed save raises its error, which becomes one line; Orbax and TensorStore print tracebacks of it besides.
    logging.getLogger("absl").addFilter(_not_from_orbax)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _report_unraisable
    return importlib.import_module("orbax.checkpoint")


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Path such as `layers/attention/query/kernel` -> leaf; None and empty nodes have no leaves."""
    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named or name.count("/") != max(len(path) - 1, 0):
            raise ValueError(f"a key of the state holds a slash: {name}")
        named[name] = leaf
    return named


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, leaf in named.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return nested


def state_items(state: Any) -> dict[str, PyTree]:
    items = {"params": state.params, "ema": state.ema,
             "optimizer": {"step": state.step, "opt_state": state.opt_state}}
    return {item: tree for item, tree in items.items() if jax.tree.leaves(tree)}


def as_array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else np.asarray(leaf)


def dtypes_and_shapes(tree: PyTree) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (np.dtype(as_array(leaf).dtype).name, tuple(as_array(leaf).shape))
            for name, leaf in named_leaves(tree).items()}


def check_same_model(items: Mapping[str, PyTree], manifest: Manifest, where: Path) -> None:
    """Raises UserError naming the first array of the abstract `items` that the checkpoint holds otherwise or not."""
    for item, tree in items.items():
        expected, stored = dtypes_and_shapes(tree), manifest.arrays.get(item, {})
        # Shapes say more about which model this is than missing names do, so shared names come first.
        for name in sorted([*expected, *(stored.keys() - expected.keys())],
                           key=lambda name: (name not in expected or name not in stored, name)):
            if expected.get(name) != stored.get(name):
                kind = {"params": "parameter", "ema": "averaged parameter", "optimizer": "optimizer state"}[item]
                raise UserError(
                    f"checkpoint {where} is of another model or optimizer: {kind} '{name}' is "
                    f"{_describe(stored, name)} there and {_describe(expected, name)} here; "
                    "use the config it was trained with")


def _describe(leaves: Mapping[str, tuple[str, tuple[int, ...]]], name: str) -> str:
    if name not in leaves:
        return "missing"
    dtype, shape = leaves[name]
    return f"{dtype}{list(shape)}"


def to_save(items: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """What Orbax is given: without arrays of size zero, and items left empty by that, which it cannot write."""
    stored = {item: {name: as_array(leaf) for name, leaf in named_leaves(tree).items()
                     if not is_empty(as_array(leaf).shape)} for item, tree in items.items()}
    return {item: nest(leaves) for item, leaves in stored.items() if leaves}


def piece_arguments(ocp: ModuleType, items: Mapping[str, PyTree], piece_bytes: int) -> dict[str, Any]:
    """Arguments of a save, by item: arrays in pieces of at most so many bytes, stacked ones cut between layers."""

    def save_args(path: Any, leaf: Any) -> Any:
        stacked = any(getattr(key, "key", None) == "layers" for key in path)
        return ocp.SaveArgs(chunk_byte_size=piece_bytes, shard_axes=(0,) if stacked and np.ndim(leaf) > 1 else ())

    return {item: ocp.args.PyTreeSave(tree, save_args=jax.tree_util.tree_map_with_path(save_args, tree),
                                      ocdbt_target_data_file_size=piece_bytes) for item, tree in items.items()}


def is_empty(shape: tuple[int, ...]) -> bool:
    return 0 in shape


def open_array(path: Path, name: str) -> Any:
    """The TensorStore array of one leaf of the item at `path`, of which nothing is read yet."""
    import tensorstore

    base = {"driver": "ocdbt", "base": f"file://{path.absolute()}/", "path": f"{name.replace('/', '.')}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": base}, open=True).result()


def restore_item(path: Path, abstract: PyTree) -> PyTree:
    """`abstract` with its leaves read from `path`: jax.Arrays where a leaf has a sharding, else numpy arrays."""
    ocp = load_orbax()
    leaves, arguments, restored = {}, {}, {}
    for name, leaf in named_leaves(abstract).items():
        leaf = as_array(leaf)
        sharding = getattr(leaf, "sharding", None)
        if is_empty(leaf.shape):
            zeros = np.zeros(leaf.shape, leaf.dtype)
            restored[name] = zeros if sharding is None else jax.device_put(zeros, sharding)
            continue
        leaves[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        arguments[name] = (
            ocp.RestoreArgs(restore_type=np.ndarray) if sharding is None else
            ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype))
    if leaves:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = checkpointer.restore(path.absolute(), args=ocp.args.PyTreeRestore(
                item=nest(leaves), restore_args=nest(arguments)))
        restored |= named_leaves(tree)
    return jax.tree.unflatten(jax.tree.structure(abstract), [restored[name] for name in named_leaves(abstract)])
