"""Cells put into tasks: what one worker does before it takes the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell


def tasks_of(to_train: Sequence[Cell], to_evaluate: Sequence[Cell], *, workers: int,
             together: bool) -> list[tuple[str, ...]]:
    """Tasks, in the order of the plan, none empty.

    With `together`, the cells of one program are a task, halved until there are tasks for all workers; without, each
    cell is one. Cells that are trained already are a task each.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for cell in to_train:
        groups.setdefault((cell.program,) if together else (cell.key,), []).append(cell.key)
    tasks = [tuple(keys) for keys in groups.values()]
    while tasks and len(tasks) < workers:
        widest = max(range(len(tasks)), key=lambda number: len(tasks[number]))
        keys = tasks[widest]
        if len(keys) == 1:
            break
        half = (len(keys) + 1) // 2
        tasks[widest:widest + 1] = [keys[:half], keys[half:]]
    return tasks + [(cell.key,) for cell in to_evaluate]
