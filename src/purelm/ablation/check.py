"""What can be wrong with a table's spec, found before anything runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

from purelm.ablation.rows import ResolvedRow, expanded_rows, points, resolved_rows, row_where, stage_configs
from purelm.ablation.spec import BASE, Ablation, Evaluation, Metric, Row, Stage
from purelm.config import Config, resolve_model, validate
from purelm.config.changes import apply_changes, diff_configs, field_type, flatten
from purelm.config.validate import resolve_optimizer
from purelm.errors import UserError, did_you_mean

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
_EXPANDED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+,=@-]{0,159}")
# The cells say these themselves.
_NOT_A_CHANGE = ("seed", "data.cache_dir")
_PLACEHOLDER_VOCABULARY = 1 << 10


def check(ablation: Ablation, where: str) -> None:
    """Nothing, where the table can be run.

    Args:
      where: the file, for messages.

    Raises:
      UserError: one line that names the file, the row and the field, and what would be right.
    """
    _check_shape(ablation, where)
    _check_names(ablation, where)
    _check_metrics(ablation, where)
    _check_seeds(ablation, where)
    _check_stages(ablation, where)
    for row in expanded_rows(ablation):
        for path in (*row.changes, *row.grid, *(row.search or {}), *_paths(row.stage_changes)):
            _check_path(path, row_where(where, row.name), ablation)
    for path in ablation.search:
        _check_path(path, f"{where}: search: ", ablation)
    rows = resolved_rows(ablation, where)
    for row in rows:
        for stage, config in row.stage_configs:
            _validate(config, row_where(where, row.name) + (f"stage '{stage}': " if stage else ""))
    _check_differences(rows, where)
    _check_searches(ablation, where)
    _check_evaluations(ablation, rows, where)
    _check_references(ablation, rows, where)


def _check_shape(ablation: Ablation, where: str) -> None:
    """Types, of a spec that was written by hand."""
    parts = (("rows", Row), ("metrics", Metric), ("evaluations", Evaluation), ("stages", Stage))
    for name, kind in parts:
        value = getattr(ablation, name)
        if not isinstance(value, tuple) or not all(isinstance(part, kind) for part in value):
            raise UserError(f"{where}: {name}: wants a tuple of {kind.__name__}(...)")
        for part in value:
            _check_choices(part, f"{where}: {kind.__name__.lower()} '{part.name}'")
    _check_choices(ablation, where)
    if not isinstance(ablation.base, Config):
        raise UserError(f"{where}: base: wants a Config(...), not {type(ablation.base).__name__}")
    for name, values in (("search", ablation.search), *(
            (f"row '{row.name}': {field}", getattr(row, field) or {}) for row in ablation.rows
            for field in ("grid", "search"))):
        for path, options in values.items():
            if not isinstance(options, (tuple, list)) or not options:
                raise UserError(f"{where}: {name}: {path}: wants a tuple of values, not {options!r}")
            if len({repr(option) for option in options}) < len(options):
                raise UserError(f"{where}: {name}: {path}: a value is there twice")
    if not 0.5 <= ablation.confidence < 1:
        raise UserError(f"{where}: confidence={ablation.confidence}: must be at least 0.5 and below 1, such as 0.95")
    for metric in ablation.metrics:
        if metric.tolerance is not None and metric.tolerance <= 0:
            raise UserError(f"{where}: metric '{metric.name}': tolerance={metric.tolerance}: must be above 0, or None")


def _check_choices(part: Any, where: str) -> None:
    for name, hint in get_type_hints(type(part)).items():
        choices = get_args(hint)
        if choices and all(isinstance(choice, str) for choice in choices) and getattr(part, name) not in choices:
            raise UserError(f"{where}: {name}='{getattr(part, name)}'{did_you_mean(str(getattr(part, name)), choices)}")


def _check_names(ablation: Ablation, where: str) -> None:
    seen: dict[str, str] = {}
    if not ablation.rows:
        raise UserError(f"{where}: no rows; give at least one Row beside the base")
    for row in ablation.rows:
        if not _NAME.fullmatch(row.name):
            raise UserError(f"{where}: row '{row.name}': a name has letters, digits and ._+- alone, as it is a folder "
                            "too; give the rest as its label")
        if row.name == BASE:
            raise UserError(f"{where}: row 'base': is the table's base already; give another name")
        if row.name.lower() in seen:
            raise UserError(f"{where}: row '{row.name}': another row is named '{seen[row.name.lower()]}'")
        seen[row.name.lower()] = row.name
    expanded = [row.name for row in expanded_rows(ablation)]
    for name in expanded:
        if not _EXPANDED.fullmatch(name):
            raise UserError(f"{where}: row '{name}': a grid's values name folders; of these, write rows by hand")
    if len({name.lower() for name in expanded}) < len(expanded):
        raise UserError(f"{where}: two points of a grid have one name")


def _check_metrics(ablation: Ablation, where: str) -> None:
    if not ablation.metrics:
        raise UserError(f"{where}: no metrics; give one, such as Metric('validation/loss', 'loss', 'lower')")
    evaluations = [evaluation.name for evaluation in ablation.evaluations]
    _check_unique(evaluations, f"{where}: evaluations")
    _check_unique([metric.name for metric in ablation.metrics], f"{where}: metrics")
    for name in evaluations:
        if not _NAME.fullmatch(name):
            raise UserError(f"{where}: evaluation '{name}': a name has letters, digits and ._+- alone")
    for metric in ablation.metrics:
        evaluation, slash, rest = metric.name.partition("/")
        if not slash or not rest:
            raise UserError(f"{where}: metric '{metric.name}': wants EVALUATION/METRIC, such as validation/loss")
        if evaluation not in evaluations:
            raise UserError(f"{where}: metric '{metric.name}': no evaluation '{evaluation}'"
                            f"{did_you_mean(evaluation, evaluations)}")


def _check_seeds(ablation: Ablation, where: str) -> None:
    seeds = ablation.seeds
    if isinstance(seeds, bool) or not isinstance(seeds, (int, tuple)) or (isinstance(seeds, int) and seeds < 1):
        raise UserError(f"{where}: seeds={seeds!r}: wants how many, such as 3, or which, such as (0, 1, 2)")
    for name, given in (("seeds", () if isinstance(seeds, int) else seeds), ("search_seeds", ablation.search_seeds)):
        for seed in given:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
                raise UserError(f"{where}: {name}: {seed!r} is no seed; wants whole numbers from 0")
        _check_unique(given, f"{where}: {name}")
        if not given and not (name == "seeds" and isinstance(seeds, int)):
            raise UserError(f"{where}: {name}: there is none; give at least one")


def _check_stages(ablation: Ablation, where: str) -> None:
    names = [stage.name for stage in ablation.stages]
    _check_unique(names, f"{where}: stages")
    for stage in ablation.stages:
        if not _NAME.fullmatch(stage.name):
            raise UserError(f"{where}: stage '{stage.name}': a name has letters, digits and ._+- alone")
        for path in stage.changes:
            _check_path(path, f"{where}: stage '{stage.name}': ", ablation)
    for row in ablation.rows:
        for stage in row.stage_changes:
            if stage not in names:
                raise UserError(f"{row_where(where, row.name)}stage_changes: no stage '{stage}'"
                                f"{did_you_mean(stage, names)}")


def _check_path(path: str, where: str, ablation: Ablation) -> None:
    field_type(path, where)
    if path in _NOT_A_CHANGE:
        instead = "give the table's seeds" if path == "seed" else "give it with --config"
        raise UserError(f"{where}{path}: is not a row's to change; {instead}")
    if path == "init_from" and len(ablation.stages) > 1:
        raise UserError(f"{where}init_from: a stage starts from the one before it; leave it out")


def _check_differences(rows: Sequence[ResolvedRow], where: str) -> None:
    base, *others = rows
    seen = {_canonical(base): base.name}
    for row in others:
        key = _canonical(row)
        if key in seen and seen[key] == BASE and not row.search and not base.search:
            raise UserError(f"{row_where(where, row.name)}changes nothing of the base: {_shown(row)}")
        if key in seen and dict(row.search) == dict(next(r.search for r in rows if r.name == seen[key])):
            raise UserError(f"{row_where(where, row.name)}is the same as row '{seen[key]}': {_shown(row)}")
        seen.setdefault(key, row.name)


def _shown(row: ResolvedRow) -> str:
    return ", ".join(f"{path}={value!r}" for path, value in row.changes.items()) or "it has no changes"


def _canonical(row: ResolvedRow) -> str:
    """Equal where the configs are once derived sizes are filled in, so that head_size=none and width / heads are."""
    return repr([(stage, sorted(flatten(dataclasses.replace(
        config, model=resolve_model(config.model, config.model.vocabulary_size or _PLACEHOLDER_VOCABULARY),
        optimizer=resolve_optimizer(config.optimizer))).items())) for stage, config in row.stage_configs])


def _check_searches(ablation: Ablation, where: str) -> None:
    for row in expanded_rows(ablation):
        search = ablation.search if row.search is None else row.search
        for point in points(search) if search else []:
            shown = ", ".join(f"{path}={value}" for path, value in point.items())
            for _, config in stage_configs(ablation, row, point, f"{row_where(where, row.name)}search, {shown}: "):
                _validate(config, f"{row_where(where, row.name)}search, {shown}: ")
        for path in search or {}:
            if path in row.changes:
                raise UserError(f"{row_where(where, row.name)}search: {path} is among the row's changes too; leave it "
                                "out of one")


def _check_evaluations(ablation: Ablation, rows: Sequence[ResolvedRow], where: str) -> None:
    for evaluation in ablation.evaluations:
        place = f"{where}: evaluation '{evaluation.name}': "
        for path in evaluation.changes:
            field_type(path, place)
        if not evaluation.changes:
            continue
        for row in rows:
            config = apply_changes(row.stage_configs[-1][1], evaluation.changes, place)
            if not diff_configs(row.stage_configs[-1][1], config) and row.name == BASE:
                raise UserError(f"{place}its changes change nothing of the base")


def _check_references(ablation: Ablation, rows: Sequence[ResolvedRow], where: str) -> None:
    names, metrics = [row.name for row in rows], [metric.name for metric in ablation.metrics]
    for row in rows:
        for metric in row.published:
            if metric not in metrics:
                raise UserError(f"{row_where(where, row.name)}published: no metric '{metric}'"
                                f"{did_you_mean(metric, metrics)}")
        if row.compare_to not in names or (row.compare_to == row.name and row.name != BASE):
            raise UserError(f"{row_where(where, row.name)}compare_to: no other row '{row.compare_to}'"
                            f"{did_you_mean(row.compare_to, names)}")
    for name in ablation.expected_order:
        if name not in names:
            raise UserError(f"{where}: expected_order: no row '{name}'{did_you_mean(name, names)}")
    _check_unique(ablation.expected_order, f"{where}: expected_order")


def _check_unique(values: Sequence[Any], where: str) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise UserError(f"{where}: '{value}' is there twice")


def _validate(config: Config, where: str) -> None:
    try:
        validate(config)
    except UserError as error:
        raise UserError(f"{where}{error}") from error


def _paths(stage_changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [path for changes in stage_changes.values() for path in changes]
