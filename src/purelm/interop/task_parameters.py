"""The shapes of a task's parameters, the model's and its head's, for a table of tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from purelm.config import Config, ModelConfig, TaskConfig
from purelm.training.state import params_shapes


def task_shapes(model: ModelConfig, task: str, **fields: Any) -> Any:
    """Abstract parameters of a resolved model with the head of a task, in nested dictionaries."""
    config = Config(model=model, task=TaskConfig(name=task))
    return params_shapes(dataclasses.replace(config, **fields))


def in_type(shapes: Any, dtype: Any) -> Any:
    """The same shapes in another type."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)
