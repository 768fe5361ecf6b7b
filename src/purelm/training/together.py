"""Several runs of one program, trained as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from purelm.config import Config


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
    """Trains runs of one `program_key`, each in its own run folder."""
    raise NotImplementedError
