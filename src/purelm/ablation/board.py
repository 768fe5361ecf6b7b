"""How a table's cells stand, read from disk: a board on a terminal, a line for each finished cell elsewhere."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from purelm.ablation.store import CellRecord, read_record, run_folder

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell

_SECONDS = 1.0
_TAIL_BYTES = 4096
_COLORS = {"done": "green", "failed": "red", "trained": "cyan", "running": "yellow", "waiting": "dim"}


@dataclasses.dataclass(frozen=True)
class CellState:
    """Attributes:

    state: "waiting", or as of a CellRecord.
    text: what to show of it: the metric, the error, or the step and the loss.
    """

    state: str
    text: str


class Board:
    """Shows cells while they are worked on; a context manager that looks at the disk once a second by itself.

    What every launcher's workers leave on disk is all it knows, so it is the same for all.
    """

    def __init__(self, workdir: str, cells: Sequence[Cell], *, metric: str, workers: int, quiet: bool = False,
                 stream: TextIO | None = None):
        """`cells` are those of the table, done ones too; `metric` is the one that is shown."""
        self.workdir, self.cells, self.metric, self.workers, self.quiet = workdir, list(cells), metric, workers, quiet
        self.stream = stream or sys.stderr
        self.started = time.monotonic()
        self.begun_before = {cell.key: self._record(cell.key) for cell in self.cells}
        self.records = dict(self.begun_before)
        self.ended = {key for key, record in self.records.items() if _ended(record)}
        self.before = len(self.ended)
        self.errors: set[str] = set()
        self._num_steps: dict[str, int | None] = {}
        self._live: Any = None
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Board:
        if not self.quiet and self.stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(get_renderable=self.render, console=Console(file=self.stream), auto_refresh=False)
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.update()
        if self._live is not None:
            self._live.stop()

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS):
            self.update()

    def update(self) -> None:
        """Reads what changed on disk, and shows it."""
        with self._lock:
            for cell in self.cells:
                if cell.key in self.ended:
                    continue
                record = self.records[cell.key] = self._record(cell.key)
                if _ended(record):
                    self.ended.add(cell.key)
                    if not self.quiet and self._live is None:
                        print(self._line(record), file=self.stream, flush=True)
            if self._live is not None:
                self._live.refresh()

    def _record(self, key: str) -> CellRecord | None:
        return read_record(self.workdir, key, announce=False)

    def _line(self, record: CellRecord) -> str:
        """done 12/60  C2/1  validation/loss 2.345  (0:41, 12 min left)"""
        what = f"{self.metric} {_number(record.metrics[self.metric])}" if self.metric in record.metrics else "done"
        if record.state == "failed":
            what = f"failed: {record.error if record.error not in self.errors else 'as the one before'}"
            self.errors.add(record.error or "")
        seconds = sum(filter(None, (record.costs["train_seconds"], record.costs["evaluate_seconds"])))
        return f"done {len(self.ended)}/{len(self.cells)}  {record.key}  {what}  ({_clock(seconds)}{self._left()})"

    def _left(self) -> str:
        """", 12 min left", from how long the cells that were done now took, or else those before."""
        left, now = len(self.cells) - len(self.ended), len(self.ended) - self.before
        if not left:
            return ""
        if now:
            seconds = (time.monotonic() - self.started) / now * left
        else:
            took = [record.costs["train_seconds"] for record in self.records.values()
                    if record is not None and record.state == "done" and record.costs["train_seconds"]]
            if not took:
                return ""
            seconds = sum(took) / len(took) * left / self.workers
        return f", {_duration(seconds)} left"

    def state(self, key: str) -> CellState:
        """How a cell stands, with the step and the loss of one that is being trained."""
        record = self.records[key]
        if record is None:
            return CellState("waiting", "waiting")
        if record == self.begun_before[key] and record.state in ("running", "trained"):
            return CellState("waiting", "begun" if record.state == "running" else "trained")
        if record.state == "failed":
            return CellState("failed", "failed")
        if record.state == "done":
            value = record.metrics.get(self.metric)
            return CellState("done", "done" if value is None else _number(value))
        if record.state == "trained":
            return CellState("trained", "evaluating")
        row = last_row(run_folder(self.workdir, key) / "metrics.jsonl")
        if row is None:
            return CellState("running", "starting")
        steps = self._steps(key)
        loss = "" if row["loss"] is None else f" {row['loss']:.3f}"
        return CellState("running", f"{row['step']}{'' if steps is None else f'/{steps}'}{loss}")

    def _steps(self, key: str) -> int | None:
        if key not in self._num_steps:
            try:
                config = json.loads((run_folder(self.workdir, key) / "config.json").read_text(encoding="utf-8"))
                self._num_steps[key] = config["training"]["num_steps"]
            except (OSError, ValueError, KeyError):
                return None
        return self._num_steps[key]

    def render(self) -> Any:
        """The board, for rich."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        seeds = sorted({cell.seed for cell in self.cells})
        table = Table(box=None, pad_edge=False)
        table.add_column("row")
        for seed in seeds:
            table.add_column(f"seed {seed}")
        for row, states in self._shown_rows():
            table.add_row(row, *(Text(states[seed].text, _COLORS[states[seed].state]) if seed in states else ""
                                 for seed in seeds))
        took = _clock(time.monotonic() - self.started)
        return Group(table, Text(f"done {len(self.ended)}/{len(self.cells)}  ({took}{self._left()})"))

    def _shown_rows(self) -> Iterator[tuple[str, dict[int, CellState]]]:
        """All rows where the terminal is high enough, else those that something happens in first."""
        rows: dict[str, dict[int, CellState]] = {}
        for cell in self.cells:
            rows.setdefault(cell.row, {})[cell.seed] = self.state(cell.key)
        height = self._live.console.height - 4 if self._live is not None else len(rows)
        order = list(rows)
        if len(order) > height:
            busy = {row: any(state.state in ("running", "trained", "failed") for state in states.values())
                    for row, states in rows.items()}
            chosen = set(sorted(order, key=lambda row: not busy[row])[:max(height, 1)])
            order = [row for row in order if row in chosen]
        return ((row, rows[row]) for row in order)


def last_row(path: pathlib.Path) -> dict[str, Any] | None:
    """The last whole row of a metrics file, without reading all of it."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    for line in reversed(lines):
        if line.endswith(b"\n"):
            try:
                return json.loads(line)
            except ValueError:
                return None
    return None


def _ended(record: CellRecord | None) -> bool:
    return record is not None and record.state in ("done", "failed")


def _number(value: float) -> str:
    return f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
