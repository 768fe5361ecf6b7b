"""A pretrained encoder as the start of another task than it was published for: its head is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np

from purelm.config import Config, ModelConfig, TaskConfig
from purelm.errors import UserError
from purelm.interop.fields import Fields, class_names
from purelm.interop.mapping import leaves_of
from purelm.training.state import Purpose, initial_params, random_key

# Parameters that a checkpoint without a task's head lacks.
HEADS = ("classifier/", "span/")
_TASKS = ("classification", "tagging", "extractive_qa")


def for_task(values: Mapping[str, Any], family: ModuleType, task: str, num_classes: int | None, where: str,
             ) -> dict[str, Any]:
    """config.json as a checkpoint of `task` would have it.

    Raises:
      UserError: the family has no such head, or the checkpoint is of a class that is no encoder's.
    """
    possible = [name for name in _TASKS if name in family.TASKS.values()]
    if task not in possible:
        raise UserError(f"--task={task}: a head can be drawn for "
                        + (f"{', '.join(possible)} of this family" if possible else "encoders alone")
                        + "; leave --task out for the checkpoint's own")
    names = class_names(values, where)
    prefix = next(iter(family.TASKS)).partition("For")[0]
    if len(names) != 1 or names[0] not in (*family.TASKS, f"{prefix}Model"):
        raise UserError(f"{where}: architectures={names!r} cannot be taken over; of this family {prefix}Model, "
                        f"{', '.join(sorted(family.TASKS))} can")
    if num_classes is not None and task == "extractive_qa":
        raise UserError(f"--num_classes={num_classes} is of classification and tagging: leave it out")
    count = 2 if task == "extractive_qa" or num_classes is None else num_classes
    labels = {str(number): f"LABEL_{number}" for number in range(count)}
    own = {name: value for name, value in values.items() if name not in ("num_labels", "problem_type")}
    architecture = next(name for name, of in family.TASKS.items() if of == task)
    return own | {"architectures": [architecture], "id2label": labels,
                  "label2id": {label: int(number) for number, label in labels.items()}}


def other_heads(family: ModuleType, values: Mapping[str, Any], where: str) -> set[str]:
    """Names of the tensors of every head of the family."""
    names: set[str] = set()
    values = {name: value for name, value in values.items() if name not in ("id2label", "label2id")}
    for task in dict.fromkeys(family.TASKS.values()):
        changes = family.read_config(Fields(values, where), task)
        model = ModelConfig(**changes)
        names |= {tensor.theirs for tensor in family.tensors(model, task)} | family.aliases(model, task).keys()
    return names


def draw(model: ModelConfig, task: str, paths: tuple[str, ...], seed: int = 0) -> dict[str, jax.Array]:
    """The initial values of these parameters alone."""
    config = Config(model=model, task=TaskConfig(name=task))

    def initial() -> dict[str, jax.Array]:
        leaves = dict(leaves_of(initial_params(config, random_key(seed, Purpose.INITIALIZATION))))
        return {path: leaves[path] for path in paths}

    return {path: np.asarray(leaf) for path, leaf in jax.jit(initial)().items()}
