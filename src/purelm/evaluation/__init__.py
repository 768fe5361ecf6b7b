"""How an answer is judged: predictions, and the metrics of the field, one module a task.

A task's module here has

    input_format(config) -> the data format (data/formats.py) of new rows
    example_of_text(config, text) -> the example that a bare text stands for
    predict(run, examples, *, batch_size, progress=None) -> one JSON-able dict an example, with a probability
    score(run, examples, predictions) -> metrics of a whole split
    pictures(run, examples, predictions, folder) -> paths of what was drawn, where pictures say more
"""

from __future__ import annotations

import importlib
from types import ModuleType

from purelm.config import Config
from purelm.tasks import task_of


def evaluator_of(config: Config) -> ModuleType:
    """The module of evaluation/ that config.task.name names; of a task of the user's own, the task's."""
    if "." in config.task.name:
        return task_of(config)
    return importlib.import_module(f"purelm.evaluation.{config.task.name}")
