"""Where cells are computed: in this process, in worker processes, over a cluster. All leave the same files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from purelm.ablation.store import read_record


@dataclasses.dataclass(frozen=True)
class TaskFailure:
    """Cells whose worker died, again and again, and why."""

    keys: tuple[str, ...]
    reason: str


class Launcher(Protocol):
    """Does tasks: lists of cells of plan.json that go to one worker.

    workers: how many tasks are done at once.
    """

    workers: int

    def run(self, workdir: str, tasks: Sequence[Sequence[str]], *, together: bool,
            on_change: Callable[[], None]) -> list[TaskFailure]:
        """Does all tasks; see worker.run_cells. `on_change` is called when something may have changed on disk.

        Raises:
          worker.Stopped: a signal came; what was done is saved.
          UserError: no worker can be started.
        """
        ...


def unfinished(workdir: str, keys: Sequence[str]) -> list[str]:
    """Those of a task that are neither done nor failed: what another worker is to go on with."""
    records = {key: read_record(workdir, key, announce=False) for key in keys}
    return [key for key, record in records.items() if record is None or record.state in ("running", "trained")]
