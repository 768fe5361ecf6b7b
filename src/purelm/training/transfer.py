"""Where a run starts: drawn at random, from another run's parameters, or from word vectors."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from purelm.config import Config
from purelm.data.tokenizers import Tokenizer
from purelm.errors import UserError
from purelm.training.optimizer import float32
from purelm.training.rules import path_name

# The axis of a table that counts tokens or positions: of another length, the rows that both have are taken.
_TABLES = {"embedding": 0, "head/bias": 0, "head/kernel": 1}


def start_state(config: Config, engine: Any, tokenizer: Tokenizer) -> tuple[Any, list[str]]:
    """(the state before the first update, placed; lines that say what was taken from where).

    Raises:
      UserError: config.init_from is no run, or nothing of it fits; config.init_vectors cannot be read or does not fit.
    """
    state = engine.init(config.seed)
    if config.init_from is None and config.init_vectors is None:
        return state, []
    state, lines = taken_over(config, engine.gather(state), tokenizer)
    return engine.place(state), lines


def taken_over(config: Config, state: Any, tokenizer: Tokenizer) -> tuple[Any, list[str]]:
    """(a drawn state on the host with what the run starts from in its place; lines). Raises as `start_state`."""
    params, lines = state.params, []
    if config.init_from is not None:
        params, more = parameters_of_run(config, params)
        lines += more
    if config.init_vectors is not None:
        from purelm.training.vectors import initial_embeddings

        params, note = initial_embeddings(config, tokenizer, params)
        lines.append(note)
    ema = None if state.ema is None else jax.tree.map(np.asarray, float32(params))
    return dataclasses.replace(state, params=params, ema=ema), lines


def parameters_of_run(config: Config, params: Any) -> tuple[Any, list[str]]:
    """`params` (host arrays) with those of the run config.init_from in place wherever the name is the same.

    The shape must be the same too, but for tables of tokens or positions: of these the rows that both have are taken.
    Adapters of that run are merged into its matrices first.

    Raises:
      UserError: no such run, or not one parameter matches.
    """
    from purelm.training.load import load_run

    source = {path_name(path): np.asarray(leaf)
              for path, leaf in jax.tree_util.tree_leaves_with_path(load_run(config.init_from, field="config.init_from")
                                                                    .params)}
    taken, resized, other_shape, missing = [], [], [], []

    def take(path, leaf):
        name = path_name(path)
        if name not in source:
            missing.append(name)
            return leaf
        found = source[name]
        if found.shape == leaf.shape:
            taken.append(name)
            return found.astype(leaf.dtype)
        common = tuple(min(a, b) for a, b in zip(found.shape, leaf.shape))
        differ = [axis for axis, (a, b) in enumerate(zip(found.shape, leaf.shape)) if a != b]
        axis = next((axis for table, axis in _TABLES.items() if name.endswith(table)), None)
        if found.ndim == leaf.ndim and differ == [axis]:
            resized.append(f"{name} ({common[axis]:,} of {leaf.shape[axis]:,} rows)")
            index = tuple(slice(size) for size in common)
            leaf = np.array(leaf)
            leaf[index] = found[index]
            return leaf
        other_shape.append(f"{name} ({list(found.shape)} there, {list(leaf.shape)} here)")
        return leaf

    result = jax.tree_util.tree_map_with_path(take, params)
    if not taken and not resized:
        raise UserError(f"config.init_from={config.init_from}: no parameter of that run has the name and shape of one "
                        f"here{': ' + '; '.join(other_shape[:3]) if other_shape else ''}; give the same config.model")
    lines = [f"{config.init_from}: {len(taken) + len(resized)} of {len(taken) + len(resized) + len(missing)} "
             f"parameters taken by name" + (f", {', '.join(resized)}" if resized else "")]
    if other_shape:
        lines.append(f"note: of another shape, and so not taken: {', '.join(other_shape)}")
    if missing:
        lines.append(f"not in that run, and so drawn at random: {', '.join(missing)}")
    unused = sorted(set(source) - set(taken) - {part.split(' ')[0] for part in [*resized, *other_shape]})
    if unused:
        lines.append(f"of that run alone, and so left out: {', '.join(unused)}")
    return result, lines
