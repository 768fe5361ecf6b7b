"""The cells of a group: their run folders opened, and the step that each starts from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from purelm.config import Config, steps_of
from purelm.errors import UserError
from purelm.training import manifests
from purelm.training.launch import given_vocabulary, prepare_run, write_folder
from purelm.training.run_folder import RunFolder, check_same_data, check_same_run, check_workdir, held

Note = Callable[[str], None]


@dataclasses.dataclass(eq=False)
class Cell:
    """A run that is trained with others.

    Attributes:
      config: finalized.
      folder: its run folder, held by this process.
      data: what it is trained on, which cells of equal data share.
      begun: whether there are checkpoints.
      start: updates made before this call.
      error: what ended it alone, in one line.
      best: the lowest validation loss so far.
      checkpoints, writer: while it is trained.
    """

    config: Config
    folder: RunFolder
    data: Any
    begun: bool
    start: int = 0
    error: str | None = None
    best: float = float("inf")
    checkpoints: Any = None
    writer: Any = None


def open_cells(configs: Sequence[Config], workdirs: Sequence[str], locks: contextlib.ExitStack, note: Note
               ) -> list[Cell | str]:
    """Each run's cell, or the one line that says why it cannot be trained. Data is prepared once for equal data.

    `locks` keeps the folders for this process until it is closed.
    """
    prepared: dict[Any, Any] = {}
    found: list[Cell | str] = []
    for config, workdir in zip(configs, workdirs, strict=True):
        made = []
        try:
            folder, made = check_workdir(workdir)
            locks.enter_context(held(folder))
            found.append(_open(config, folder, prepared, note))
        except UserError as error:
            found.append(str(error))
            with contextlib.suppress(OSError):
                for path in made:
                    path.rmdir()
    return found


def _open(config: Config, folder: RunFolder, prepared: dict[Any, Any], note: Note) -> Cell:
    begun = bool(manifests.step_folders(folder.checkpoints))
    tokenizer, labels = given_vocabulary(config, folder if begun else None)
    key = (None if tokenizer is None else tokenizer.fingerprint, labels, None if begun else config.init_from)
    if key not in prepared:
        data = prepare_run(config, folder if begun else None, progress=note)[0]
        same = json.dumps(data.fingerprint, sort_keys=True)
        prepared[key] = next((other for other in prepared.values()
                              if json.dumps(other.fingerprint, sort_keys=True) == same), data)
    data = prepared[key]
    config = finalize_for(config, data)
    if begun:
        for change in check_same_run(folder, config):
            note(f"{folder.path}: changed since this run began: {change}")
        check_same_data(folder, data.fingerprint)
    return Cell(config, folder, data, begun)


def finalize_for(config: Config, data: Any) -> Config:
    """The config with what the data decides filled in."""
    from purelm.config import finalize

    return finalize(config, vocabulary_size=data.vocabulary_size, tokens_per_epoch=data.tokens_per_epoch(config),
                    num_classes=None if data.labels is None else len(data.labels))


def begin(cell: Cell, devices: Sequence[Any]) -> None:
    """Writes what a start writes to the cell's folder."""
    write_folder(cell.folder, cell.config, cell.data, devices, begun=cell.begun)
    cell.begun = True


def newest_good(cell: Cell) -> int:
    """The step of the newest checkpoint whose every byte is right, 0 where none was ever saved.

    Raises:
      UserError: all are damaged.
    """
    folder = cell.folder.checkpoints
    steps = list(manifests.step_folders(folder))[::-1]
    manifest, problems = manifests.first_good(folder, steps)
    if manifest is None and steps:
        described = ", ".join(f"{step} ({problem})" for step, problem in problems.items())
        raise UserError(f"no checkpoint in {folder} can be trusted; damaged: {described}; put back a copy, or delete "
                        "the folder to start again")
    return 0 if manifest is None else manifest.step


def same_starts(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups that start from one step, which is set as their `start`.

    After a kill, cells may have saved different steps. All go on from the newest step that all have, or from none,
    where no cell loses more than an interval of checkpoints by it; else those of the same newest step go together.
    """
    newest = {id(cell): cell.start for cell in cells}
    if not cells:
        return []
    interval = max(steps_of(cell.config.training.checkpoint_every) for cell in cells)
    common = _common_step(cells, max(newest.values()))
    if all(step - common <= interval for step in newest.values()):
        newest = dict.fromkeys(newest, common)
    groups: dict[int, list[Cell]] = {}
    for cell in cells:
        cell.start = newest[id(cell)]
        groups.setdefault(cell.start, []).append(cell)
    return list(groups.values())


def _common_step(cells: Sequence[Cell], newest: int) -> int:
    steps = set.intersection(*(set(manifests.all_steps(cell.folder.checkpoints)) for cell in cells))
    for step in sorted(steps, reverse=True):
        if step <= newest and all(manifests.first_good(cell.folder.checkpoints, [step])[0] for cell in cells):
            return step
    return 0


def forget_later(cell: Cell) -> None:
    """Deletes the checkpoints after the cell's start: those steps will be trained again."""
    for step, path in manifests.step_folders(cell.folder.checkpoints).items():
        if step > cell.start:
            manifests.delete(path)
