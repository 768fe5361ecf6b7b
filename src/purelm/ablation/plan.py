"""A table's cells: which trainings it stands for, each with all that decides its result."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from purelm.ablation.fingerprints import evaluation_fingerprint, training_fingerprint
from purelm.ablation.metrics import LOSSES
from purelm.ablation.rows import (
    ResolvedRow,
    StageConfigs,
    expanded_row,
    resolved_rows,
    row_names,
    row_where,
    search_points,
    stage_configs,
)
from purelm.ablation.serialize import evaluation_of
from purelm.ablation.spec import BASE, Ablation, Evaluation
from purelm.config import Config, from_dict, validate
from purelm.config.changes import coerced, diff_configs
from purelm.errors import UserError
from purelm.training.lifted import program_key
from purelm.training.run_folder import write_atomically

__all__ = ["Cell", "ResolvedRow", "choose", "config_differences", "diff_configs", "plan_cells", "read_plan",
           "resolved_rows", "row_names", "search_evaluation", "search_points", "seeds_of", "write_plan"]

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, UserError)  # What a damaged file may raise.
_NO_CHOICES: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row with a seed: what one worker trains and evaluates.

    Attributes:
      row: its name; of a point of a search with the point, as in "A1@learning_rate=0.001".
      seed: also in each config.
      stages: (name, config) in the order they are trained, valid and not finalized. The worker sets init_from of every
        stage after the first.
      evaluations: of the last stage.
      training_fingerprint, evaluation_fingerprint: see fingerprints.py.
      program: equal for two cells that one compiled program can train.
    """

    row: str
    seed: int
    stages: StageConfigs
    evaluations: tuple[Evaluation, ...]
    training_fingerprint: str
    evaluation_fingerprint: str
    program: str

    @property
    def key(self) -> str:
        return f"{self.row}/{self.seed}"

    @property
    def config(self) -> Config:
        """Of the last stage, which is what is measured."""
        return self.stages[-1][1]

    @property
    def folder(self) -> str:
        """Of its last stage's run, in the work folder."""
        return f"runs/{self.key}"


def plan_cells(ablation: Ablation, *, rows: Sequence[str] | None = None,
               chosen: Mapping[str, Mapping[str, Any]] = _NO_CHOICES) -> list[Cell]:
    """The cells that can be run now, row by row: of a row with a search that is not in `chosen` those of the search,
    of all others the row's own.

    Args:
      rows: names; that of a grid is all of its rows. None is all.
      chosen: row -> the changes that its search found best.

    Raises:
      UserError: no such row, or a config that cannot be run.
    """
    cells = []
    for name in row_names(ablation, rows):
        row = expanded_row(ablation, name)
        found = [] if name in chosen else search_points(ablation, name)
        for point_name, point in found:
            cells += _cells(point_name, stage_configs(ablation, row, point), ablation.search_seeds,
                            (search_evaluation(ablation),))
        if not found:
            point = chosen.get(name, {})
            cells += _cells(name, stage_configs(ablation, row, point), seeds_of(ablation), ablation.evaluations)
    return cells


def seeds_of(ablation: Ablation) -> tuple[int, ...]:
    """The seeds of every row."""
    return tuple(range(ablation.seeds)) if isinstance(ablation.seeds, int) else tuple(ablation.seeds)


def search_evaluation(ablation: Ablation) -> Evaluation:
    """What is measured of a search's cells: the first metric, without answers where it needs none."""
    evaluation, _, metric = ablation.metrics[0].name.partition("/")
    found = next(known for known in ablation.evaluations if known.name == evaluation)
    return dataclasses.replace(found, answers=False, num_examples=None) if metric in LOSSES else found


def choose(ablation: Ablation, row: str, values: Mapping[str, float | None]) -> dict[str, Any] | None:
    """The changes of the best point of a row's search, the first of equals; None where all failed.

    Args:
      values: the points' names -> the first metric; None, no number or not there is a point that failed.
    """
    sign = 1 if ablation.metrics[0].direction == "lower" else -1
    found = [(sign * value, point) for name, point in search_points(ablation, row)
             if (value := values.get(name)) is not None and not math.isnan(value)]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def config_differences(ablation: Ablation, chosen: Mapping[str, Mapping[str, Any]] = _NO_CHOICES,
                       ) -> dict[str, dict[str, dict[str, tuple[Any, Any]]]]:
    """row -> seed (as text) -> path -> (value of the base, value of the row), where they differ.

    Args:
      chosen: row -> the changes that its search found best; of a searched row that is not here, the values that the
        search will replace are compared.
    """
    def configs(name: str) -> StageConfigs:
        return stage_configs(ablation, expanded_row(ablation, name), chosen.get(name, {}))

    base, found = configs(BASE), {}
    for name in row_names(ablation):
        differences = {
            f"stage '{stage}': {path}" if stage else path: values
            for (stage, before), (_, after) in zip(base, configs(name))
            for path, values in diff_configs(before, after).items()}
        found[name] = {str(seed): differences for seed in seeds_of(ablation)}
    return found


def write_plan(workdir: str, cells: Iterable[Cell]) -> None:
    """Adds cells to the work folder's plan.json, in place of those of the same keys, in one step.

    Raises:
      UserError: it cannot be written.
    """
    path = pathlib.Path(workdir) / "plan.json"
    try:
        before = _read(path)
    except _UNREADABLE:  # None yet, or damaged: it is written anew.
        before = {}
    lines = [f"{json.dumps(key)}: {json.dumps(dataclasses.asdict(cell), ensure_ascii=False)}"
             for key, cell in (before | {cell.key: cell for cell in cells}).items()]
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_plan(workdir: str) -> dict[str, Cell]:
    """key -> cell, of all that were planned.

    Raises:
      UserError: there is no plan.json, or it is damaged.
    """
    path = pathlib.Path(workdir) / "plan.json"
    try:
        return _read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; nothing was planned here") from None
    except _UNREADABLE as error:
        raise UserError(f"{path}: damaged, or of another version ({' '.join(str(error).split())[:100]}); the command "
                        "that runs the table writes it again") from error


def _read(path: pathlib.Path) -> dict[str, Cell]:
    return {key: Cell(**{
        **values, "stages": tuple((name, from_dict(config)) for name, config in values["stages"]),
        "evaluations": tuple(evaluation_of(evaluation) for evaluation in values["evaluations"])})
        for key, values in json.loads(path.read_text(encoding="utf-8")).items()}


def _cells(name: str, stages: StageConfigs, seeds: Iterable[int], evaluations: Iterable[Evaluation]) -> list[Cell]:
    for stage, config in stages:
        try:
            validate(config)
        except UserError as error:
            raise UserError(f"{row_where('', name, stage)}{error}") from error
    evaluations = tuple(dataclasses.replace(evaluation, changes=coerced(evaluation.changes))
                        for evaluation in evaluations)
    return [_cell(name, seed, stages, evaluations) for seed in seeds]


def _cell(name: str, seed: int, stages: StageConfigs, evaluations: tuple[Evaluation, ...]) -> Cell:
    stages = tuple((stage, dataclasses.replace(config, seed=seed)) for stage, config in stages)
    best = any(evaluation.checkpoint == "best" for evaluation in evaluations)
    training = training_fingerprint(stages, best=best)
    return Cell(name, seed, stages, evaluations, training,
                evaluation_fingerprint(training, stages[-1][1], evaluations),
                "-".join(program_key(config) for _, config in stages))
