"""The loop over the cells of a group: as of one run, with a row, an evaluation and a checkpoint for each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from purelm.training.evaluation import metrics_of
from purelm.training.loop import Loop
from purelm.training.metrics import MetricsWriter, read_rows
from purelm.training.plots import draw_curves
from purelm.training.progress import Progress
from purelm.training.rows import best_loss, first_not_finite, not_finite, train_row
from purelm.training.stopping import StopRequest
from purelm.training.together_cells import Cell

Steps = list[tuple[int, dict[str, Any]]]


class AllFailed(Exception):
    """No cell is left to train."""


class TogetherLoop(Loop):
    """Writes for each cell what `loop.train` writes for a run; a cell that fails is left out from then on."""

    def __init__(self, cells: Sequence[Cell], engine: Any, progress: Progress):
        super().__init__(cells[0].config, engine, progress)
        self.cells, self.data = list(cells), cells[0].data
        self._same_evaluation: bool | None = None  # Not known before the first.

    def start(self, step: int) -> None:
        for cell in self.cells:
            cell.best = best_loss(cell.folder, step)
            cell.writer = MetricsWriter(cell.folder.metrics, resume_step=step)

    def close(self) -> None:
        """Closes the cells' files and draws their curves."""
        for cell in self.cells:
            if cell.writer is not None:
                cell.writer.close()
                cell.writer = None
                draw_curves(read_rows(cell.folder.metrics), cell.folder.curves, cell.folder.path.name)

    def live(self) -> list[tuple[int, Cell]]:
        """(number, cell) of those that go on."""
        return [(number, cell) for number, cell in enumerate(self.cells) if cell.error is None]

    def batches(self, step: int) -> Iterator[Any]:
        return zip(*(self.data.training_batches(cell.config, start_step=step) for cell in self.cells), strict=True)

    def reached_stop(self, stop: StopRequest, step: int) -> bool:
        return stop.signal is not None

    def write(self, steps: Steps, seconds: float) -> None:
        losses, speeds = [], []
        for number, cell in self.live():
            own = [(step, {name: values[number] for name, values in sums.items()}) for step, sums in steps]
            if (bad := first_not_finite(own)) is not None:
                cell.error = not_finite(cell.data, cell.config, bad, cell.checkpoints.latest_step())
                self.progress.note(f"{cell.folder.path}: {cell.error}")
                continue
            speed = self.speed(own, seconds)
            row = train_row(cell.config, own, unit=self.unit, speed=speed,
                            utilization=self.utilization(speed, self.engine.devices))
            cell.writer.write(own[-1][0], "train", row)
            losses.append(row["loss"])
            speeds.append(speed)
        if not losses:
            raise AllFailed
        whole = None if None in speeds else sum(speeds)
        self.progress.log(steps[-1][0], loss=float(np.mean(losses)), speed=whole)

    def evaluate(self, state: Any, step: int) -> dict[int, float] | None:
        if "validation" not in self.data.splits:
            return None
        limit = self.config.training.evaluate_batches
        found = jax.device_get([self.engine.evaluate_step(state, batch) for batch in self._evaluation_batches(limit)])
        num_bytes = self.data.num_bytes("validation") if limit is None else None
        losses = {}
        for number, cell in self.live():
            totals = {name: sum(float(sums[name][number]) for sums in found) for name in (found[0] if found else {})}
            row = metrics_of(totals, unit=self.unit, num_bytes=num_bytes)
            cell.writer.write(step, "validation", row)
            losses[number] = row["loss"]
        self.progress.note(f"step {step}  validation loss {np.mean(list(losses.values())):.4f}, "
                           f"{min(losses.values()):.4f} to {max(losses.values()):.4f}")
        return losses

    def keep(self, state: Any, step: int, losses: dict[int, float] | None, *, due: bool) -> bool:
        saved = []
        for number, cell in self.live():
            loss = None if losses is None else losses[number]
            is_best = loss is not None and loss < cell.best
            cell.best = cell.best if loss is None else min(cell.best, loss)
            if due or (cell.config.training.keep_best and is_best):
                saved.append((number, cell, None if loss is None else {"loss": loss}))
        if saved:
            states = self.engine.gather(state)
            for number, cell, metrics in saved:
                cell.checkpoints.save(step, states[number], metrics=metrics)
        return bool(saved)

    def finish(self, saved: int) -> None:
        for _, cell in self.live():
            cell.checkpoints.wait()
        self.progress.note(f"step {saved} of {len(self.live())} runs saved")

    def _evaluation_batches(self, limit: int | None) -> Iterator[Any]:
        """One batch for all cells where theirs are equal, which the first evaluation finds out; else one for each."""
        each = [self.data.evaluation_batches("validation", cell.config, batch_size=self.engine.evaluation_rows,
                                             limit=limit) for cell in self.cells]
        if self._same_evaluation:
            yield from each[0]
            return
        same = True
        for batches in zip(*each, strict=True):
            equal = all(_equal(batches[0], batch) for batch in batches[1:])
            same = same and equal
            yield batches[0] if equal else batches
        self._same_evaluation = same


def _equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

