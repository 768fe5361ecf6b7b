"""One cell at a time, or those of one program: trained, evaluated, and put on record."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import json
import pathlib
import signal
import socket
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from purelm.ablation.store import CellRecord, read_record, run_folder, stage_folder, write_record
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


class Signals:
    """Notices SIGTERM and ctrl-C beside whoever handles them: a training that was just ending takes no heed of one."""

    def __enter__(self) -> Signals:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._main = threading.current_thread() is threading.main_thread()  # No other one gets signals.
        if self._main:
            self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.set_wakeup_fd(self._before)
        self._reader.close()
        self._writer.close()

    def check(self) -> None:
        """Raises Stopped where one came."""
        with contextlib.suppress(BlockingIOError):
            for number in self._reader.recv(4096):
                if number in (signal.SIGINT, signal.SIGTERM):
                    raise Stopped(number)


@dataclasses.dataclass
class Work:
    """Cells done one way, in one work folder."""

    workdir: str
    quiet: bool
    devices: Sequence[Any] | None
    on_change: Callable[[], None]
    signals: Signals
    tried: set[str] = dataclasses.field(default_factory=set)

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
        self.signals.check()

    def fail(self, cell: Cell, error: str) -> None:
        """Records a cell's failure."""
        self.log(cell, error)
        write_record(self.workdir, dataclasses.replace(self.record(cell), state="failed", error=error, finished=_now()))

    def log(self, cell: Cell, line: str) -> None:
        """Adds a line to the cell's log, and the traceback of the exception that is being handled, if one is."""
        log = pathlib.Path(self.workdir) / "logs" / f"{cell.key.replace('/', '.')}.log"
        try:
            log.parent.mkdir(exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{_now()} {line}\n")
                if sys.exception() is not None:
                    traceback.print_exc(file=file)
        except OSError as error:
            raise UserError(f"{log}: cannot be written ({error.strerror}), where {cell.key} failed: {line}") from error

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
        found: list[tuple[Config, str]] = []
        for number, (_, config) in enumerate(cell.stages):
            folder = stage_folder(self.workdir, cell, number)
            if number:
                config = dataclasses.replace(config, init_from=_begun_from(folder) or found[-1][1])
            found.append((config, str(folder)))
        return found

    def train(self, cell: Cell) -> None:
        """All stages of one cell, from where each stands."""
        from purelm.training import launch

        self.tried.add(cell.key)
        self.begin(cell)
        started = time.monotonic()
        for config, folder in self.stage_configs(cell):
            outcome = launch.launch(config, folder, quiet=self.quiet, devices=self.devices)
            if outcome.stopped_by is not None:
                self.add_seconds(cell, time.monotonic() - started)
                raise Stopped(outcome.stopped_by)
        self.trained(cell, time.monotonic() - started, outcome.seconds_per_step, outcome.memory_bytes, 1)

    def train_together(self, cells: Sequence[Cell]) -> None:
        """All stages of cells of one program; where that cannot be done at all, they are left to be trained alone."""
        for cell in cells:
            self.begin(cell)
        try:
            self._train_together(cells)
        except Stopped:
            raise
        except Exception as error:  # UserErrors too: each cell finds its own.
            self.log(cells[0], f"{len(cells)} cells could not be trained together ({error}); each is trained alone")
        self.signals.check()

    def _train_together(self, cells: Sequence[Cell]) -> None:
        from purelm.training.together import train_together

        left, seconds = {cell.key: cell for cell in cells}, dict.fromkeys((cell.key for cell in cells), 0.0)
        for number in range(len(cells[0].stages)):
            stages = {key: self.stage_configs(cell)[number] for key, cell in left.items()}
            outcomes = dict(zip(stages, train_together(
                [config for config, _ in stages.values()], [folder for _, folder in stages.values()],
                quiet=self.quiet, devices=self.devices)))
            stopped = [outcome.stopped_by for outcome in outcomes.values() if outcome.stopped_by is not None]
            for key, outcome in outcomes.items():
                seconds[key] += outcome.train_seconds
                if stopped:
                    self.add_seconds(left[key], seconds[key])
                elif outcome.error is not None:
                    self.tried.add(key)
                    self.fail(left.pop(key), outcome.error)
            if stopped:
                raise Stopped(stopped[0])
            if not left:
                return
        for key, cell in left.items():
            self.tried.add(key)
            outcome = outcomes[key]
            self.trained(cell, seconds[key], outcome.seconds_per_step, outcome.memory_bytes, outcome.together)

    def add_seconds(self, cell: Cell, seconds: float) -> CellRecord:
        """Adds what this start took to what those before it took."""
        record = self.record(cell)
        costs = {**record.costs, "train_seconds": round((record.costs["train_seconds"] or 0.0) + seconds, 3)}
        record = dataclasses.replace(record, costs=costs)
        write_record(self.workdir, record)
        return record

    def trained(self, cell: Cell, seconds: float, seconds_per_step: float | None, memory_bytes: int | None,
                together: int) -> None:
        """Records that the training is done, and what it cost."""
        record, folder = self.add_seconds(cell, seconds), run_folder(self.workdir, cell.key)
        costs = {**record.costs, **model_costs(folder),  # A start that finds nothing left to do measures nothing.
                 "memory_bytes": memory_bytes or record.costs["memory_bytes"],
                 "seconds_per_step": (seconds_per_step or record.costs["seconds_per_step"]
                                      or _seconds_per_step(folder))}
        start = json.loads((folder / "run.json").read_text(encoding="utf-8"))["starts"][-1]
        write_record(self.workdir, dataclasses.replace(
            record, state="trained", costs=costs, together=max(together, record.together),
            devices=tuple(start["devices"]), commit=start["git"] and start["git"]["commit"]))

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


def _begun_from(folder: pathlib.Path) -> str | None:
    """What a stage that was begun has as its init_from, or None where it was not. Nothing is read from there anymore,
    and the work folder may have been moved since, or be given by another path."""
    from purelm.config import load_json
    from purelm.training.manifests import step_folders

    if not step_folders(folder / "checkpoints") or not (folder / "config.json").is_file():
        return None
    return load_json(folder / "config.json").init_from


def model_costs(folder: pathlib.Path) -> dict[str, int | None]:
    """The costs that a run's config.json tells."""
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


def forget_programs() -> None:
    """Forgets compiled programs before there are too many: each has mappings of memory, of which Linux lets a process
    have 65,530."""
    gc.collect()
    maps = pathlib.Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPPINGS:
        sys.modules["jax"].clear_caches()
        gc.collect()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
