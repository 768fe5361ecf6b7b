"""Whether every config of a table can be run, and each row is another system than the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purelm.ablation.fingerprints import canonical
from purelm.ablation.metrics import metrics_given
from purelm.ablation.rows import (
    StageConfigs,
    expanded_rows,
    points,
    row_where,
    search_of,
    search_points,
    stage_configs,
)
from purelm.ablation.spec import BASE, Ablation, Evaluation, Row
from purelm.config import Config, validate
from purelm.config.changes import apply_changes, coerced, flatten
from purelm.errors import UserError, did_you_mean


def check_configs(ablation: Ablation, where: str) -> None:
    """Raises UserError for a config that cannot be trained or evaluated, of a row, a stage, a point of a grid or of a
    search; for two rows, or points of a search, that are the same; and for a metric that no row has."""
    same: dict[Any, str] = {}
    last_configs: list[Config] = []
    for row in expanded_rows(ablation):
        systems = _checked_systems(ablation, row, where)
        last_configs += [stages[-1][1] for stages in systems]
        identity = frozenset(tuple((name, canonical(config)) for name, config in stages) for stages in systems)
        if identity in same:
            raise UserError(f"{row_where(where, row.name)}{_same_as(same[identity], row)}")
        same[identity] = row.name
    _check_effects(ablation, last_configs, where)
    _check_metrics(ablation, last_configs, where)


def _checked_systems(ablation: Ablation, row: Row, where: str) -> list[StageConfigs]:
    """The stages' configs of the row, or of each point of its search."""
    systems: dict[Any, tuple[str, StageConfigs]] = {}
    names = [name for name, _ in search_points(ablation, row.name)] or [row.name]
    for name, point in zip(names, points(search_of(ablation, row))):
        stages = stage_configs(ablation, row, point, where)
        for stage, config in stages:
            _valid(config, row_where(where, name, stage))
        for evaluation in ablation.evaluations:
            _check_evaluation(stages[-1][1], evaluation, f"{row_where(where, name)}evaluation '{evaluation.name}': ")
        identity = tuple(canonical(config) for _, config in stages)
        if identity in systems:
            raise UserError(f"{row_where(where, row.name)}its search has two points that are the same: "
                            f"'{systems[identity][0]}' and '{name}'")
        systems[identity] = (name, stages)
    return [stages for _, stages in systems.values()]


def _valid(config: Config, where: str) -> None:
    try:
        validate(config)
    except UserError as error:
        raise UserError(f"{where}{error}") from error


def _check_evaluation(config: Config, evaluation: Evaluation, where: str) -> None:
    if evaluation.checkpoint == "best" and not config.training.keep_best:
        raise UserError(f"{where}checkpoint='best' needs config.training.keep_best=True")
    if evaluation.changes:
        _valid(apply_changes(config, evaluation.changes, where), where)


def _check_effects(ablation: Ablation, configs: list[Config], where: str) -> None:
    for evaluation in ablation.evaluations:
        changes = coerced(evaluation.changes)
        if changes and all(_has(config, changes) for config in configs):
            listed = ", ".join(f"config.{path}={value!r}" for path, value in changes.items())
            raise UserError(f"{where}: evaluation '{evaluation.name}': its changes have no effect, as every row has "
                            f"{listed} already; leave them out")


def _has(config: Config, changes: Mapping[str, Any]) -> bool:
    values = flatten(config)
    return all(values[path] == value for path, value in changes.items())


def _check_metrics(ablation: Ablation, configs: list[Config], where: str) -> None:
    # One of each task is enough: nothing else decides the metrics.
    configs = list({(config.task, config.data.mixture): config for config in configs}.values())
    for metric in ablation.metrics:
        evaluation_name, _, name = metric.name.partition("/")
        evaluation = next(known for known in ablation.evaluations if known.name == evaluation_name)
        outermost = name.partition("/")[0]
        given = _given(configs, evaluation, answers=evaluation.answers)
        if given is None or outermost in given:
            continue
        if outermost in (_given(configs, evaluation, answers=True) or {}):
            raise UserError(f"{where}: metric '{metric.name}' is one of answers: set answers=True in evaluation "
                            f"'{evaluation_name}'")
        tasks = ", ".join(dict.fromkeys(config.task.name for config in configs))
        raise UserError(f"{where}: metric '{metric.name}': an evaluation of {tasks} gives no '{outermost}'"
                        f"{did_you_mean(outermost, given)}")


def _given(configs: list[Config], evaluation: Evaluation, *, answers: bool) -> Mapping[str, None] | None:
    """Metrics that any of the configs gives, in order; None where one's task is the user's own."""
    found: dict[str, None] = {}
    for config in configs:
        names = metrics_given(apply_changes(config, evaluation.changes), answers=answers)
        if names is None:
            return None
        found |= dict.fromkeys(names)
    return found


def _same_as(other: str, row: Row) -> str:
    changes = {**row.changes, **{f"{path} (stage '{stage}')": value for stage, own in row.stage_changes.items()
                                 for path, value in own.items()}}
    listed = ", ".join(f"config.{path}={value!r}" for path, value in changes.items()) or "none"
    if other == BASE:
        return f"changes nothing of the base (its changes: {listed}); change something else, or leave it out"
    return f"is the same as row '{other}' (its changes: {listed}); change something in one of them, or leave one out"
