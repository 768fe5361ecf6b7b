"""A table's cells, run: what is there already is kept, what failed does not stop the rest, what was cut off goes on."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from purelm.ablation.board import Board
from purelm.ablation.launchers import Launcher
from purelm.ablation.search_results import values_of
from purelm.ablation.spec import Ablation
from purelm.ablation.store import (
    Status,
    held,
    read_record,
    set_aside,
    status,
    write_record,
)
from purelm.ablation.tasks import tasks_of
from purelm.ablation.worker import Stopped
from purelm.errors import UserError

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a call of `run` ended.

    Attributes:
      cells: that the rows asked for have, as far as they can be planned (a searched row's own cells come after its
        search).
      done: how many of them are done.
      run: keys of those that were worked on in this call.
      replaced: keys of those that were run anew because their config or code had changed.
      failed: (key, or row of a search in which nothing could be trained, and the error), of this call.
      stopped_by: the signal that ended it early.
    """

    cells: int
    done: int
    run: tuple[str, ...]
    replaced: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    stopped_by: int | None


def run(ablation: Ablation, workdir: str, *, rows: Sequence[str] | None = None, launcher: Launcher,
        together: bool = True, stale: Literal["rerun", "keep"] = "rerun", quiet: bool = False) -> Summary:
    """Runs what is missing of a table.

    Args:
      ablation: checked again here, before anything is written.
      workdir: of the table; made if missing.
      rows: names of those to run; None is all.
      launcher: where.
      together: cells of one compiled program train as one.
      stale: finished cells whose config or code changed since: run anew (what was there goes to replaced/), or kept.
      quiet: show nothing.

    Raises:
      UserError: the table is wrong, the folder cannot be written to or holds another table, another runner is at it,
        or no worker starts.
    """
    from purelm.ablation import check, serialize
    from purelm.training.run_folder import write_atomically

    check.check(ablation, ablation.title)
    folder = pathlib.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made ({error.strerror}); give another folder") from error
    with held(workdir):
        serialize.check_same_table(workdir, ablation)
        write_atomically(folder / "ablation.json", serialize.to_json(ablation))
        runner = _Runner(ablation, workdir, rows, launcher, together, stale, quiet)
        try:
            with _saying_how_to_go_on():
                runner.run()
        except Stopped as stopped:
            return runner.summary(stopped.signal)
    return runner.summary(None)


