"""The loop around the pure step: what is read, written and shown, and when; how it stops and goes on."""

from __future__ import annotations

import dataclasses
import os
import signal
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
from purelm.training.run_folder import RunFolder
from purelm.training.schedules import learning_rate_at


def weighs_every_token(config: Config) -> bool:
    """Whether a step's weight is the tokens that went through the model."""
    return config.task.name in ("language_modeling", "code_generation") and not config.model.prefix_attention


class StopRequest:
    """Turns SIGTERM and ctrl-C into a flag that the loop reads between steps; a second ctrl-C stops at once.

    Of several processes, jax's coordination service takes SIGTERM, so that all stop at the same step; ctrl-C is
    handed on to it.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> StopRequest:
        numbers = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, checkpoints: Checkpoints, step: int) -> bool:
        """Whether to stop after `step`; every process must ask at every step."""
        if jax.process_count() == 1:
            return self.signal is not None
        if checkpoints.reached_preemption(step):
            self.signal = self.signal or signal.SIGTERM
            return True
        return False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: the last step it did, and the signal that stopped it, if one did."""

    step: int
    stopped_by: int | None


class _Interval:
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


class _Run:
    def __init__(self, config: Config, data: Prepared, folder: RunFolder, engine: Any, progress: Progress,
                 checkpoints: Checkpoints):
        self.config, self.data, self.folder, self.engine = config, data, folder, engine
        self.progress, self.checkpoints = progress, checkpoints
        self.primary = jax.process_index() == 0
        training = config.training
        self.num_steps = training.num_steps
        self.log_every, self.evaluate_every, self.checkpoint_every = (
            steps_of(training.log_every), steps_of(training.evaluate_every), steps_of(training.checkpoint_every))
        self.unit = task_of(config).UNIT
        # Where the loss weighs a part of the tokens, or none, their rate says nothing of the device's utilization.
        self.flops_per_token = (flops_per_token(config.model, config.model.context_length)
                                if weighs_every_token(config) else None)
        self.writer: MetricsWriter | None = None
        self.best = float("inf")
        self.untimed_step: int | None = None  # The first of a start: its time is compilation.

    def train(self, state: Any, step: int, stop: StopRequest) -> Outcome:
        # In every process: all must agree on which loss is the best, or one would save alone and wait for ever.
        self.best = min((row["loss"] for row in read_rows(self.folder.metrics) if row["split"] == "validation"
                         and row["step"] <= step and row["loss"] is not None), default=self.best)
        if self.primary:
            self.writer = MetricsWriter(self.folder.metrics, resume_step=step)
        if step >= self.num_steps:
            self.progress.note(f"nothing left to do: step {step} of {self.num_steps} is done")
            return Outcome(step, None)
        interval, started, saved = _Interval(), time.monotonic(), step
        self.untimed_step = step + 1
        for step, batch in zip(range(step + 1, self.num_steps + 1), self._batches(step)):  # noqa: B020
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
            stopping = stop.reached(self.checkpoints, step) and step < self.num_steps
            last = stopping or step == self.num_steps
            evaluating = step % self.evaluate_every == 0 or (last and not stopping)
            saving = last or step % self.checkpoint_every == 0
            if evaluating or saving:
                self._log(interval)  # Waits for the steps before the clock stops; finds a NaN before it can be saved.
                interval.pause_clock()
                loss = self._evaluate(state, step) if evaluating and "validation" in self.data.splits else None
                if saving or (self.config.training.keep_best and self._is_best(loss)):
                    self._save(state, step, loss)
                    saved = step
                self.best = self.best if loss is None else min(self.best, loss)
                interval.resume_clock()
            if stopping:
                break
        self.checkpoints.wait()
        self.progress.note(f"step {saved} saved in {self.folder.checkpoints}")
        return Outcome(step, stop.signal if step < self.num_steps else None)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            draw_curves(read_rows(self.folder.metrics), self.folder.curves, self.folder.path.name)

    def _batches(self, step: int) -> Iterator[Any]:
        index, count = self.engine.data_shard
        return self.data.training_batches(self.config, start_step=step, process_index=index, process_count=count)

    def _log(self, interval: _Interval) -> None:
        if not interval.sums:
            return
        steps, seconds = interval.take()
        for step, sums in steps:
            if not float(sums["finite"]):
                self._stop_on_nan(step)
        total = {name: sum(float(sums[name]) for _, sums in steps) for name in steps[0][1]}
        timed = sum(float(sums["weight"]) for number, sums in steps if number != self.untimed_step)
        step, speed = steps[-1][0], timed / seconds if timed and seconds else None
        devices = jax.devices()
        utilization = (None if speed is None or self.flops_per_token is None else
                       model_flops_utilization(speed, self.flops_per_token, devices[0].device_kind, len(devices)))
        weight = total["weight"]
        row = {"loss": total["cross_entropy"] / weight}
        if "correct" in total:
            row["accuracy"] = total["correct"] / weight
        row |= {"objective": total["loss"] / weight, "gradient_norm": float(steps[-1][1]["gradient_norm"]),
                "learning_rate": self._learning_rate(step - 1), f"{self.unit}_per_second": speed}
        if utilization is not None:
            row["mfu"] = utilization
        if self.writer is not None:
            self.writer.write(step, "train", row)
        self.progress.log(step, loss=row["loss"], speed=speed,
                          extra=f"  MFU {utilization:.1%}" if utilization is not None else "")

    def _learning_rate(self, update: int) -> float:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):  # So that it does not wait for the steps.
            return float(learning_rate_at(self.config, update))

    def _evaluate(self, state: Any, step: int) -> float:
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

    def _is_best(self, loss: float | None) -> bool:
        return loss is not None and loss < self.best

    def _save(self, state: Any, step: int, loss: float | None) -> None:
        metrics = None if loss is None else {"loss": loss}
        self.checkpoints.save(step, self.engine.for_checkpoint(state), metrics=metrics)

    def _stop_on_nan(self, step: int) -> None:
        where = self.data.locate(self.config, step - 1)
        good = self.checkpoints.latest_step()
        raise UserError(
            f"step {step}: the loss or a gradient is not finite, so training stopped; its batch is {where}; "
            f"the last good checkpoint is "
            f"{'none' if good is None else f'step {good}'}; try a smaller config.optimizer.learning_rate, or "
            "config.optimizer.clip_norm=1.0")
