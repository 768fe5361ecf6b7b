"""A run as published weights: safetensors, config, tokenizer, generation config and a card, streamed leaf by leaf."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.config.shapes import TRANSFORMERS
from purelm.errors import UserError
from purelm.interop.checkpoint_files import Writer
from purelm.interop.choosing import export_task
from purelm.interop.export_plan import Plan, make_plan
from purelm.interop.generation import generation_fields
from purelm.interop.importing import KEPT, TENSORS
from purelm.interop.mapping import to_theirs
from purelm.interop.model_card import model_card
from purelm.interop.new_folder import check_free, new_folder
from purelm.interop.reading_run import open_leaves
from purelm.training.run_folder import RunFolder, open_run, read_labels, write_atomically


@dataclasses.dataclass(frozen=True)
class Exported:
    """files: what was written. notes: lines on what the weights are of."""

    files: tuple[pathlib.Path, ...]
    notes: tuple[str, ...]


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
    target, flag = pathlib.Path(folder), f"--to_hf={folder}"
    check_free(target, flag)
    run, config = open_run(workdir)
    if config.model.architecture not in TRANSFORMERS:
        raise UserError(f"--workdir={workdir}: no family holds config.model.architecture={config.model.architecture}; "
                        "Transformers alone can be written")
    from purelm.data import load_tokenizer

    tokenizer, labels = load_tokenizer(run.tokenizer), read_labels(run)
    plan = make_plan(run, config, tokenizer, labels, family, dtype, shard_bytes)
    sizes = [int(np.prod(shape, dtype=np.int64)) * kind.itemsize for _, kind, shape in plan.entries.values()]
    with new_folder(target, flag, sum(sizes)) as partial:
        step = _write_weights(partial, run, config, checkpoint, plan, progress)
        _write_small(partial, run, config, tokenizer, plan, step)
    notes = [f"{plan.choice.architecture} ({plan.config['model_type']}), step {step}, "
             f"{sum(int(np.prod(shape)) for _, _, shape in plan.entries.values()):,} numbers"]
    notes += [step.note for step in plan.choice.steps]
    return Exported(tuple(sorted(target.iterdir())), tuple(notes))


def _write_weights(partial: pathlib.Path, run: RunFolder, config: Config, checkpoint: str, plan: Plan,
                   progress: Callable[[int, int], None] | None) -> int:
    leaves = open_leaves(run, config, checkpoint, plan.choice.steps)
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
        for name, lines in plan.lines.items():
            arrays = [leaves.read(tensor.ours, layer) for tensor, layer in lines]
            write(name, to_theirs([tensor for tensor, _ in lines], arrays))
        _write_kept(plan, write)
    finally:
        for writer in writers.values():
            writer.close()
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": {name: entry[0] for name, entry
                                                                    in sorted(plan.entries.items())}}
        write_atomically(partial / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
    return leaves.stored.step


def _write_kept(plan: Plan, write: Callable[[str, np.ndarray], None]) -> None:
    """Tensors that were kept aside."""
    if plan.originals is None or not (plan.originals / KEPT).is_file():
        return
    from purelm.interop.checkpoint_files import read_file, read_tensor

    for name, stored in read_file(plan.originals / KEPT).items():
        write(name, read_tensor(stored))


def _write_small(partial: pathlib.Path, run: RunFolder, config: Config, tokenizer: Any, plan: Plan, step: int) -> None:
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
        write_tokenizer_files(tokenizer, partial, export_task(config.task.name, config.model))
    write_atomically(partial / "README.md", model_card(run, config, plan.choice.architecture, step))


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
