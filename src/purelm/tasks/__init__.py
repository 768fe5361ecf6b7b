"""What is learned: a batch, a loss as (sum, count), and the metrics of the field.

A task is one module here, named as config.task.name names it, with

    UNIT                                    what `weight` counts: "tokens", "examples", ...
    prepare(config, *, tokenizer=None, labels=None, progress=None) -> prepared data (see data.prepared.Prepared)
    batch_shapes(config, rows) -> {name: jax.ShapeDtypeStruct}, at the full context length
    initialize(config, key) -> params
    loss_sums(config, params, batch, key) -> {"loss", "cross_entropy", "weight", perhaps "correct"}, sums

and one in evaluation/ of the same name, which predicts and judges.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from purelm.config import Config


def task_of(config: Config) -> ModuleType:
    """The module of the task that config.task.name names."""
    return importlib.import_module(f"purelm.tasks.{config.task.name}")
