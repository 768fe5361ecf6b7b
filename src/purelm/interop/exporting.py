"""A run as published weights: safetensors, config, tokenizer, generation config and a card, streamed leaf by leaf."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from purelm.config import Config, ModelConfig, resolve_model
from purelm.config.shapes import TRANSFORMERS
from purelm.errors import UserError
from purelm.interop.checkpoint import read_model
from purelm.interop.checkpoint_files import Writer, numpy_type, read_json
from purelm.interop.choosing import Choice, choose_family, differences, export_task
from purelm.interop.families import family_of
from purelm.interop.generation import generation_fields, token_fields
from purelm.interop.importing import KEPT, ORIGINALS, TENSORS
from purelm.interop.mapping import Tensor, leaves_of, lines_by_name, to_theirs
from purelm.interop.model_card import model_card
from purelm.interop.task_parameters import task_shapes
from purelm.training.run_folder import RunFolder, open_run, read_labels, read_record, write_atomically

# In place of a parameter that the family has and the run has not.
_FILL = {"bias": 0.0, "scale": 1.0}


@dataclasses.dataclass(frozen=True)
class Exported:
    """files: what was written. notes: lines on what the weights are of."""

    files: tuple[pathlib.Path, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """config: of config.json. entries: name -> (file, type, shape), in the order of the files. lines: of each name that
    is made of our parameters, its lines of the table and layer. originals: the folder to copy from, or None."""

    choice: Choice
    config: dict[str, Any]
    entries: dict[str, tuple[str, np.dtype, tuple[int, ...]]]
    lines: dict[str, list[tuple[Tensor, int | None]]]
    originals: pathlib.Path | None


def export_run(
    workdir: str, folder: str, *, checkpoint: str = "latest", family: str | None = None, dtype: str = "auto",
    shard_bytes: int = 5_000_000_000, progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Writes a folder that transformers loads, whole or not at all.

    What was taken over and not trained further goes back byte for byte: tensors, names, files and config.

    Args:
      workdir: the run folder.
      folder: to be made.
      checkpoint: latest, best or a step.
      family: to write, where several can hold the model; None takes the one it came from, or the first.
      dtype: float32, bfloat16, float16, or auto, as the weights were taken over or are kept.
      shard_bytes: of a file of weights, at most.
      progress: called with (bytes written, bytes in all).

    Raises:
      UserError: no such run or checkpoint, a model that no family can hold, or a disk that is full.
    """
    target = pathlib.Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--to_hf={folder}: holds something already; give a new folder")
    run, config = open_run(workdir)
    if config.model.architecture not in TRANSFORMERS:
        raise UserError(f"--workdir={workdir}: no family holds config.model.architecture={config.model.architecture}; "
                        "Transformers alone can be written")
    from purelm.data import load_tokenizer

    tokenizer, labels = load_tokenizer(run.tokenizer), read_labels(run)
    plan = _plan(run, config, tokenizer, labels, family, dtype, shard_bytes)
    partial = target.with_name(f".{target.name}.exporting")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        step = _write_weights(partial, run, config, checkpoint, plan, progress)
        _write_small(partial, run, config, tokenizer, plan, step)
        if target.exists():
            target.rmdir()
        partial.replace(target)
    except OSError as error:
        raise UserError(f"--to_hf={folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    notes = [f"{plan.choice.architecture} ({plan.config['model_type']}), step {step}, "
             f"{sum(int(np.prod(shape)) for _, _, shape in plan.entries.values()):,} numbers"]
    more = differences(resolve_model(config.model, config.model.vocabulary_size), plan.choice.model)
    if more:
        notes.append(f"the family has what the model has not, written as zeros (scales as ones): {', '.join(more)}")
    return Exported(tuple(sorted(target.iterdir())), tuple(notes))


def _plan(run: RunFolder, config: Config, tokenizer: Any, labels: tuple[str, ...] | None, family: str | None,
          dtype: str, shard_bytes: int) -> _Plan:
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
    leaves = dict(leaves_of(shapes))
    sizes = {name: _their_shape(found, leaves) for name, found in lines.items()}
    fields = {**choice.fields, "dtype": written.name, **token_fields(tokenizer, task)}
    return _Plan(choice, fields, _sharded(sizes, written, shard_bytes), lines, None)


def _original_plan(originals: pathlib.Path, model: ModelConfig, task: str, dtype: str) -> _Plan | None:
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
    return _Plan(choice, fields, entries, by_name, originals)


