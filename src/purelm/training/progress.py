"""What a person sees while training: a rich bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time


class Progress:
    """Shows step, loss, speed and time left; `note` prints a line above the bar."""

    def __init__(self, *, first_step: int, num_steps: int, unit: str = "tokens", quiet: bool = False):
        self._num_steps, self._first_step = num_steps, first_step
        self._started = time.monotonic()
        self._unit, self._quiet = unit, quiet
        self._bar = None
        if not quiet and sys.stderr.isatty():
            self._bar, self._task = _rich_bar(first_step, num_steps)
            self._bar.start()

    def start_clock(self, step: int) -> None:
        """Steps before this one took the time of compilation, and say nothing of the time left."""
        self._first_step, self._started = step, time.monotonic()

    def advance(self, step: int) -> None:
        """Moves the bar; nothing on a plain stream."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, *, loss: float, speed: float | None, extra: str = "") -> None:
        """Shows a log point; no speed where there was none to measure."""
        shown = "" if speed is None else f"  {speed:,.0f} {self._unit}/s"
        text = f"loss {loss:.4f}{shown}{extra}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=text)
        elif not self._quiet:
            done = step - self._first_step
            left = (time.monotonic() - self._started) / done * (self._num_steps - step) if done > 0 else None
            print(f"step {step}/{self._num_steps}  {text}" + ("" if left is None else f"  {_clock(left)} left"),
                  file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Prints a line."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _rich_bar(first_step: int, num_steps: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[status]}"),
                       TimeRemainingColumn(), console=Console(stderr=True), speed_estimate_period=60)
    return bar, bar.add_task("train", total=num_steps, completed=first_step, status="compiling")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
