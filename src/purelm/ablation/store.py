"""What a work folder knows of its cells: one cell.json beside each run, whether it is still what is asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from purelm.errors import UserError
from purelm.training.run_folder import RunFolder, write_atomically
from purelm.training.run_folder import held as run_folder_held

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell

State = Literal["running", "trained", "done", "failed"]
COSTS = ("parameters", "flops_per_token", "seconds_per_step", "memory_bytes", "cache_bytes_per_token", "train_seconds",
         "evaluate_seconds")


@dataclasses.dataclass(frozen=True)
class CellRecord:
    """What is known of a cell.

    Attributes:
      key: ROW/SEED.
      state: "running" also where it was begun and is waiting to go on; "trained" where evaluations are missing.
      training_fingerprint, evaluation_fingerprint: what the training, and the metrics, were made with.
      metrics: EVALUATION/METRIC -> number.
      unavailable: evaluation, or EVALUATION/METRIC -> why there is no number.
      error: of a failed cell, one line.
      costs: the fields of COSTS; None where unknown.
      together: cells that were trained in the same program, this one included.
      started, finished: ISO times of the last start and of the end.
    """

    key: str
    row: str
    seed: int
    state: State
    training_fingerprint: str
    evaluation_fingerprint: str | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unavailable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: str | None = None
    costs: Mapping[str, float | int | None] = dataclasses.field(default_factory=lambda: dict.fromkeys(COSTS))
    together: int = 1
    devices: tuple[str, ...] = ()
    host: str = ""
    commit: str | None = None
    started: str | None = None
    finished: str | None = None


class Status(NamedTuple):
    """What is left to do of a cell, and why what is there is not it (None: nothing is there, or it is good)."""

    todo: Literal["done", "evaluate", "train"]
    reason: str | None = None


def run_folder(workdir: str, key: str) -> pathlib.Path:
    """The run folder of a cell's last stage."""
    return pathlib.Path(workdir) / "runs" / key


def stage_folder(workdir: str, cell: Cell, number: int) -> pathlib.Path:
    """The run folder of a cell's stage; the last one's is the cell's own."""
    folder = run_folder(workdir, cell.key)
    return folder if number == len(cell.stages) - 1 else folder / "stages" / cell.stages[number][0]


def read_record(workdir: str, key: str, *, announce: bool = True) -> CellRecord | None:
    """A cell's record, or None where there is none; a damaged one is announced in a line and counts as none."""
    path = run_folder(workdir, key) / "cell.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _record_of(values, key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        if announce:
            print(f"note: {path}: damaged ({' '.join(str(error).split())}); the cell counts as not done",
                  file=sys.stderr)
        return None


def write_record(workdir: str, record: CellRecord) -> None:
    """Writes cell.json beside the cell's run, whole or not at all; UserError where it cannot be."""
    folder = run_folder(workdir, record.key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error
    values = dataclasses.asdict(record)
    write_atomically(folder / "cell.json", json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _record_of(values: Any, key: str) -> CellRecord:
    """The record that JSON says; ValueError, TypeError or KeyError for another thing."""
    names = {field.name for field in dataclasses.fields(CellRecord)}
    if set(values) != names:
        raise ValueError(f"its fields are not those of a cell: {sorted(set(values) ^ names)}")
    if values["key"] != key or values["state"] not in typing.get_args(State):
        raise ValueError(f"it is of {values['key']}, {values['state']}")
    for name in ("metrics", "unavailable", "costs"):
        if not isinstance(values[name], dict):
            raise ValueError(f"{name} is no object")
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values["metrics"].values()):
        raise ValueError("a metric is no number")
    return CellRecord(**{**values, "devices": tuple(values["devices"])})


def status(workdir: str, cell: Cell) -> Status:
    """What is left to do of a cell, by its record. A run without a readable record is of unknown code: trained anew."""
    record = read_record(workdir, cell.key)
    if record is None:
        folder = run_folder(workdir, cell.key)
        begun = folder.is_dir() and any(folder.iterdir())
        return Status("train", "its cell.json is missing or damaged" if begun else None)
    if record.training_fingerprint != cell.training_fingerprint:
        return Status("train", "its config, or the code that trains it, changed")
    if record.state == "done" and record.evaluation_fingerprint == cell.evaluation_fingerprint:
        return Status("done")
    return Status("evaluate" if record.state in ("trained", "done") else "train")


def set_aside(workdir: str, key: str) -> pathlib.Path:
    """Moves what is there of a cell to replaced/ROW/SEED.N, and returns that; UserError where it cannot be moved."""
    row, seed = key.rsplit("/", 1)
    parent = pathlib.Path(workdir) / "replaced" / row
    number = 1
    while (parent / f"{seed}.{number}").exists():
        number += 1
    target = parent / f"{seed}.{number}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        run_folder(workdir, key).rename(target)
    except OSError as error:
        raise UserError(f"{run_folder(workdir, key)}: cannot be moved to {target} ({error.strerror})") from error
    return target


@contextlib.contextmanager
def held(workdir: str) -> Iterator[None]:
    """Keeps other runners out of the work folder; the system lets go of it however this process ends.

    Raises:
      UserError: another runner holds it.
    """
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(run_folder_held(RunFolder(pathlib.Path(workdir))))
        except UserError:
            raise UserError(f"--workdir={workdir}: another ablation is running there; wait for it or stop it, or give "
                            "another folder") from None
        yield
