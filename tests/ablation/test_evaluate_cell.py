"""The metrics of a cell: those of evaluate.py, also at other lengths."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from small_table import small_table

from purelm.ablation import evaluate_cell
from purelm.ablation.plan import plan_cells
from purelm.ablation.spec import Evaluation, Row
from purelm.evaluation import report
from purelm.training.launch import launch

TWICE = Evaluation("twice", changes={"model.context_length": 32})


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Trained: learned positions, and RoPE with two seeds. (cell, run folder) by key."""
    folder = tmp_path_factory.mktemp("cells")
    table = small_table(folder, rows=(Row("rope", {"model.positions": "rope"}),),
                        evaluations=(Evaluation("validation"), TWICE))
    found = {}
    for cell in plan_cells(table):
        if cell.key != "base/1":
            launch(cell.config, str(folder / cell.key), quiet=True)
            found[cell.key] = cell, folder / cell.key
    return found


def test_the_metrics_are_those_of_evaluate(cells):
    cell, folder = cells["rope/0"]
    metrics, unavailable = evaluate_cell.evaluate(cell, folder)
    known = report.evaluate_run(str(folder)).metrics
    assert not unavailable
    for name in ("loss", "perplexity", "accuracy", "bits_per_byte", "tokens", "step"):
        assert metrics[f"validation/{name}"] == known[name], name


def test_a_longer_context_scores_every_target_once_with_the_same_parameters(cells):
    cell, folder = cells["rope/0"]
    metrics, _ = evaluate_cell.evaluate(cell, folder)
    assert metrics["twice/tokens"] == metrics["validation/tokens"]
    # Reddens where the windows stay as they were: the losses would be equal.
    assert metrics["twice/loss"] != metrics["validation/loss"]
    assert abs(metrics["twice/loss"] - metrics["validation/loss"]) < 0.1


def test_learned_positions_end_where_their_table_ends(cells):
    metrics, unavailable = evaluate_cell.evaluate(*cells["base/0"])
    assert unavailable == {"twice": "its table of learned positions ends at 16"}
    assert "validation/loss" in metrics and not any(name.startswith("twice") for name in metrics)


def test_a_change_that_asks_for_other_parameters_says_which(cells):
    cell, folder = cells["rope/0"]
    wide = dataclasses.replace(cell, evaluations=(Evaluation("wide", changes={"model.feed_forward_width": 8}),))
    _, unavailable = evaluate_cell.evaluate(wide, folder)
    assert "feed_forward" in unavailable["wide"] and "not" in unavailable["wide"]


def test_seeds_of_a_row_share_their_program(cells):
    report._loss_step.cache_clear()
    for key in ("rope/0", "rope/1"):
        cell, folder = cells[key]
        evaluate_cell.evaluate(dataclasses.replace(cell, evaluations=(Evaluation("validation"),)), folder)
    assert report._loss_step.cache_info().misses == 1


def test_a_loss_that_is_no_number_is_unavailable(cells, monkeypatch):
    cell, folder = cells["rope/0"]
    load = evaluate_cell.load_run

    def damaged(*arguments, **options):
        run = load(*arguments, **options)
        return dataclasses.replace(run, params=jax.tree.map(lambda leaf: leaf * np.nan, run.params))

    monkeypatch.setattr(evaluate_cell, "load_run", damaged)
    metrics, unavailable = evaluate_cell.evaluate(cell, folder)
    assert set(unavailable) == {"validation", "twice"} and "not finite" in unavailable["twice"]
    assert all(math.isfinite(value) for value in metrics.values())


def test_answers_are_written_as_the_cell_says_now(cells, monkeypatch):
    # How a run answers may change after it was trained; its folder knows only how it was to be then.
    cell, folder = cells["rope/0"]
    changed = dataclasses.replace(cell.config, decoding=dataclasses.replace(cell.config.decoding, max_new_tokens=3))
    cell = dataclasses.replace(cell, stages=(("", changed),))
    assert evaluate_cell._load(cell, folder, "latest").config.decoding.max_new_tokens == 3


def test_nested_scores_are_named_by_their_path():
    values = {"bleu": 1, "components": {"a": {"bleu": 2.5}}, "labels": ["x"], "ok": True, "name": "b"}
    assert evaluate_cell.flat_numbers(values) == {"bleu": 1.0, "components/a/bleu": 2.5}
