"""Several runs of one program trained as one: each an ordinary run folder, as if it had been trained alone.

The runs differ in lifted numbers (training.lifted), the seed among them. Everything costly is shared: the start of the
process, the data, the compilation, and on an accelerator the device, which small models leave idle. What is written
for each run, and when, is what `launch` writes, so that each can be resumed and evaluated by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from purelm.config import Config
from purelm.errors import UserError
from purelm.runtime import start_jax
from purelm.training import manifests
from purelm.training.together_cells import Cell, begin, forget_later, newest_good, open_cells, same_starts

# Of a device's free memory, what the programs of a step may take; the rest is for evaluation and fragments.
USABLE = 0.9


@dataclasses.dataclass(frozen=True)
class TogetherOutcome:
    """How a run that was trained with others ended.

    Attributes:
      step: the last step done.
      stopped_by: the signal that stopped it, or None.
      error: what ended this run alone, in one line, or None.
      seconds_per_step: the program's over the runs in it, or None where no step was timed.
      memory_bytes: of a device, the program's over the runs in it; None where unknown.
      train_seconds: this run's part of the wall-clock of this call.
      together: runs in the program.
    """

    step: int
    stopped_by: int | None
    error: str | None
    seconds_per_step: float | None
    memory_bytes: int | None
    train_seconds: float
    together: int


def train_together(configs: Sequence[Config], workdirs: Sequence[str], *, quiet: bool,
                   devices: Sequence[Any] | None = None,
                   note: Callable[[str], None] | None = None) -> list[TogetherOutcome]:
    """Trains runs of one `program_key`, each in its own folder, from its newest good checkpoint or from the start.

    As many as fit the device go at once; the others follow. SIGTERM and ctrl-C stop all after a step, saved.

    Args:
      configs: validated.
      workdirs: a folder for each.
      quiet: nothing is shown on the terminal.
      devices: of this process, to train on; none is all.
      note: given the lines that come before and after the steps; none shows them too.

    Returns:
      An outcome for each, in order. What ends one run (its own error, as of a loss that is not finite) is told in its
      outcome and does not stop the others.

    Raises:
      UserError: the devices do not fit config.parallel, or something that concerns all runs.
    """
    say = note or (lambda line: None if quiet else print(line, file=sys.stderr, flush=True))
    start_jax()
    outcomes: list[TogetherOutcome | None] = [None] * len(configs)
    with contextlib.ExitStack() as locks:
        cells = open_cells(configs, workdirs, locks, say)
        waiting: list[Cell] = []
        for number, cell in enumerate(cells):
            try:
                if isinstance(cell, str):
                    raise UserError(cell)
                cell.start = newest_good(cell)
            except UserError as error:
                outcomes[number] = TogetherOutcome(0, None, str(error), None, None, 0.0, 1)
                continue
            if cell.start >= cell.config.training.num_steps:
                say(f"{cell.folder.path}: nothing left to do, step {cell.start} is done")
                outcomes[number] = TogetherOutcome(cell.start, None, None, None, None, 0.0, 1)
            else:
                waiting.append(cell)
        ended = _Groups(devices, quiet, say, note is None).train(waiting)
    return [outcome or ended[id(cell)] for outcome, cell in zip(outcomes, cells, strict=True)]


class _Groups:
    """Cells in groups of one start and one data, each as wide as memory allows."""

    def __init__(self, devices: Sequence[Any] | None, quiet: bool, say: Callable[[str], None],
                 shown: bool):
        self._devices, self._quiet, self._say, self._shown = devices, quiet, say, shown
        self._ended: dict[int, TogetherOutcome] = {}
        self._stopped_by: int | None = None

    def train(self, cells: Sequence[Cell]) -> dict[int, TogetherOutcome]:
        """The outcome of each cell, by its id."""
        queue = [group for data in {id(cell.data): cell.data for cell in cells}.values()
                 for group in same_starts([cell for cell in cells if cell.data is data])]
        while queue:
            group = queue.pop(0)
            if self._stopped_by is not None:
                self._end(group, step=None)
                continue
            first, rest = self._train_some(group)
            queue[:0] = [*same_starts(first), *same_starts(rest)]
        return self._ended

    def _train_some(self, group: list[Cell]) -> tuple[list[Cell], list[Cell]]:
        """Trains as many of the group as fit; returns what is left of it, in two parts where memory ran out."""
        from purelm.training.parallel.memory import is_out_of_memory

        started = time.monotonic()
        engine = self._fitting_engine(group)
        now, later = group[:len(engine.configs)], group[len(engine.configs):]
        if later:
            self._say(f"{len(now)} of {len(group)} runs at once, which is what fits in memory")
        try:
            self._train_now(now, engine, started)
        except UserError as error:
            for cell in now:
                cell.error = cell.error or str(error)
            self._end(now, step=None, seconds=time.monotonic() - started)
        except Exception as error:
            if not is_out_of_memory(error) or len(now) == 1:
                raise
            del engine
            for cell in now:
                cell.start = newest_good(cell)
            half = -(-len(now) // 2)
            self._say(f"out of memory with {len(now)} runs at once; going on with {half}")
            return now[:half], [*now[half:], *later]
        return [], later

    def _fitting_engine(self, group: list[Cell]) -> Any:
        """The engine of the first cells of the group, as many as fit by what the compiler says of its program."""
        from purelm.training.parallel.memory import free_bytes, is_out_of_memory
        from purelm.training.parallel.together import make_together_engine

        count = len(group)
        while True:
            try:
                engine = make_together_engine([cell.config for cell in group[:count]], self._devices)
                needed, free = engine.memory_bytes(), free_bytes(engine.devices[0])
            except Exception as error:
                if not is_out_of_memory(error) or count == 1:
                    raise
            else:
                if count == 1 or needed is None or free is None or needed <= USABLE * free:
                    return engine
            count = -(-count // 2)

    def _train_now(self, cells: list[Cell], engine: Any, started: float) -> None:
        from purelm.tasks import task_of
        from purelm.training.checkpoints import Checkpoints
        from purelm.training.progress import Progress
        from purelm.training.stopping import StopRequest
        from purelm.training.together_loop import AllFailed, TogetherLoop

        training, step = cells[0].config.training, cells[0].start
        progress = Progress(first_step=step, num_steps=training.num_steps, unit=task_of(cells[0].config).UNIT,
                            quiet=self._quiet)
        run, outcome = TogetherLoop(cells, engine, progress), None
        with contextlib.ExitStack() as open_files:
            open_files.callback(progress.close)
            for cell in cells:
                forget_later(cell)
                begin(cell, engine.devices)
                # Two at least: a kill while the cells save, one after another, must leave a step that all have.
                cell.checkpoints = open_files.enter_context(Checkpoints(
                    cell.folder.checkpoints, keep_last=max(cell.config.training.keep_last, 2),
                    keep_best=cell.config.training.keep_best, warn=self._say))
            state = self._first_state(cells, engine, step)
            for line in _start_lines(cells, engine, step):
                progress.note(line) if self._shown else self._say(line)
            with StopRequest() as stop:
                try:
                    outcome = run.train(state, step, stop)
                except AllFailed:
                    pass
                finally:
                    run.close()
        self._stopped_by = None if outcome is None else outcome.stopped_by
        done = [cell for cell in cells if cell.error is None]
        if outcome is not None and outcome.stopped_by is None:
            for cell in done:
                _finish(cell)
        shares = {"seconds": time.monotonic() - started}
        if outcome is not None:
            shares |= {"seconds_per_step": outcome.seconds_per_step, "memory_bytes": outcome.memory_bytes}
        self._end(cells, step=None if outcome is None else outcome.step, **shares)

    def _first_state(self, cells: list[Cell], engine: Any, step: int) -> Any:
        from purelm.training.transfer import taken_over

        if step:
            return engine.place([cell.checkpoints.restore_latest(engine.shapes(), at=step).state for cell in cells])
        state = engine.init()
        if not any(cell.config.init_from or cell.config.init_vectors for cell in cells):
            return state
        host = engine.gather(state)
        for number, cell in enumerate(cells):
            try:
                host[number], lines = taken_over(cell.config, host[number], cell.data.tokenizer)
            except UserError as error:
                cell.error = str(error)
                continue
            for line in lines:
                self._say(f"{cell.folder.path}: {line}")
        return engine.place(host)

    def _end(self, cells: list[Cell], *, step: int | None, seconds: float = 0.0,
             seconds_per_step: float | None = None, memory_bytes: int | None = None) -> None:
        """Records how these cells ended; without a step, at their newest checkpoint."""
        count = len(cells)
        for cell in cells:
            reached = step if step is not None and cell.error is None else (
                manifests.latest_step(cell.folder.checkpoints) or 0)
            self._ended[id(cell)] = TogetherOutcome(
                step=reached, stopped_by=self._stopped_by if cell.error is None else None, error=cell.error,
                seconds_per_step=None if seconds_per_step is None else seconds_per_step / count,
                memory_bytes=None if memory_bytes is None else memory_bytes // count,
                train_seconds=seconds / count, together=count)


def _finish(cell: Cell) -> None:
    """What follows the last step of a run."""
    training = cell.config.training
    manifests.prune(cell.folder.checkpoints, keep_last=training.keep_last, keep_best=training.keep_best, damaged=set())
    if cell.config.task.name == "word_vectors":
        from purelm.training.load import load_run
        from purelm.training.vectors import save_vectors

        run = load_run(str(cell.folder.path))
        save_vectors(cell.folder.path, run.tokenizer, run.params)


def _start_lines(cells: list[Cell], engine: Any, step: int) -> list[str]:
    from purelm.training.launch import start_lines
    from purelm.training.lifted import lifted_values

    differing = ", ".join(lifted_values([cell.config for cell in cells]))
    return [*start_lines(cells[0].config, cells[0].data, engine, step, []),
            f"together: {len(cells)} runs that differ in {differing}"]
