"""A published checkpoint's folder, read and checked before anything is written: its model, task, labels and tensors."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from purelm.config import ModelConfig, resolve_model
from purelm.config.shapes import check_model
from purelm.errors import UserError, did_you_mean
from purelm.interop.checkpoint_files import Stored, open_weights, read_exactly, read_json
from purelm.interop.families import family_of
from purelm.interop.fields import Fields, class_names
from purelm.interop.mapping import Tensor, lines_by_name, shape_of
from purelm.interop.new_heads import HEADS, for_task, other_heads
from purelm.interop.task_parameters import task_shapes

_FLOATS = ("float32", "float16", "bfloat16")
_SAME_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is in a folder.

    Attributes:
      folder: where it is.
      family: the module of its family.
      fields: config.json.
      task: config.task.name.
      model: the model, resolved, in float32 (types are whoever reads it to choose).
      labels: classes in the order of their numbers, or None.
      tensors: the family's table for this model.
      files: where each tensor of the table lies, by the table's names.
      names: of these, the names in the files.
      others: tensors that are not read, by their names in the files: known ones, and copies of tied ones.
      drawn: paths of parameters that no file has: of the head of a task that the checkpoint was not made for.
      retasked: whether the task is another than the checkpoint's own.
    """

    folder: pathlib.Path
    family: ModuleType
    fields: dict[str, Any]
    task: str
    model: ModelConfig
    labels: tuple[str, ...] | None
    tensors: list[Tensor]
    files: dict[str, Stored]
    names: dict[str, str]
    others: dict[str, Stored]
    drawn: tuple[str, ...]
    retasked: bool


def open_checkpoint(folder: pathlib.Path, task: str | None = None, num_classes: int | None = None) -> Checkpoint:
    """The checkpoint in a folder, all of it checked but the numbers.

    Args:
      folder: with config.json and weights.
      task: to begin from it another than its own, such as classification from a pretrained encoder; None is its own.
      num_classes: of such a task.

    Raises:
      UserError: an unknown family, class, option or tensor, one that is missing, or a file that is damaged.
    """
    where = str(folder / "config.json")
    values = read_json(folder / "config.json")
    if "model_type" not in values:
        raise UserError(f"{where}: has no model_type; give the folder that save_pretrained wrote")
    family = family_of(values["model_type"], where)
    retasked = task is not None
    if retasked:
        values = for_task(values, family, task, num_classes, where)
    task = task or _task(values, family, where)
    model = read_model(family, values, task, where)
    tensors = family.tensors(model, task)
    found = open_weights(folder)
    shapes = task_shapes(model, task)
    wanted = lines_by_name(tensors, shapes)
    tied = family.aliases(model, task)
    names = _names(family, found, wanted.keys() | tied.keys(), folder)
    files = {name: found[names[name]] for name in wanted if name in names}
    if retasked:  # A head of another number of classes is drawn anew too.
        files = {name: stored for name, stored in files.items()
                 if not _of_head(wanted[name]) or stored.shape == shape_of(wanted[name], shapes)}
    missing = {name: lines for name, lines in wanted.items() if name not in files}
    drawn = ()
    if retasked and all(map(_of_head, missing.values())):
        drawn, missing = tuple(tensor.ours for lines in missing.values() for tensor, _ in lines), {}
    _check_missing(folder, list(missing), found)
    others = {name: in_file for name, in_file in names.items() if name not in files}
    known = other_heads(family, values, where) if retasked else ()
    _check_others(family, tied, files, {name: found[in_file] for name, in_file in others.items()}, known)
    for name, stored in files.items():
        if stored.dtype.name not in _FLOATS:
            raise UserError(f"{stored.file}: tensor {name} is {stored.dtype.name}, which is no type of parameters; "
                            f"one of {', '.join(_FLOATS)} can be taken over")
    return Checkpoint(
        folder, family, values, task, model, _labels(values, task, where), tensors, files,
        {name: names[name] for name in files}, {in_file: found[in_file] for in_file in others.values()}, drawn,
        retasked)


def _of_head(lines: Sequence[tuple[Tensor, int | None]]) -> bool:
    return all(tensor.ours.startswith(HEADS) for tensor, _ in lines)


def _names(family: ModuleType, found: Mapping[str, Stored], known: Collection[str], folder: pathlib.Path,
           ) -> dict[str, str]:
    """The table's name of each tensor in the files -> its name there."""
    names: dict[str, str] = {}
    for in_file in found:
        name = table_name(family, in_file, known)
        if name in names:
            raise UserError(f"{folder}: tensors {names[name]} and {in_file} are both {name}; take one of them out")
        names[name] = in_file
    return names


