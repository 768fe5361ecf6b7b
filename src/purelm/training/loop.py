"""The loop around the pure step: what is read, written and shown, and when; how it stops and goes on."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax

from purelm.config import Config, steps_of
from purelm.data.prepared import Prepared
from purelm.errors import UserError
from purelm.models.counting import flops_per_token
from purelm.runtime import import_in_background
from purelm.tasks import task_of
from purelm.training.checkpoints import Checkpoints
from purelm.training.evaluation import metrics_of, sum_batches
from purelm.training.hardware import model_flops_utilization
from purelm.training.metrics import MetricsWriter, read_rows
from purelm.training.plots import draw_curves
from purelm.training.progress import Progress
from purelm.training.rows import best_loss, first_not_finite, not_finite, train_row
from purelm.training.run_folder import RunFolder
from purelm.training.stopping import StopRequest


def weighs_every_token(config: Config) -> bool:
    """Whether a step's weight is the tokens that went through the model."""
    return config.task.name in ("language_modeling", "code_generation") and not config.model.prefix_attention


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
      step: the last it did.
      stopped_by: the signal that stopped it, or None.
      seconds_per_step: without evaluations, checkpoints and the first step; None where no step was timed.
      memory_bytes: of a device, by the compiled step; None where unknown.
    """

    step: int
    stopped_by: int | None
    seconds_per_step: float | None = None
    memory_bytes: int | None = None


class Interval:
    """The steps since the last row: their sums, still on the device, and the time they took."""

    def __init__(self):
        self.sums: list[tuple[int, dict[str, Any]]] = []
        self.seconds = 0.0
        self._since: float | None = None

    def resume_clock(self) -> None:
        self._since = time.monotonic()

    def pause_clock(self) -> None:
        if self._since is not None:
            self.seconds += time.monotonic() - self._since
            self._since = None

    def take(self) -> tuple[list[tuple[int, dict[str, Any]]], float]:
        """The sums and seconds so far, fetched to the host, and a new start. Blocks until those steps are done."""
        running = self._since is not None
        steps = [number for number, _ in self.sums]
        values = jax.device_get([sums for _, sums in self.sums])
        self.pause_clock()
        seconds, self.sums, self.seconds = self.seconds, [], 0.0
        if running:
            self.resume_clock()
        return list(zip(steps, values)), seconds


def train(config: Config, data: Prepared, folder: RunFolder, engine: Any, progress: Progress, *,
          state: Any, start_step: int, checkpoints: Checkpoints) -> Outcome:
    """Trains from `start_step` to the end of the run, or until a signal, writing to the run folder.

    Args:
      config: finalized.
      state: as the engine made or placed it; donated.
      start_step: updates already made.

    Raises:
      UserError: the loss or a gradient was not finite; the message says where, and what is left.
    """
    run = _Run(config, data, folder, engine, progress, checkpoints)
    with StopRequest() as stop:
        try:
            return run.train(state, start_step, stop)
        finally:
            run.close()


class Loop(abc.ABC):
    """When a run does what: its steps, rows, evaluations and checkpoints. Subclasses say how."""

    def __init__(self, config: Config, engine: Any, progress: Progress):
        self.config, self.engine, self.progress = config, engine, progress
        training = config.training
        self.num_steps = training.num_steps
        self.log_every, self.evaluate_every, self.checkpoint_every = (
            steps_of(training.log_every), steps_of(training.evaluate_every), steps_of(training.checkpoint_every))
        self.unit = task_of(config).UNIT
        # Where the loss weighs a part of the tokens, or none, their rate says nothing of the device's utilization.
        self.flops_per_token = (flops_per_token(config.model, config.model.context_length)
                                if weighs_every_token(config) else None)
        self.untimed_step: int | None = None  # The first of a start: its time is compilation.
        self.timed_steps, self.timed_seconds = 0, 0.0

    @abc.abstractmethod
    def start(self, step: int) -> None:
        """Before the first step."""

    @abc.abstractmethod
    def batches(self, step: int) -> Iterator[Any]:
        """What the engine's step takes, from the update after `step` on."""

    @abc.abstractmethod
    def reached_stop(self, stop: StopRequest, step: int) -> bool:
        """Whether to stop after this step."""

    @abc.abstractmethod
    def write(self, steps: list[tuple[int, dict[str, Any]]], seconds: float) -> None:
        """The row of these steps, which took `seconds` (the first of a start took none)."""

    @abc.abstractmethod
    def evaluate(self, state: Any, step: int) -> Any:
        """Evaluates and writes a row; the loss, or what `keep` makes of it. None: there is nothing to evaluate on."""

    @abc.abstractmethod
    def keep(self, state: Any, step: int, losses: Any, *, due: bool) -> bool:
        """Saves a checkpoint where one is due, or where the loss is the best; whether it did."""

    @abc.abstractmethod
    def finish(self, saved: int) -> None:
        """After the last step: waits for the checkpoints, of which `saved` is the newest."""

    def train(self, state: Any, step: int, stop: StopRequest) -> Outcome:
        self.start(step)
        if step >= self.num_steps:
            self.progress.note(f"nothing left to do: step {step} of {self.num_steps} is done")
            return Outcome(step, None)
        interval, started, saved = Interval(), time.monotonic(), step
        self.untimed_step = step + 1
        for step, batch in zip(range(step + 1, self.num_steps + 1), self.batches(step)):  # noqa: B020
            state, sums = self.engine.train_step(state, batch)
            if (step - 1) % self.log_every == 0:
                self._log(interval)  # The row of the steps before this one, which is already under way.
            interval.sums.append((step, sums))
            if started is not None:
                jax.block_until_ready(sums)
                self.progress.note(f"first step after {time.monotonic() - started:.1f} s (compilation included)")
                started = None
                self.progress.start_clock(step)
                import_in_background("orbax.checkpoint", "tensorboardX")  # Not before: it would delay the first step.
                interval.resume_clock()
            self.progress.advance(step)
            stopping = self.reached_stop(stop, step) and step < self.num_steps
            last = stopping or step == self.num_steps
            evaluating = step % self.evaluate_every == 0 or (last and not stopping)
            saving = last or step % self.checkpoint_every == 0
            if evaluating or saving:
                self._log(interval)  # Waits for the steps before the clock stops; finds a NaN before it can be saved.
                interval.pause_clock()
                losses = self.evaluate(state, step) if evaluating else None
                if self.keep(state, step, losses, due=saving):
                    saved = step
                interval.resume_clock()
            if stopping:
                break
        self.finish(saved)
        return Outcome(step, stop.signal if step < self.num_steps else None,
                       self.timed_seconds / self.timed_steps if self.timed_steps else None,
                       self.engine.memory_bytes())

    def _log(self, interval: Interval) -> None:
        if not interval.sums:
            return
        steps, seconds = interval.take()
        timed = sum(number != self.untimed_step for number, _ in steps)
        if timed and seconds:
            self.timed_steps, self.timed_seconds = self.timed_steps + timed, self.timed_seconds + seconds
        self.write(steps, seconds)

    def speed(self, steps: list[tuple[int, dict[str, Any]]], seconds: float) -> float | None:
        """Units of weight a second; None where no time was measured."""
        timed = sum(float(sums["weight"]) for number, sums in steps if number != self.untimed_step)
        return timed / seconds if timed and seconds else None

    def utilization(self, speed: float | None, devices: list[jax.Device]) -> float | None:
        """Of these devices at this many tokens a second; None where either or the peak is not known."""
        if speed is None or self.flops_per_token is None:
            return None
        return model_flops_utilization(speed, self.flops_per_token, devices[0].device_kind, len(devices))


