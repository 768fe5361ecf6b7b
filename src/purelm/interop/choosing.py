"""Which family can hold a model, and the config.json that says so."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

from purelm.config import ModelConfig
from purelm.errors import UserError, did_you_mean
from purelm.interop.checkpoint import read_model
from purelm.interop.differences import differences
from purelm.interop.families import NAMES, family_named
from purelm.interop.folds import REWRITES, Rewrite, Step

_TASKS = {"dialogue": "language_modeling", "code_generation": "language_modeling",
          "span_corruption": "sequence_to_sequence"}


class Choice(NamedTuple):
    """A family, the fields of config.json, the class, the model as the family has it, and what was rewritten for it."""

    family: ModuleType
    fields: dict[str, Any]
    architecture: str
    model: ModelConfig
    steps: tuple[Step, ...] = ()


def export_task(task: str, model: ModelConfig) -> str:
    """The task whose class of transformers a run's model is of."""
    if model.architecture == "decoder" and task in ("sequence_to_sequence", "span_corruption"):
        return "language_modeling"
    return _TASKS.get(task, task)


def choose_family(model: ModelConfig, task: str, labels: tuple[str, ...] | None, wanted: str | None,
                  likely: str | None) -> Choice:
    """The family that computes what the model does, with the fewest rewrites (folds.py).

    Args:
      model: resolved.
      task: as `export_task` has it.
      labels: of a classifier or tagger.
      wanted: the name of the one to take, or None.
      likely: the one to try first, or None.

    Raises:
      UserError: there is none; the message says how the closest differs.
    """
    if wanted is not None and wanted not in NAMES:
        raise UserError(f"--family={wanted}: no such family{did_you_mean(wanted, NAMES)}; known are {', '.join(NAMES)}")
    names = [wanted] if wanted else sorted(NAMES, key=lambda name: name != likely)
    found = [_try(family_named(name), model, task, labels) for name in names]
    possible = [choice for choice in found if isinstance(choice, Choice)]
    if possible:
        return min(possible, key=lambda choice: len(choice.steps))
    failures = [failure for failure in found if failure is not None]
    if not failures:
        raise UserError(f"no family{'' if wanted is None else f' {wanted}'} has a class for the task {task} of a "
                        f"{model.architecture}; what can be written: {', '.join(NAMES)}")
    raise UserError(f"{'no family can' if wanted is None else f'--family={wanted} cannot'} hold this model: "
                    f"{min(failures)[1]}")


def _try(family: ModuleType, model: ModelConfig, task: str, labels: tuple[str, ...] | None,
         ) -> Choice | tuple[int, str] | None:
    """The choice, or (number of differences, what they are), or None where the family has no class for the task.

    Rewrites are taken one after another for as long as each leaves fewer differences.
    """
    architecture = next((name for name, of in family.TASKS.items() if of == task), None)
    if architecture is None:
        return None
    name = family.__name__.rpartition(".")[2]
    try:
        held, steps = _hold(family, model, task, architecture, labels), ()
    except UserError as error:
        return 1000, str(error)
    if held is None:
        return 1000, f"{name} is of another kind"
    while found := differences(model, held.model):
        nearer = next(filter(None, (_nearer(rewrite, model, held, task, labels) for rewrite in REWRITES)), None)
        if nearer is None:
            shown = [f"config.model.{field}={mine}, not {theirs}" for field, (mine, theirs) in found.items()]
            more = f"; and {len(shown) - 4} more" if len(shown) > 4 else ""
            return len(found), f"{name} is closest, but {'; '.join(shown[:4])}{more}"
        step, held = nearer
        model, steps = step.after, (*steps, step)
    # What is of this machine and of training stays the run's own.
    written = dataclasses.replace(held.model, param_dtype=model.param_dtype)
    return held._replace(model=written, steps=steps)


def _hold(family: ModuleType, model: ModelConfig, task: str, architecture: str, labels: tuple[str, ...] | None,
          ) -> Choice | None:
    """What the family makes of a model, whether or not it is that model; None for one of another kind.

    Raises:
      UserError: what the family would write, it cannot read.
    """
    fields = family.write_config(model, task)
    if fields is None:
        return None
    fields = {"model_type": family.MODEL_TYPES[0], "architectures": [architecture], **fields}
    if labels is not None:
        fields |= {"id2label": {str(number): label for number, label in enumerate(labels)},
                   "label2id": {label: number for number, label in enumerate(labels)}}
    name = family.__name__.rpartition(".")[2]
    return Choice(family, fields, architecture, read_model(family, fields, task, f"{name}'s config.json"))


def _nearer(rewrite: Rewrite, model: ModelConfig, held: Choice, task: str, labels: tuple[str, ...] | None,
            ) -> tuple[Step, Choice] | None:
    """The step, and what the family makes of its result, where that differs in fewer fields."""
    found = differences(model, held.model)
    after = rewrite.model(model, held.model) if found.keys() & set(rewrite.fields) else None
    if after is None:
        return None
    try:
        result = _hold(held.family, after, task, held.architecture, labels)
    except UserError:
        return None
    if result is None or len(differences(after, result.model)) >= len(found):
        return None
    return Step(rewrite, model, after, task), result
