"""What is learned: a batch, a loss as (sum, count), and the metrics of the field.

A task is one module here, named as config.task.name names it, with

    UNIT                                    what `weight` counts: "tokens", "examples", ...
    prepare(config, *, tokenizer=None, labels=None, progress=None) -> prepared data (see data.prepared.Prepared)
    batch_shapes(config, rows) -> {name: jax.ShapeDtypeStruct}, at the full context length
    initialize(config, key) -> params
    loss_sums(config, params, batch, key) -> {"loss", "cross_entropy", "weight", perhaps "correct"}, sums

and one in evaluation/ of the same name, which predicts and judges. A task of the user's own is a module anywhere, named
with a dot, which has both.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from purelm.config import Config
from purelm.errors import UserError


def task_of(config: Config) -> ModuleType:
    """The module of the task that config.task.name names: one here, or with a dot the user's own.

    Raises:
      UserError: there is no such module on the path or in the working folder.
    """
    name = config.task.name
    if "." not in name:
        return importlib.import_module(f"purelm.tasks.{name}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise UserError(f"config.task.name={name}: there is no module {error.name} on the path or in {os.getcwd()}; "
                        "give the module of your task, such as my_tasks.rating for my_tasks/rating.py") from error