def table_name(family: ModuleType, name: str, known: Collection[str]) -> str:
    """What the table calls a tensor of a file: files of the base class leave out its prefix, old ones have other names.
    """
    for pattern, replacement in getattr(family, "RENAMED", ()):
        name = re.sub(pattern, replacement, name)
    return family.BASE + name if name not in known and family.BASE + name in known else name


def read_model(family: ModuleType, values: Mapping[str, Any], task: str, where: str) -> ModelConfig:
    """The model that a config.json says; UserError for an option that cannot be taken over."""
    if values.get("quantization_config"):
        raise UserError(f"{where}: quantization_config: quantized weights cannot be taken over; take the checkpoint "
                        "that they were made from (and --quantize when it is used)")
    fields = Fields(values, where)
    changes = family.read_config(fields, task)
    fields.finish()
    if task in ("classification", "tagging"):
        changes["num_classes"] = len(_labels(values, task, where))
    model = dataclasses.replace(ModelConfig(), **changes)
    check_model(model)
    return resolve_model(model, model.vocabulary_size)


def _task(values: Mapping[str, Any], family: ModuleType, where: str) -> str:
    names = class_names(values, where)
    known = ", ".join(sorted(family.TASKS))
    if len(names) != 1:
        raise UserError(f"{where}: architectures={names!r} does not name one class; one of {known} can be taken over")
    if names[0] not in family.TASKS:
        raise UserError(f"{where}: architectures={names[0]!r} cannot be taken over"
                        f"{did_you_mean(names[0], family.TASKS)}; of this family {known} can")
    return family.TASKS[names[0]]


def _labels(values: Mapping[str, Any], task: str, where: str) -> tuple[str, ...] | None:
    if task not in ("classification", "tagging"):
        return None
    labels = values.get("id2label")
    if labels is None:
        return tuple(f"LABEL_{number}" for number in range(values.get("num_labels", 2)))
    try:
        by_number = {int(number): str(label) for number, label in labels.items()}
    except (AttributeError, ValueError) as error:
        raise UserError(f"{where}: id2label is no object of labels by number") from error
    if sorted(by_number) != list(range(len(by_number))) or len(set(by_number.values())) != len(by_number):
        raise UserError(f"{where}: id2label does not give each number from 0 a label of its own")
    return tuple(by_number[number] for number in range(len(by_number)))


def _check_missing(folder: pathlib.Path, missing: list[str], found: Mapping[str, Stored]) -> None:
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{folder}: tensor {missing[0]}{more} is missing from the weights"
                        f"{did_you_mean(missing[0], found, lists=False)}; the files are of another class than "
                        "config.json names")


def _check_others(family: ModuleType, tied: Mapping[str, str], files: Mapping[str, Stored],
                  others: Mapping[str, Stored], known: Collection[str]) -> None:
    """Raises UserError for a tensor that nothing knows, and for one that differs from what it is tied to."""
    for name, stored in others.items():
        if name in tied:
            if not same_bytes(stored, files[tied[name]]):
                raise UserError(f"{stored.file}: tensor {name} differs from {tied[name]}, to which config.json ties "
                                "it; only one of the two can be read: set tie_word_embeddings to what is right")
        elif name not in known and not is_kept(family, name):
            raise UserError(f"{stored.file}: tensor {name} is known to nothing of this model"
                            f"{did_you_mean(name, files, lists=False)}; the files are of another class than "
                            "config.json names")


def is_kept(family: ModuleType, name: str) -> bool:
    """Whether a tensor is known, and known not to be read."""
    return any(re.fullmatch(pattern, name.removeprefix(family.BASE)) for pattern in family.KEPT)


def same_bytes(one: Stored, other: Stored) -> bool:
    """Whether two tensors are of one type and shape and hold the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if (one.file, one.offset, one.strides) == (other.file, other.offset, other.strides):
        return True
    if one.strides or other.strides:
        from purelm.interop.checkpoint_files import read_tensor

        return read_tensor(one).tobytes() == read_tensor(other).tobytes()
    for start in range(0, one.num_bytes, _SAME_BYTES):
        size = min(_SAME_BYTES, one.num_bytes - start)
        parts = []
        for stored in (one, other):
            part = np.empty(size, np.uint8)
            read_exactly(stored.file, stored.offset + start, memoryview(part))
            parts.append(part)
        if not np.array_equal(*parts):
            return False
    return True
