"""What trains and evaluates cells, in whatever process: here, in a worker's, on a cluster.

    python -m purelm.ablation.worker --workdir=W --cells=ROW/SEED,ROW/SEED [--together]

does those cells of W/plan.json and ends; with --tasks in place of --cells it takes one task after another from its
standard input (see `serve`).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import gc
import json
import os
import pathlib
import re
import socket
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from purelm.ablation.store import CellRecord, read_record, run_folder, stage_folder, status, write_record
from purelm.errors import UserError

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell
    from purelm.config import Config

_MANY_MAPPINGS = 20_000


class Stopped(Exception):
    """A signal stopped the work; what was done is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.signal = number


def run_cells(workdir: str, keys: Sequence[str], *, together: bool, quiet: bool = True,
              devices: Sequence[Any] | None = None, on_change: Callable[[], None] | None = None) -> list[CellRecord]:
    """Trains and evaluates cells of the plan; those that are done already are left alone.

    Args:
      workdir: of the ablation.
      keys: of cells in plan.json; with `together` and more than one, all of one program.
      together: train those that are to be trained as one program, and else one after the other.
      quiet: show nothing of the trainings.
      devices: to use; None is all of this process.
      on_change: called when a cell is done or failed.

    Returns:
      The cells' records, in order. What goes wrong with a cell is in its record, with the traceback in logs/.

    Raises:
      Stopped: SIGTERM or ctrl-C came during a training; its cells can be resumed.
      UserError: plan.json is missing or damaged, or the work folder cannot be written to.
    """
    from purelm.ablation.plan import read_plan

    plan = read_plan(workdir)
    missing = [key for key in keys if key not in plan]
    if missing:
        raise UserError(f"{workdir}/plan.json: has no cell {missing[0]}; plan again with the command that made it")
    work = _Work(workdir, quiet, devices, on_change or (lambda: None))
    cells = [plan[key] for key in keys]
    to_train = [cell for cell in cells if status(workdir, cell).todo == "train"]
    if together and len(to_train) > 1:
        work.train_together(to_train)
    for cell in cells:
        todo = status(workdir, cell).todo
        if todo == "train" and cell not in work.tried:
            work.guarded(cell, work.train)
            todo = status(workdir, cell).todo
        if todo == "evaluate":
            work.guarded(cell, work.evaluate)
        _forget_programs()
    return [record for key in keys if (record := read_record(workdir, key)) is not None]


