"""Everything that can be wrong with a table, found before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from purelm.ablation.check_configs import check_configs
from purelm.ablation.rows import expanded_rows, search_of, search_points
from purelm.ablation.spec import BASE, Ablation, Row
from purelm.ablation.spec_types import check_types
from purelm.config.changes import coerced, field_type
from purelm.errors import UserError, did_you_mean

# Of names of rows and stages, which are folders: those of grid and search points have more than the table may give.
_NAME = re.compile(r"[A-Za-z0-9_+]([A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")
_LONGEST_NAME = 200
_LARGEST_SEED = 2**31 - 1
# What an evaluation may change: nothing that the parameters or the training depend on.
_SECTIONS_OF_EVALUATION = ("data.", "decoding.", "task.")
_OF_EVALUATION = frozenset({
    "model.context_length", "model.rope_base", "model.rope_local_base", "model.rope_scaling",
    "model.rope_scaling_factor", "model.rope_original_length", "model.rope_low_frequency_factor",
    "model.rope_high_frequency_factor", "model.rope_beta_fast", "model.rope_beta_slow", "model.rope_attention_factor",
    "model.attention_window", "model.attention_pattern", "model.attention_scale",
    "model.attention_softcap", "model.logits_softcap", "model.attention_implementation", "model.scan_layers",
    "model.remat", "model.compute_dtype", "model.prefix_attention", "training.batch_size",
    "training.accumulation_steps", "training.loss_chunk"})


def check(ablation: Ablation, where: str) -> None:
    """Nothing, where the table can be run as far as can be known without its data.

    Args:
      where: what every message begins with, such as the table's file.

    Raises:
      UserError: one line that names the part of the table and the field that is wrong, and what would be right.
    """
    check_types(ablation, where)
    _check_fields(ablation, where)
    _check_searches(ablation, where)
    _check_names(ablation, where)
    _check_numbers(ablation, where)
    _check_references(ablation, where)
    check_configs(ablation, where)


def _check_names(ablation: Ablation, where: str) -> None:
    if not ablation.rows:
        raise UserError(f"{where}: has no rows beside the base; give at least one Row(name, changes)")
    for noun, names in (("row", [row.name for row in ablation.rows]),
                        ("stage", [stage.name for stage in ablation.stages]),
                        ("evaluation", [evaluation.name for evaluation in ablation.evaluations])):
        for name in names:
            if not _NAME.fullmatch(name):
                raise UserError(f"{where}: {noun} '{name}': a name is of letters, digits and ._+-, begins with none of "
                                ".- and does not end with .")
        _check_unique(names, f"{where}: two {noun}s")
    for row in ablation.rows:
        if row.name.lower() == BASE:
            raise UserError(f"{where}: row '{row.name}': that is the name of the table's base, which is a row already; "
                            "give another")
    rows = [row.name for row in expanded_rows(ablation)]
    _check_unique(rows, f"{where}: two rows (of a grid)")
    for name in rows:
        points = [point for point, _ in search_points(ablation, name)]
        _check_unique(points, f"{where}: two points of a search")
        for point in (name, *points):
            if len(point) > _LONGEST_NAME:
                raise UserError(f"{where}: row '{name}': its name is too long for a folder ('{point[:60]}...'); give "
                                "a shorter one, or write the rows out")
    metrics = [metric.name for metric in ablation.metrics]
    _check_unique(metrics, f"{where}: two metrics")


def _check_unique(names: Iterable[str], what: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            other = seen[name.lower()]
            raise UserError(f"{what} are named '{name}'" if name == other else
                            f"{what} are named '{other}' and '{name}', one folder on some systems; rename one")
        seen[name.lower()] = name


def _check_fields(ablation: Ablation, where: str) -> None:
    """Every path exists, and is one that may be changed there."""
    first = ablation.stages[0].name if ablation.stages else ""
    for stage in ablation.stages:
        _check_paths(stage.changes, f"{where}: stage '{stage.name}': ", init_from=stage.name == first)
    for row in ablation.rows:
        place = f"{where}: row '{row.name}': "
        for paths in (row.changes, row.grid, row.search or {}):
            _check_paths(paths, place, init_from=not ablation.stages)
        for stage, changes in row.stage_changes.items():
            if stage not in [known.name for known in ablation.stages]:
                raise UserError(f"{place}stage_changes: the table has no stage '{stage}'"
                                f"{did_you_mean(stage, [known.name for known in ablation.stages])}")
            _check_paths(changes, f"{place}stage '{stage}': ", init_from=stage == first)
        repeated = [path for path in row.grid if path in row.changes or any(
            path in changes for changes in row.stage_changes.values())]
        if repeated:
            raise UserError(f"{place}config.{repeated[0]} is both changed and in the grid; leave one out")
        _check_values(row.grid, f"{place}grid")
        if row.grid and row.published:
            raise UserError(f"{place}published numbers beside a grid would be those of all its rows; write the rows "
                            "out")
    _check_paths(ablation.search, f"{where}: search: ", init_from=False)
    for evaluation in ablation.evaluations:
        place = f"{where}: evaluation '{evaluation.name}': "
        for path in evaluation.changes:
            field_type(path, place)
            if path not in _OF_EVALUATION and not path.startswith(_SECTIONS_OF_EVALUATION):
                raise UserError(f"{place}config.{path} is of the training or its parameters; an evaluation may change "
                                f"data, decoding, task, {', '.join(sorted(_OF_EVALUATION))}")


def _check_paths(paths: Iterable[str], place: str, *, init_from: bool) -> None:
    for path in paths:
        field_type(path, place)
        if path == "seed":
            raise UserError(f"{place}config.seed: every row has the table's seeds (Ablation.seeds); leave it out")
        if path == "data.cache_dir":
            raise UserError(f"{place}config.data.cache_dir is of this machine; set the variable PURELM_CACHE instead")
        if path == "init_from" and not init_from:
            raise UserError(f"{place}config.init_from: give it in the first stage's changes; every stage after it "
                            "starts from the one before")


def _check_searches(ablation: Ablation, where: str) -> None:
    for row in expanded_rows(ablation):
        search, place = search_of(ablation, row), f"{where}: row '{row.name}': "
        if not search:
            continue
        _check_values(search, f"{place}search" if row.search else f"{where}: search")
        if all(len(values) < 2 for values in search.values()):
            raise UserError(f"{place}its search has a single point; put it among the changes, with search={{}}")
        for path in search:
            if path in row.changes or any(path in changes for changes in row.stage_changes.values()):
                raise UserError(f"{place}config.{path} is both changed and searched; leave one out (a row without a "
                                "search has search={})")


def _check_values(choices: Mapping[str, tuple[Any, ...]], what: str) -> None:
    for path, values in choices.items():
        if not values:
            raise UserError(f"{what}: config.{path} has no values; give some, or leave it out")
        seen = [coerced({path: value})[path] for value in values]
        for number, value in enumerate(seen):
            if value in seen[:number]:
                raise UserError(f"{what}: config.{path} has the value {value!r} twice; give it once")


def _check_numbers(ablation: Ablation, where: str) -> None:
    if isinstance(ablation.seeds, int) and ablation.seeds < 1:
        raise UserError(f"{where}: seeds={ablation.seeds}: give at least 1")
    given = () if isinstance(ablation.seeds, int) else ablation.seeds
    for name, seeds in (("seeds", given), ("search_seeds", ablation.search_seeds)):
        if not seeds and (name == "search_seeds" or not isinstance(ablation.seeds, int)):
            raise UserError(f"{where}: {name}: give at least one")
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{where}: {name}={seeds}: one is there twice")
        for seed in seeds:
            if not 0 <= seed <= _LARGEST_SEED:
                raise UserError(f"{where}: {name}: {seed} is no seed; give numbers from 0 to {_LARGEST_SEED}")
    all_seeds = range(ablation.seeds) if isinstance(ablation.seeds, int) else ablation.seeds
    shared = [seed for seed in ablation.search_seeds if seed in all_seeds]
    if shared and any(search_of(ablation, row) for row in expanded_rows(ablation)):
        raise UserError(f"{where}: search_seeds: {shared[0]} is among the rows' seeds too, whose results the choice "
                        "would flatter; give another")
    if not 0.5 <= ablation.confidence < 1:
        raise UserError(f"{where}: confidence={ablation.confidence}: must be at least 0.5 and below 1, such as 0.95")
    for metric in ablation.metrics:
        if metric.digits < 0:
            raise UserError(f"{where}: metric '{metric.name}': digits={metric.digits}: give at least 0")
        if metric.tolerance is not None and metric.tolerance <= 0:
            raise UserError(f"{where}: metric '{metric.name}': tolerance={metric.tolerance}: give a number above 0, or "
                            "None")
    for evaluation in ablation.evaluations:
        if evaluation.num_examples is not None and (evaluation.num_examples < 1 or not evaluation.answers):
            wrong = "give at least 1" if evaluation.answers else "it has no effect with answers=False: leave it out"
            raise UserError(f"{where}: evaluation '{evaluation.name}': num_examples={evaluation.num_examples}: {wrong}")


def _check_references(ablation: Ablation, where: str) -> None:
    """What names a row, a metric or an evaluation names one that there is."""
    if not ablation.metrics:
        raise UserError(f"{where}: has no metrics; give at least one, such as "
                        "Metric('validation/loss', 'loss', 'lower')")
    evaluations = [evaluation.name for evaluation in ablation.evaluations]
    for metric in ablation.metrics:
        evaluation, slash, name = metric.name.partition("/")
        if not slash or not name:
            raise UserError(f"{where}: metric '{metric.name}': a metric is named EVALUATION/METRIC, such as "
                            f"'{next(iter(evaluations), 'validation')}/loss'")
        if evaluation not in evaluations:
            raise UserError(f"{where}: metric '{metric.name}': there is no evaluation '{evaluation}'"
                            f"{did_you_mean(evaluation, evaluations)}")
    metrics = [metric.name for metric in ablation.metrics]
    rows = expanded_rows(ablation)
    names = [row.name for row in rows]
    for row in rows:
        place = f"{where}: base_published" if row.name == BASE else f"{where}: row '{row.name}': published"
        for name in row.published:
            if name not in metrics:
                raise UserError(f"{place}: there is no metric '{name}'{did_you_mean(name, metrics)}")
        _check_compared(ablation, row, names, where)
    for name in ablation.expected_order:
        if name not in names:
            raise UserError(f"{where}: expected_order: there is no row '{name}'{did_you_mean(name, names)}")
    _check_unique(ablation.expected_order, f"{where}: expected_order: two")
    if len(ablation.expected_order) == 1:
        raise UserError(f"{where}: expected_order: one row has no order; give at least two, or none")


def _check_compared(ablation: Ablation, row: Row, names: list[str], where: str) -> None:
    if row.compare_to is None:
        return
    if row.compare_to not in names:
        raise UserError(f"{where}: row '{row.name}': compare_to: there is no row '{row.compare_to}'"
                        f"{did_you_mean(row.compare_to, names)}")
    if row.compare_to == row.name:
        raise UserError(f"{where}: row '{row.name}': compare_to is the row itself; name another, or leave it out for "
                        "the base")
    if ablation.test == "dunnett" and row.compare_to != BASE:
        raise UserError(f"{where}: row '{row.name}': compare_to='{row.compare_to}': Dunnett's test compares all rows "
                        "with the base; leave it out, or take test='paired_t'")
