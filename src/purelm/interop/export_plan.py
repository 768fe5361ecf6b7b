"""What an export writes: the family, config.json, and every tensor's name, type, shape and file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from purelm.config import Config, ModelConfig, resolve_model
from purelm.errors import UserError
from purelm.interop.checkpoint import read_model
from purelm.interop.checkpoint_files import numpy_type, read_json
from purelm.interop.choosing import Choice, choose_family, export_task
from purelm.interop.differences import differences
from purelm.interop.families import family_of
from purelm.interop.generation import token_fields
from purelm.interop.importing import ORIGINALS, TENSORS
from purelm.interop.mapping import Tensor, lines_by_name, shape_of
from purelm.interop.task_parameters import task_shapes
from purelm.training.run_folder import RunFolder, read_record


@dataclasses.dataclass(frozen=True)
class Plan:
    """config: of config.json. entries: name -> (file, type, shape), in the order of the files. lines: of each name that
    is made of our parameters, its lines of the table and layer. originals: the folder to copy from, or None."""

    choice: Choice
    config: dict[str, Any]
    entries: dict[str, tuple[str, np.dtype, tuple[int, ...]]]
    lines: dict[str, list[tuple[Tensor, int | None]]]
    originals: pathlib.Path | None


def make_plan(run: RunFolder, config: Config, tokenizer: Any, labels: tuple[str, ...] | None, family: str | None,
              dtype: str, shard_bytes: int) -> Plan:
    """What will be written; arguments and UserErrors are those of `exporting.export_run`."""
    model = resolve_model(config.model, config.model.vocabulary_size)
    task = export_task(config.task.name, model)
    originals = run.path / ORIGINALS
    if family is None and (originals / TENSORS).is_file():
        plan = _original_plan(originals, model, task, dtype)
        if plan is not None:
            return plan
    choice = choose_family(model, task, labels, family, _likely(config))
    written = numpy_type(model.param_dtype if dtype == "auto" else dtype)
    shapes = task_shapes(choice.model, task)
    lines = lines_by_name(choice.family.tensors(choice.model, task), shapes)
    sizes = {name: shape_of(found, shapes) for name, found in lines.items()}
    fields = {**choice.fields, "dtype": written.name, **token_fields(tokenizer, task)}
    return Plan(choice, fields, shard(sizes, written, shard_bytes), lines, None)


def _original_plan(originals: pathlib.Path, model: ModelConfig, task: str, dtype: str) -> Plan | None:
    """As it was taken over; None where the model is no longer that one."""
    fields = read_json(originals / "config.json")
    family = family_of(fields["model_type"], str(originals / "config.json"))
    held = read_model(family, fields, task, str(originals / "config.json"))
    if differences(model, held):
        return None
    stored = read_json(originals / TENSORS)
    lines = lines_by_name(family.tensors(held, task), task_shapes(held, task))
    entries = {name: (entry["file"], numpy_type(entry["dtype"]), tuple(entry["shape"]))
               for name, entry in stored.items()}
    if dtype != "auto":
        fields = {**fields, "dtype": dtype}
        entries = {name: (file, numpy_type(dtype) if stored[name]["reads"] else kind, shape)
                   for name, (file, kind, shape) in entries.items()}
    # A .bin comes back as safetensors.
    entries = {name: (file.replace("pytorch_model", "model").replace(".bin", ".safetensors"), kind, shape)
               for name, (file, kind, shape) in entries.items()}
    by_name = {name: lines[entry["reads"]] for name, entry in stored.items() if entry["reads"]}
    held = dataclasses.replace(held, param_dtype=model.param_dtype)
    choice = Choice(family, fields, fields["architectures"][0], held)
    return Plan(choice, fields, entries, by_name, originals)


def _likely(config: Config) -> str | None:
    """The family that the run was begun from, by its model_type."""
    if config.init_from is None:
        return None
    try:
        return read_record(RunFolder(pathlib.Path(config.init_from)))["data"]["imported"]["model_type"]
    except (UserError, KeyError):
        return None


def shard(sizes: Mapping[str, tuple[int, ...]], dtype: np.dtype, shard_bytes: int,
          ) -> dict[str, tuple[str, np.dtype, tuple[int, ...]]]:
    """Each tensor's file, in the order of the table, none larger than `shard_bytes` unless one tensor is."""
    numbers, used, number = {}, 0, 1
    for name, shape in sizes.items():
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if used and used + size > shard_bytes:
            number, used = number + 1, 0
        numbers[name], used = number, used + size
    files = {n: "model.safetensors" if number == 1 else f"model-{n:05d}-of-{number:05d}.safetensors"
             for n in range(1, number + 1)}
    return {name: (files[numbers[name]], dtype, shape) for name, shape in sizes.items()}