class _Runner:
    def __init__(self, ablation: Ablation, workdir: str, rows: Sequence[str] | None, launcher: Launcher,
                 together: bool, stale: str, quiet: bool):
        self.ablation, self.workdir, self.rows, self.launcher = ablation, workdir, rows, launcher
        self.together, self.stale, self.quiet = together, stale, quiet
        self.planned: dict[str, Cell] = {}
        self.tried: list[str] = []
        self.replaced: list[str] = []
        self.failed_searches: dict[str, str] = {}

    def run(self) -> None:
        """Rounds: all cells that can be planned now; then the rows whose searches have ended."""
        from purelm.ablation.plan import plan_cells, write_plan

        before = self._read_plan()
        while True:
            cells = plan_cells(self.ablation, rows=self.rows, chosen=self._choices())
            self.planned |= {cell.key: cell for cell in cells}
            left = [cell for cell in cells if cell.key not in self.tried and self.status(cell).todo != "done"]
            if not left:
                break
            self._replace_stale(left, before)
            write_plan(self.workdir, cells)
            self._work(left)
        self._say_failures()

    def status(self, cell: Cell) -> Status:
        """As of store.status, with --stale=keep."""
        found = status(self.workdir, cell)
        if found.todo != "done" and self.stale == "keep":
            record = read_record(self.workdir, cell.key, announce=False)
            if record is not None and record.state == "done":
                return Status("done", found.reason)
        return found

    def _read_plan(self) -> Mapping[str, Cell]:
        from purelm.ablation.plan import read_plan

        try:
            return read_plan(self.workdir)
        except UserError:  # None yet, or damaged: it is written anew.
            return {}

    def _choices(self) -> dict[str, Mapping[str, Any]]:
        """The best point of each search that has ended."""
        from purelm.ablation.plan import choose, plan_cells, resolved_rows, search_points

        chosen: dict[str, Mapping[str, Any]] = {}
        first = plan_cells(self.ablation, rows=self.rows)
        for row in resolved_rows(self.ablation):
            names = {name for name, _ in search_points(self.ablation, row.name)}
            cells = [cell for cell in first if cell.row in names]
            if not cells or not all(self._has_ended(cell) for cell in cells):
                continue
            self.planned |= {cell.key: cell for cell in cells}
            records = {cell.key: read_record(self.workdir, cell.key, announce=False) for cell in cells}
            best = choose(self.ablation, row.name, values_of(self.ablation, row.name, records))
            if best is None:
                self.failed_searches[row.name] = "no point of its search could be trained"
            else:
                chosen[row.name] = best
        return chosen

    def _has_ended(self, cell: Cell) -> bool:
        return (cell.key in self.tried and self._state(cell) == "failed") or self.status(cell).todo == "done"

    def _state(self, cell: Cell) -> str | None:
        record = read_record(self.workdir, cell.key, announce=False)
        return None if record is None else record.state

    def _replace_stale(self, cells: Sequence[Cell], before: Mapping[str, Cell]) -> None:
        """Moves what another config or code left of these cells to replaced/, and says so, a line for each reason."""
        reasons: dict[str, list[str]] = {}
        for cell in cells:
            found = self.status(cell)
            if found.todo == "train" and found.reason is not None:
                reasons.setdefault(_why(cell, before, found.reason), []).append(cell.key)
                set_aside(self.workdir, cell.key)
                self.replaced.append(cell.key)
        for reason, keys in reasons.items():
            self._say(f"{'runs' if len(keys) == 1 else 'run'} again, because {reason}: {_listed(keys)} "
                      f"(what was there is in {pathlib.Path(self.workdir) / 'replaced'})")

    def _work(self, cells: Sequence[Cell]) -> None:
        """Hands cells to the launcher; every one of them is then done, failed, or still to do."""
        todo = {cell.key: self.status(cell).todo for cell in cells}
        for cell in cells:
            self._mark_unfinished(cell, todo[cell.key])
        tasks = tasks_of([cell for cell in cells if todo[cell.key] == "train"],
                         [cell for cell in cells if todo[cell.key] == "evaluate"],
                         workers=self.launcher.workers, together=self.together)
        self.tried += [cell.key for cell in cells]
        with Board(self.workdir, list(self.planned.values()), metric=self.ablation.metrics[0].name,
                   workers=self.launcher.workers, quiet=self.quiet) as board:
            failures = self.launcher.run(self.workdir, tasks, together=self.together, on_change=board.update)
            for failure in failures:
                for key in failure.keys:
                    self._fail(key, failure.reason)

    def _mark_unfinished(self, cell: Cell, todo: str) -> None:
        """So that "done" and "failed" are of this call alone from here on."""
        record = read_record(self.workdir, cell.key, announce=False)
        if record is not None and record.state in ("done", "failed"):
            write_record(self.workdir, dataclasses.replace(
                record, state="trained" if todo == "evaluate" else "running", error=None))

    def _fail(self, key: str, reason: str) -> None:
        from purelm.ablation.store import CellRecord

        cell = self.planned[key]
        record = read_record(self.workdir, key, announce=False) or CellRecord(
            key, cell.row, cell.seed, "running", cell.training_fingerprint)
        write_record(self.workdir, dataclasses.replace(record, state="failed", error=reason))

    def failures(self) -> list[tuple[str, str]]:
        """(key or searched row, error) of this call."""
        found = []
        for key in self.tried:
            record = read_record(self.workdir, key, announce=False)
            if record is not None and record.state == "failed":
                found.append((key, record.error or "no reason given"))
        return found + list(self.failed_searches.items())

    def _say_failures(self) -> None:
        reasons: dict[str, list[str]] = {}
        for key, error in self.failures():
            reasons.setdefault(error, []).append(key)
        for error, keys in reasons.items():
            self._say(f"failed: {_listed(keys)}: {error}")
        if reasons:
            self._say(f"tracebacks are in {pathlib.Path(self.workdir) / 'logs'}; the same command tries what failed "
                      "again")

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def summary(self, stopped_by: int | None) -> Summary:
        """How it ended."""
        done = sum(self.status(cell).todo == "done" for cell in self.planned.values())
        return Summary(len(self.planned), done, tuple(self.tried), tuple(self.replaced), tuple(self.failures()),
                       stopped_by)


def _why(cell: Cell, before: Mapping[str, Cell], reason: str) -> str:
    """What changed of a cell, where its plan before is known."""
    from purelm.ablation.plan import diff_configs

    old = before.get(cell.key)
    if old is None or old.training_fingerprint == cell.training_fingerprint:
        return reason
    if [name for name, _ in old.stages] != [name for name, _ in cell.stages]:
        return "its stages changed"
    if _takes_best(old) != _takes_best(cell):
        return "another checkpoint is measured"
    changes = [f"{path} {was} -> {now}" for (_, a), (_, b) in zip(old.stages, cell.stages)
               for path, (was, now) in diff_configs(a, b).items()]
    return ", ".join(changes) if changes else "the code that trains it changed"


def _takes_best(cell: Cell) -> bool:
    return any(evaluation.checkpoint == "best" for evaluation in cell.evaluations)


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    """SIGTERM outside of a training ends the process at once, as ctrl-C does in an entry point: every file appears by
    a rename, so nothing is left half-written. During a training, and in a pool of workers, others take them."""
    def stop(number: int, _: object) -> None:
        shown = b"\x1b[?25h\n" if sys.stderr.isatty() else b""  # The cursor, which the board had hidden.
        os.write(sys.stderr.fileno(), shown + b"error: interrupted; the same command goes on\n")
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # No other one gets signals.
        yield
        return
    taken = [signal.SIGTERM]
    # A notebook or a caller's own program is to get its KeyboardInterrupt.
    if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL, None):
        taken.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
