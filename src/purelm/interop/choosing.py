"""Which family can hold a model, and the config.json that says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from purelm.config import ModelConfig
from purelm.errors import UserError, did_you_mean
from purelm.interop.checkpoint import read_model
from purelm.interop.families import NAMES, family_named

# Fields that are of training, of this machine, or of a window's length where positions are no parameters.
_WITHOUT_EFFECT = frozenset({
    "initialization", "initialization_stddev", "zero_outputs", "zero_head", "embedding_dropout", "attention_dropout",
    "residual_dropout", "feed_forward_dropout", "classifier_dropout", "attention_implementation", "scan_layers",
    "remat", "param_dtype", "compute_dtype"})
_BIASES = ("query_key_value_bias", "attention_output_bias", "feed_forward_bias", "norm_bias")
# What a family may have that the model has not: written as zeros, and scales of norms as ones.
_CAN_BE_FILLED = frozenset({*_BIASES, "bias", "head_bias", "norm_scale"})
_TASKS = {"dialogue": "language_modeling", "code_generation": "language_modeling",
          "span_corruption": "sequence_to_sequence"}


class Choice(NamedTuple):
    """A family, the fields of config.json, the class, and the model as the family has it, maybe with more biases."""

    family: ModuleType
    fields: dict[str, Any]
    architecture: str
    model: ModelConfig


def export_task(task: str, model: ModelConfig) -> str:
    """The task whose class of transformers a run's model is of."""
    if model.architecture == "decoder" and task in ("sequence_to_sequence", "span_corruption"):
        return "language_modeling"
    return _TASKS.get(task, task)


def choose_family(model: ModelConfig, task: str, labels: tuple[str, ...] | None, wanted: str | None,
                  likely: str | None) -> Choice:
    """The first family that computes what the model does.

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
    failures: list[tuple[int, str]] = []
    possible: list[Choice] = []
    for variant in dict.fromkeys((model, folded(model))):
        found = [_try(family_named(name), variant, task, labels) for name in names]
        choices = [choice for choice in found if isinstance(choice, Choice)]
        possible += sorted(choices, key=lambda choice: bool(differences(variant, choice.model)))
        failures += [failure for failure in found if isinstance(failure, tuple) and not isinstance(failure, Choice)]
    if possible:
        return possible[0]
    if not failures:
        raise UserError(f"no family{'' if wanted is None else f' {wanted}'} has a class for the task {task} of a "
                        f"{model.architecture}; what can be written: {', '.join(NAMES)}")
    raise UserError(f"{'no family can' if wanted is None else f'--family={wanted} cannot'} hold this model: "
                    f"{min(failures)[1]}")


def _try(family: ModuleType, model: ModelConfig, task: str, labels: tuple[str, ...] | None,
         ) -> Choice | tuple[int, str] | None:
    """The choice, or (number of differences, what they are), or None where the family has no class for the task."""
    architecture = next((name for name, of in family.TASKS.items() if of == task), None)
    if architecture is None:
        return None
    name = family.__name__.rpartition(".")[2]
    fields = family.write_config(model, task)
    if fields is None:
        return 1000, f"{name} is of another kind"
    fields = {"model_type": family.MODEL_TYPES[0], "architectures": [architecture], **fields}
    if labels is not None:
        fields |= {"id2label": {str(number): label for number, label in enumerate(labels)},
                   "label2id": {label: number for number, label in enumerate(labels)}}
    try:
        held = read_model(family, fields, task, f"{name}'s config.json")
    except UserError as error:
        return 1000, str(error)
    found = differences(model, held)
    if not set(found) <= _CAN_BE_FILLED or not all(held_value for _, held_value in found.values()):
        shown = [f"config.model.{field}={mine}, not {theirs}" for field, (mine, theirs) in found.items()]
        return len(found), f"{name} is closest, but {'; '.join(shown[:4])}"
    # What is of this machine and of training stays the run's own.
    return Choice(family, fields, architecture, dataclasses.replace(held, param_dtype=model.param_dtype))


def folded(model: ModelConfig) -> ModelConfig:
    """The same function without config.model.embedding_norm, where the table of embeddings can be normalized instead.

    That is so where nothing is added to the embedding before its norm. A tied output layer then gets its own table.
    """
    if not model.embedding_norm or model.architecture == "encoder_decoder" or model.token_types or (
            model.positions in ("learned", "sinusoidal") or model.embedding_width not in (None, model.width)):
        return model
    return dataclasses.replace(model, embedding_norm=False, embedding_scale="one", tied_embeddings=False)


def differences(model: ModelConfig, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Fields in which two resolved models compute otherwise, with both values."""
    mine, theirs = _said(model), _said(other)
    return {field: (mine[field], theirs[field]) for field in mine if mine[field] != theirs[field]}


def _said(model: ModelConfig) -> Mapping[str, Any]:
    """Every field that changes what is computed, those that follow from others filled in."""
    said = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)
            if field.name not in _WITHOUT_EFFECT}
    rms = model.norm == "rms_norm"
    for name in _BIASES:
        said[name] = model.bias if said[name] is None else said[name]
    said["norm_bias"] = said["norm_bias"] and not rms
    # All that `bias` says besides is said by the four; a layer before the output has one of its own.
    said["bias"] = model.bias if model.head_transform else said["feed_forward_bias"]
    if model.positions != "learned":
        said["context_length"] = None
    if said["embedding_width"] == model.width:
        said["embedding_width"] = None
    return said