@dataclasses.dataclass
class _Work:
    """Cells done one way, in one work folder."""

    workdir: str
    quiet: bool
    devices: Sequence[Any] | None
    on_change: Callable[[], None]
    tried: list[Cell] = dataclasses.field(default_factory=list)

    def guarded(self, cell: Cell, work: Callable[[Cell], None]) -> None:
        """Does the work; what goes wrong is recorded, so that other cells go on."""
        try:
            work(cell)
        except Stopped:
            raise
        except UserError as error:
            self.fail(cell, str(error))
        except Exception as error:  # Whatever it is, it is this cell's.
            last = " ".join(str(error).split())
            self.fail(cell, f"{type(error).__name__}: {last}" if last else type(error).__name__)
        self.on_change()

    def fail(self, cell: Cell, error: str) -> None:
        """Records a cell's failure, the traceback of the exception that is being handled in logs/."""
        log = pathlib.Path(self.workdir) / "logs" / f"{cell.key.replace('/', '.')}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {error}\n")
            if sys.exception() is not None:
                traceback.print_exc(file=file)
        write_record(self.workdir, dataclasses.replace(self.record(cell), state="failed", error=error, finished=_now()))

    def record(self, cell: Cell) -> CellRecord:
        """The record as it is, or a new one."""
        record = read_record(self.workdir, cell.key, announce=False)
        if record is None or record.training_fingerprint != cell.training_fingerprint:
            record = CellRecord(cell.key, cell.row, cell.seed, "running", cell.training_fingerprint)
        return record

    def begin(self, cell: Cell) -> None:
        write_record(self.workdir, dataclasses.replace(
            self.record(cell), state="running", error=None, host=socket.gethostname(), started=_now(), finished=None))

    def stage_configs(self, cell: Cell) -> list[tuple[Config, str]]:
        """(config, run folder) of each stage; those after the first start from the one before."""
        folders = [str(stage_folder(self.workdir, cell, number)) for number in range(len(cell.stages))]
        configs = [config for _, config in cell.stages]
        return [(config if number == 0 else dataclasses.replace(config, init_from=folders[number - 1]), folder)
                for number, (config, folder) in enumerate(zip(configs, folders))]

    def train(self, cell: Cell) -> None:
        from purelm.training import launch

        self.tried.append(cell)
        self.begin(cell)
        started = time.monotonic()
        for config, folder in self.stage_configs(cell):
            outcome = launch.launch(config, folder, quiet=self.quiet)
            if outcome.stopped_by is not None:
                self.add_seconds(cell, time.monotonic() - started)
                raise Stopped(outcome.stopped_by)
        self.trained(cell, time.monotonic() - started, seconds_per_step=None, memory_bytes=None, together=1)

    def train_together(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self.guarded(cell, self.train)

    def add_seconds(self, cell: Cell, seconds: float) -> CellRecord:
        """Adds what this start took to what those before it took."""
        record = self.record(cell)
        costs = {**record.costs, "train_seconds": round((record.costs["train_seconds"] or 0.0) + seconds, 3)}
        record = dataclasses.replace(record, costs=costs)
        write_record(self.workdir, record)
        return record

    def trained(self, cell: Cell, seconds: float, *, seconds_per_step: float | None, memory_bytes: int | None,
                together: int) -> None:
        record, folder = self.add_seconds(cell, seconds), run_folder(self.workdir, cell.key)
        costs = {**record.costs, **_model_costs(folder), "memory_bytes": memory_bytes,
                 "seconds_per_step": seconds_per_step or _seconds_per_step(folder)}
        start = json.loads((folder / "run.json").read_text(encoding="utf-8"))["starts"][-1]
        write_record(self.workdir, dataclasses.replace(
            record, state="trained", costs=costs, together=together, devices=tuple(start["devices"]),
            commit=start["git"] and start["git"]["commit"]))

    def evaluate(self, cell: Cell) -> None:
        from purelm.ablation.evaluate_cell import evaluate
        from purelm.runtime import start_jax

        start_jax()
        started = time.monotonic()
        metrics, unavailable = evaluate(cell, run_folder(self.workdir, cell.key))
        record = self.record(cell)
        costs = {**record.costs, "evaluate_seconds": round(time.monotonic() - started, 3)}
        write_record(self.workdir, dataclasses.replace(
            record, state="done", evaluation_fingerprint=cell.evaluation_fingerprint, metrics=metrics,
            unavailable=unavailable, costs=costs, error=None, finished=_now()))


def _model_costs(folder: pathlib.Path) -> dict[str, int | None]:
    from purelm.config import load_json
    from purelm.models.counting import cache_bytes, count_parameters, flops_per_token
    from purelm.training.state import params_shapes

    config = load_json(folder / "config.json")
    return {"parameters": count_parameters(params_shapes(config)),
            "flops_per_token": flops_per_token(config.model, config.model.context_length),
            "cache_bytes_per_token": cache_bytes(config.model, 1, 1)}


def _seconds_per_step(folder: pathlib.Path) -> float | None:
    """By the run's own speeds, where every row of a batch is a whole window of tokens."""
    from purelm.config import load_json
    from purelm.training.loop import weighs_every_token
    from purelm.training.metrics import read_rows

    config = load_json(folder / "config.json")
    if not weighs_every_token(config):
        return None
    speeds = [row["tokens_per_second"] for row in read_rows(folder / "metrics.jsonl") if row["split"] == "train"]
    speeds = [speed for speed in speeds if speed]
    tokens = config.training.batch_size * config.model.context_length
    return tokens / statistics.median(speeds) if speeds else None


def _forget_programs() -> None:
    """Forgets compiled programs before there are too many: each has mappings of memory, of which Linux lets a process
    have 65,530."""
    gc.collect()
    maps = pathlib.Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPPINGS:
        sys.modules["jax"].clear_caches()
        gc.collect()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def serve(workdir: str) -> None:
    """Takes tasks from standard input, a line of JSON {"cells": [...], "together": bool} each, and answers "ready" and
    then "done" for each on what was standard output; all else that is printed goes to standard error.

    Where standard input ends, whoever gave the tasks is gone, and the process stops at once: what is not saved by then
    is what a kill would cost.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    tasks: list[str] = []
    given = threading.Semaphore(0)

    def listen() -> None:
        for line in sys.stdin:
            tasks.append(line)
            given.release()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    print("ready", file=answers, flush=True)
    while True:
        given.acquire()
        task = json.loads(tasks.pop(0))
        run_cells(workdir, task["cells"], together=task["together"], quiet=False)
        print("done", file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m purelm.ablation.worker", description="Does cells of an ablation that "
                                     "experiments/ablate.py planned; it is started by a launcher.")
    parser.add_argument("--workdir", required=True, help="folder of the ablation")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cells", help="ROW/SEED,ROW/SEED,...")
    what.add_argument("--tasks", action="store_true", help="take tasks from standard input")
    parser.add_argument("--together", action="store_true", help="train the cells as one program")
    parser.add_argument("--cores", help="processor cores to keep to, such as 0,1")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})  # Before jax counts them.
    from purelm.runtime import keep_memory

    keep_memory()
    try:
        if arguments.tasks:
            serve(arguments.workdir)
        keys = re.findall(r"(.+?/\d+)(?:,|$)", arguments.cells)  # Names of rows may have commas.
        records = run_cells(arguments.workdir, keys, together=arguments.together, quiet=False)
    except Stopped as stopped:
        sys.exit(128 + stopped.signal)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    failed = [record for record in records if record.state == "failed"]
    for record in failed:
        print(f"failed: {record.key}: {record.error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
