"""Cells in this process, one task after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from purelm.ablation.launchers import TaskFailure
from purelm.ablation.worker import run_cells


class HereLauncher:
    """This process, with all its devices."""

    workers = 1

    def run(self, workdir: str, tasks: Sequence[Sequence[str]], *, together: bool,
            on_change: Callable[[], None]) -> list[TaskFailure]:
        """See launchers.Launcher; a process that dies takes the runner with it, so no task fails."""
        for keys in tasks:
            run_cells(workdir, keys, together=together, on_change=on_change)
        return []
