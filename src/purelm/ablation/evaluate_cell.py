"""The metrics of a trained cell, as evaluate.py would give them."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from purelm.ablation.spec import Evaluation
from purelm.config import Config, validate
from purelm.config.changes import apply_changes
from purelm.errors import UserError
from purelm.tasks import task_of
from purelm.training.load import LoadedRun, load_run
from purelm.training.run_folder import check_same_data

if TYPE_CHECKING:
    from purelm.ablation.plan import Cell


class _Unavailable(Exception):
    """This model cannot be measured so; the message says why."""


def evaluate(cell: Cell, run_folder: pathlib.Path | str) -> tuple[dict[str, float], dict[str, str]]:
    """What the cell's evaluations say of its trained run.

    Returns:
      EVALUATION/METRIC -> number, with the names of evaluation.report.evaluate_run, what is nested joined by "/"; and
      evaluation (or EVALUATION/METRIC) -> why there is no number.

    Raises:
      UserError: no checkpoint, no such split, data that changed since.
    """
    metrics: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    runs: dict[str, LoadedRun] = {}
    prepared: dict[Config, Any] = {}
    for evaluation in cell.evaluations:
        run = runs.get(evaluation.checkpoint)
        if run is None:
            run = runs[evaluation.checkpoint] = _load(cell, run_folder, evaluation.checkpoint)
        try:
            found = _measure(with_changes(run, evaluation.changes), evaluation, prepared)
        except _Unavailable as reason:
            unavailable[evaluation.name] = str(reason)
            continue
        for name, value in flat_numbers(found).items():
            if math.isfinite(value):
                metrics[f"{evaluation.name}/{name}"] = value
            else:
                unavailable[f"{evaluation.name}/{name}"] = f"it is {value}"
    return metrics, unavailable


def _load(cell: Cell, run_folder: pathlib.Path | str, checkpoint: str) -> LoadedRun:
    """The run, which is to answer as the cell says now: that may have changed since it was trained."""
    run = load_run(str(run_folder), checkpoint, field="run")
    config = dataclasses.replace(run.config, decoding=cell.config.decoding, task=cell.config.task)
    return dataclasses.replace(run, config=config)


def _measure(run: LoadedRun, evaluation: Evaluation, prepared: dict[Config, Any]) -> dict[str, Any]:
    from purelm.evaluation import evaluator_of
    from purelm.evaluation.report import NotFinite, answer_scores, loss_of

    config, split = run.config, evaluation.split
    if config not in prepared:
        prepared[config] = task_of(config).prepare(config, tokenizer=run.tokenizer, labels=run.labels)
        if not evaluation.changes:
            check_same_data(run.folder, prepared[config].fingerprint)
    data = prepared[config]
    if split not in data.splits:
        raise UserError(f"evaluation '{evaluation.name}': the data has no split {split}; it has "
                        f"{', '.join(data.splits)}")
    batch_size = config.training.batch_size // config.training.accumulation_steps
    try:
        found: dict[str, Any] = {"step": run.step, **loss_of(run, data, split, batch_size)}
    except NotFinite as error:
        raise _Unavailable(str(error)) from error
    evaluator = evaluator_of(config)
    if evaluation.answers and hasattr(data.splits[split], "examples") and hasattr(evaluator, "predict"):
        examples = list(data.splits[split].examples)[:evaluation.num_examples]
        path = run.folder.path / f"predictions_{evaluation.name}.jsonl"
        scores, _ = answer_scores(run, examples, batch_size, path, lambda line: None)
        found |= scores
    return found


def with_changes(run: LoadedRun, changes: Mapping[str, Any]) -> LoadedRun:
    """The run with fields of its config changed; the parameters are the same."""
    if not changes:
        return run
    import jax

    from purelm.training.state import params_shapes

    config = validate(apply_changes(run.config, changes), recorded=True)
    if run.config.model.positions == "learned" and config.model.context_length > run.config.model.context_length:
        raise _Unavailable(f"its table of learned positions ends at {run.config.model.context_length}")
    merged = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, rank=None))
    wanted, have = params_shapes(merged), run.params
    if jax.tree.structure(wanted) != jax.tree.structure(have):
        raise _Unavailable("its parameters are others than this config's")
    for (path, leaf), shape in zip(jax.tree_util.tree_leaves_with_path(have), jax.tree.leaves(wanted)):
        if leaf.shape != shape.shape:
            raise _Unavailable(f"its {jax.tree_util.keystr(path, simple=True, separator='/')} is {leaf.shape}, not "
                               f"{shape.shape}")
    return dataclasses.replace(run, config=config)


def flat_numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers among nested values, by their names joined with "/"."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[prefix + name] = float(value)
    return flat
