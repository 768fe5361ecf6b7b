"""A run folder, whoever made it, as a cell of a table: what decides its result, and its numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from purelm.ablation.fingerprints import OF_THE_BEST, WITHOUT_EFFECT
from purelm.ablation.provenance import last_start
from purelm.errors import UserError

# What does not tell two systems apart. Where the data lie is no part of it: what they are, run.json's fingerprint says.
_NO_FIELDS = WITHOUT_EFFECT | OF_THE_BEST | {"seed", "data.path"}
# Numbers of evaluation.json that measure the data or the machine, not the model.
_NO_METRICS = frozenset({
    "step", "tokens", "bytes", "documents", "examples", "words", "problems", "samples", "seconds_to_answer", "windows",
    "gzip_bits_per_byte", "xz_bits_per_byte", "canonical_passed", "passed_problems",
    "majority_accuracy"})


@dataclasses.dataclass(frozen=True)
class FoundRun:
    """A run.

    Attributes:
      folder: of the run.
      seed: as text.
      config: path -> value, all of it.
      fields: those of them that decide the result, without the seed.
      metrics: SPLIT/METRIC -> number, of the last validation row and of evaluation.json.
      step, num_steps: where it is, and where it ends.
      data: {"source", "tokenizer", "validation"}: fingerprints of what it was trained and measured on, None where
        run.json does not tell.
      started: ISO time of its last start, "" where it is not known.
      notes: what a reader must know of its numbers.
    """

    folder: pathlib.Path
    seed: str
    config: Mapping[str, Any]
    fields: Mapping[str, Any]
    metrics: Mapping[str, float]
    step: int
    num_steps: int
    data: Mapping[str, Any]
    started: str
    notes: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end."""
        return self.step >= self.num_steps


def read_run(folder: pathlib.Path) -> FoundRun:
    """A run folder as it is.

    Raises:
      UserError: its config or metrics cannot be read.
    """
    from purelm.config import load_json
    from purelm.config.changes import flatten
    from purelm.training.metrics import read_rows

    try:
        config = load_json(folder / "config.json")
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its config is not of this version ({error})") from error
    rows = read_rows(folder / "metrics.jsonl")
    if config.training.num_steps is None:
        raise UserError(f"{folder}: its config has no num_steps")
    flat = flatten(config)
    fields = {path: value for path, value in flat.items() if path not in _NO_FIELDS}
    metrics, notes = metrics_of(folder, rows)
    start = last_start(folder)
    return FoundRun(
        folder, str(config.seed), flat, {**fields, **_first_stage(folder, config.init_from)},
        metrics, max((row["step"] for row in rows), default=0), config.training.num_steps, _data(folder),
        str(start.get("time", "")) if start else "", tuple(notes))


def _first_stage(folder: pathlib.Path, init_from: str | None) -> dict[str, Any]:
    """Of a cell with stages, the run that its last stage starts from lies in its own folder: what decides that one."""
    if init_from is None or pathlib.Path(init_from).parent.name != "stages":
        return {}
    stage = folder / "stages" / pathlib.Path(init_from).name
    if not stage.is_dir():  # A stage of one before it lies beside that.
        stage = folder.parent / pathlib.Path(init_from).name
    if not (stage / "config.json").is_file():
        return {}
    before = read_run(stage)
    return {"init_from": stage.name} | {f"{stage.name}.{path}": value for path, value in before.fields.items()}


def comparable(run: FoundRun) -> tuple[Any, ...]:
    """Equal where two runs' numbers mean the same thing: the same task on the same files."""
    return run.config["task.name"], run.config["task.loss"], json.dumps(run.data.get("source"), sort_keys=True)


def metrics_of(folder: pathlib.Path, rows: list[dict[str, Any]]) -> tuple[dict[str, float], list[str]]:
    """(SPLIT/METRIC -> number, notes): of the last validation row, and of evaluation.json what that does not have."""
    metrics = {}
    validation = [row for row in rows if row["split"] == "validation"]
    if validation:
        metrics = {f"validation/{name}": value for name, value in _numbers(validation[-1]).items()}
    notes = [f"{folder}: its last validation loss is no number" for row in validation[-1:]
             if "loss" in row and row["loss"] is None]
    try:
        evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        split, step = str(evaluation["split"]), evaluation["step"]
    except FileNotFoundError:
        return metrics, notes
    except (OSError, ValueError, KeyError, TypeError):
        return metrics, [*notes, f"{folder}/evaluation.json: cannot be read, left out"]
    if "data_path" in evaluation:
        return metrics, [*notes, f"{folder}/evaluation.json: is of other data ({evaluation['data_path']}), left out"]
    metrics = {f"{split}/{name}": value for name, value in _numbers(evaluation).items()} | metrics
    last = max((row["step"] for row in rows), default=0)
    if step != last:
        notes.append(f"{folder}/evaluation.json: is of step {step}, not of the last ({last})")
    return metrics, notes


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            and name not in _NO_METRICS}


def _data(folder: pathlib.Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "run.json").read_text(encoding="utf-8"))["data"]
        source = data["source"]
        # Files by what is in them; other sources (TFDS) by all that is said of them.
        validation = data["splits"].get("validation", {})
        return {"source": source.get("sha256", source), "tokenizer": data.get("tokenizer"),
                "validation": {name: validation.get(name) for name in ("documents", "bytes", "examples")}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"source": None, "tokenizer": None, "validation": None}