def _likely(config: Config) -> str | None:
    """The family that the run was begun from, by its model_type."""
    if config.init_from is None:
        return None
    try:
        return read_record(RunFolder(pathlib.Path(config.init_from)))["data"]["imported"]["model_type"]
    except (UserError, KeyError):
        return None


def _their_shape(lines: list[tuple[Tensor, int | None]], leaves: Mapping[str, Any]) -> tuple[int, ...]:
    tensor, layer = lines[0]
    shape = leaves[tensor.ours].shape
    return tensor.their_shape(shape if layer is None else shape[1:])


def _sharded(sizes: Mapping[str, tuple[int, ...]], dtype: np.dtype, shard_bytes: int,
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


def _write_weights(partial: pathlib.Path, run: RunFolder, config: Config, checkpoint: str, plan: _Plan,
                   progress: Callable[[int, int], None] | None) -> int:
    from purelm.interop.reading_run import open_run_params

    read, step = open_run_params(run, config, checkpoint)
    files: dict[str, dict[str, tuple[np.dtype, tuple[int, ...]]]] = {}
    for name, (file, dtype, shape) in plan.entries.items():
        files.setdefault(file, {})[name] = (dtype, shape)
    writers = {file: Writer(partial / file, entries) for file, entries in files.items()}
    sizes = {name: int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
             for name, (_, dtype, shape) in plan.entries.items()}
    done, total = 0, sum(sizes.values())

    def write(name: str, array: np.ndarray) -> None:
        nonlocal done
        file, dtype, _ = plan.entries[name]
        writers[file].write(name, array.astype(dtype, copy=False))
        done += sizes[name]
        if progress is not None:
            progress(done, total)

    try:
        for paths, names in _groups(plan.lines).items():
            leaves = _read_leaves(paths, read, plan.choice.model, config.task.name)
            for name in names:
                lines = plan.lines[name]
                arrays = [leaves[tensor.ours] if layer is None else leaves[tensor.ours][layer]
                          for tensor, layer in lines]
                write(name, to_theirs([tensor for tensor, _ in lines], arrays))
        _write_kept(plan, write)
    finally:
        for writer in writers.values():
            writer.close()
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": {name: entry[0] for name, entry
                                                                    in sorted(plan.entries.items())}}
        write_atomically(partial / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
    return step


def _groups(lines: Mapping[str, list[tuple[Tensor, int | None]]]) -> dict[tuple[str, ...], list[str]]:
    """Names by the leaves that they are made of, so that each leaf is read once."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, found in lines.items():
        groups.setdefault(tuple(tensor.ours for tensor, _ in found), []).append(name)
    return groups


def _read_leaves(paths: tuple[str, ...], read: Any, model: ModelConfig, task: str) -> dict[str, np.ndarray]:
    """Leaves on the host; those that the run has not, as what changes nothing."""
    missing = [path for path in paths if path not in read.shapes]
    leaves = read.read([path for path in paths if path in read.shapes]) if len(missing) < len(paths) else {}
    if missing:
        shapes = dict(leaves_of(task_shapes(model, export_task(task, model))))
        for path in missing:
            fill = 0.0 if model.norm_offset else _FILL[path.rpartition("/")[2]]
            leaves[path] = np.full(shapes[path].shape, fill, np.float32)
    return leaves


def _write_kept(plan: _Plan, write: Callable[[str, np.ndarray], None]) -> None:
    """Tensors that were kept aside."""
    if plan.originals is None or not (plan.originals / KEPT).is_file():
        return
    from purelm.interop.checkpoint_files import read_file, read_tensor

    for name, stored in read_file(plan.originals / KEPT).items():
        write(name, read_tensor(stored))


def _write_small(partial: pathlib.Path, run: RunFolder, config: Config, tokenizer: Any, plan: _Plan, step: int) -> None:
    if plan.originals is not None:
        for path in sorted(plan.originals.iterdir()):
            if path.name not in (TENSORS, KEPT, "config.json"):
                shutil.copyfile(path, partial / path.name)
        original = json.loads((plan.originals / "config.json").read_text(encoding="utf-8"))
        if plan.config == original:
            shutil.copyfile(plan.originals / "config.json", partial / "config.json")
        else:
            _write_json(partial / "config.json", plan.config)
    else:
        from purelm.data.tokenizers.exporting import write_tokenizer_files

        _write_json(partial / "config.json", plan.config)
        generation = generation_fields(tokenizer, config, plan.config)
        if generation is not None:
            _write_json(partial / "generation_config.json", generation)
        write_tokenizer_files(tokenizer, partial)
    write_atomically(partial / "README.md", model_card(run, config, plan.choice.architecture, step))


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