class _Run(Loop):
    def __init__(self, config: Config, data: Prepared, folder: RunFolder, engine: Any, progress: Progress,
                 checkpoints: Checkpoints):
        super().__init__(config, engine, progress)
        self.data, self.folder, self.checkpoints = data, folder, checkpoints
        self.writer: MetricsWriter | None = None
        self.best = float("inf")

    def start(self, step: int) -> None:
        # In every process: all must agree on which loss is the best, or one would save alone and wait for ever.
        self.best = best_loss(self.folder, step)
        if jax.process_index() == 0:
            self.writer = MetricsWriter(self.folder.metrics, resume_step=step)

    def reached_stop(self, stop: StopRequest, step: int) -> bool:
        return stop.reached(self.checkpoints, step)

    def finish(self, saved: int) -> None:
        self.checkpoints.wait()
        self.progress.note(f"step {saved} saved in {self.folder.checkpoints}")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            draw_curves(read_rows(self.folder.metrics), self.folder.curves, self.folder.path.name)

    def batches(self, step: int) -> Iterator[Any]:
        index, count = self.engine.data_shard
        return self.data.training_batches(self.config, start_step=step, process_index=index, process_count=count)

    def write(self, steps: list[tuple[int, dict[str, Any]]], seconds: float) -> None:
        if (bad := first_not_finite(steps)) is not None:
            raise UserError(not_finite(self.data, self.config, bad, self.checkpoints.latest_step()))
        step, speed = steps[-1][0], self.speed(steps, seconds)
        utilization = self.utilization(speed, self.engine.devices)
        row = train_row(self.config, steps, unit=self.unit, speed=speed, utilization=utilization)
        if self.writer is not None:
            self.writer.write(step, "train", row)
        self.progress.log(step, loss=row["loss"], speed=speed,
                          extra=f"  MFU {utilization:.1%}" if utilization is not None else "")

    def evaluate(self, state: Any, step: int) -> float | None:
        if "validation" not in self.data.splits:
            return None
        limit = self.config.training.evaluate_batches
        index, count = self.engine.data_shard
        batches = self.data.evaluation_batches(
            "validation", self.config, batch_size=self.engine.evaluation_rows * count, process_index=index,
            process_count=count, limit=limit)
        totals = sum_batches(lambda batch: self.engine.evaluate_step(state, batch), batches)
        num_bytes = self.data.num_bytes("validation") if limit is None else None
        row = metrics_of(totals, unit=self.unit, num_bytes=num_bytes)
        if self.writer is not None:
            self.writer.write(step, "validation", row)
        self.progress.note(f"step {step}  validation " + "  ".join(f"{k} {v:.4f}" for k, v in row.items()))
        return row["loss"]

    def keep(self, state: Any, step: int, losses: float | None, *, due: bool) -> bool:
        is_best = losses is not None and losses < self.best
        self.best = self.best if losses is None else min(self.best, losses)
        if not due and not (self.config.training.keep_best and is_best):
            return False
        metrics = None if losses is None else {"loss": losses}
        self.checkpoints.save(step, self.engine.for_checkpoint(state), metrics=metrics)
        return True
