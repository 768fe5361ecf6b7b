"""A work folder made by hand, as a table."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from purelm.ablation import agreement, results, scaling
from purelm.ablation.comparisons import Rules, results_of
from purelm.ablation.plan import plan_cells
from purelm.ablation.search_results import sensitivity_of
from purelm.ablation.spec import Ablation, Evaluation, Metric, Row
from purelm.ablation.statistics import holm
from purelm.ablation.store import COSTS, CellRecord, write_record
from purelm.config import Config, ModelConfig, OptimizerConfig, TrainingConfig, to_json

LOSS = Metric("validation/loss", "loss", "lower", tolerance=0.2)
BLEU = Metric("test/bleu", "BLEU", "higher", digits=1)
RATES = {"optimizer.learning_rate": (1e-3, 3e-3, 1e-2)}
BASE = (4.90, 4.95, 4.92)


def ablation(**changes) -> Ablation:
    base = Config(model=ModelConfig(width=32, num_heads=4, context_length=16, vocabulary_size=64),
                  training=TrainingConfig(num_steps=10), optimizer=OptimizerConfig(learning_rate=5e-4))
    rows = (Row("worse", {"model.num_heads": 1}, group="(A)", published={"validation/loss": 5.29}),
            Row("same", {"model.num_heads": 2}, published={"validation/loss": 5.00}),
            Row("searched", {"model.width": 64}, search=RATES, compare_to="worse"),
            Row("nothing", {"model.num_layers": 2}))
    fields = dict(title="a table", source="a paper", base=base, rows=rows, metrics=(LOSS, BLEU),
                  evaluations=(Evaluation("validation"), Evaluation("test", split="test")),
                  base_published={"validation/loss": 4.92})
    return Ablation(**(fields | changes))


def write(workdir: pathlib.Path, key: str, state: str = "done", *, losses=(), fingerprints=("t", "e"),
          **fields) -> None:
    """A cell.json, with a run folder as small as the table needs."""
    row, seed = key.rsplit("/", 1)
    record = CellRecord(key, row, int(seed), state, *fingerprints, devices=("cpu:0",), commit="c" * 40,
                        finished=f"2026-11-2{seed[-1]}T00:00:00+00:00",
                        costs={**dict.fromkeys(COSTS), "parameters": 1000, "train_seconds": 10.0 + int(seed)})
    write_record(str(workdir), dataclasses.replace(record, **fields))
    folder = workdir / "runs" / key
    start = {"time": "2026-11-20T00:00:00+00:00", "git": {"commit": "c" * 40, "difference": "none"},
             "python": "3.11.7", "packages": {"jax": "0.10.2", "purelm": None}, "devices": ["cpu:0"]}
    (folder / "run.json").write_text(json.dumps({"starts": [start], "data": {}}))
    (folder / "metrics.jsonl").write_text("".join(
        json.dumps({"step": step, "split": split, "loss": loss}) + "\n"
        for split in ("train", "validation") for step, loss in enumerate(losses, 1)))


def finished(workdir: pathlib.Path, table: Ablation, row: str, losses, **fields) -> None:
    """Cells of today's config and code."""
    cells = {cell.key: cell for cell in plan_cells(table, chosen={"searched": {"optimizer.learning_rate": 3e-3}})}
    for seed, loss in enumerate(losses):
        cell = cells[f"{row}/{seed}"]
        write(workdir, cell.key, metrics={"validation/loss": loss, "test/bleu": 30 - loss}, losses=(6.0, loss),
              fingerprints=(cell.training_fingerprint, cell.evaluation_fingerprint), **fields)


def search_cells(workdir, values, seed=1000) -> None:
    for rate, value in values.items():
        state, metrics = ("failed", {}) if value is None else ("done", {"validation/loss": value})
        write(workdir, f"searched@learning_rate={rate}/{seed}", state, metrics=metrics,
              error=None if metrics else "the loss is NaN\nat step 3")


@pytest.fixture
def folder(tmp_path):
    table = ablation()
    finished(tmp_path, table, "base", BASE)
    finished(tmp_path, table, "worse", (5.30, 5.36, 5.33))
    finished(tmp_path, table, "same", (4.93, 4.91, 4.94))
    search_cells(tmp_path, {"0.001": 5.0, "0.003": 4.8, "0.01": None})
    finished(tmp_path, table, "searched", (4.70, 4.72, 4.73))
    return tmp_path


def row_of(table, name):
    return next(row for row in table.rows if row.name == name)


def test_numbers_are_scipys(folder):
    table = results.table_of(ablation(), str(folder), command="ablate")
    assert [row.name for row in table.rows] == ["base", "worse", "same", "searched", "nothing"]
    found = {row.name: row.results["validation/loss"] for row in table.rows}
    pairs = {"worse": ((5.30, 5.36, 5.33), BASE), "same": ((4.93, 4.91, 4.94), BASE),
             "searched": ((4.70, 4.72, 4.73), (5.30, 5.36, 5.33))}  # Reddens where compare_to is not heeded.
    tests = {name: stats.ttest_rel(*values) for name, values in pairs.items()}
    for name, test in tests.items():
        assert found[name].p_value == pytest.approx(test.pvalue, rel=1e-9)
        assert found[name].interval == pytest.approx(tuple(test.confidence_interval()), rel=1e-9)
    assert [found[name].p_adjusted for name in tests] == pytest.approx(
        holm([test.pvalue for test in tests.values()]), rel=1e-9)
    assert [result.verdict for result in found.values()] == ["base", "worse", "within noise", "better", "missing"]
    assert row_of(table, "worse").results["test/bleu"].verdict == "worse"  # The other direction.
    base = found["base"]
    assert base.mean == pytest.approx(np.mean(BASE)) and base.difference is None and base.p_value is None
    assert base.spread == pytest.approx(np.std(BASE, ddof=1)) and base.values == dict(zip("012", BASE))
    noise = table.noise["validation/loss"]
    assert (noise.spread, noise.seeds, noise.power) == (base.spread, 3, 0.8) and noise.detectable > noise.spread


def test_published(folder):
    table = results.table_of(ablation(expected_order=("searched", "base", "worse")), str(folder))
    worse = row_of(table, "worse").results["validation/loss"]
    assert (worse.published, worse.reproduced) == (5.29, True)
    assert worse.published_difference == pytest.approx(0.37)
    assert row_of(table, "base").results["validation/loss"].published_difference is None
    assert row_of(table, "worse").results["test/bleu"].reproduced is None
    by_number, by_order = table.agreement
    assert (by_number.against, by_number.rows, by_number.tau) == ("published", 3, pytest.approx(1.0))
    assert by_number.same_sign == (2, 2) and by_number.interval[0] < by_number.interval[1] == pytest.approx(1.0)
    assert (by_order.against, by_order.rows, by_order.tau, by_order.same_sign) == (
        "expected order", 3, pytest.approx(1.0), None)


def test_costs_cells_and_what_it_was_made_with(folder):
    table = results.table_of(ablation(), str(folder), command="ablate")
    base, nothing = row_of(table, "base"), row_of(table, "nothing")
    assert base.costs.parameters == 1000 and base.costs.train_seconds == 11.0 and base.costs.memory_bytes is None
    assert base.cells == dict.fromkeys("012", "done") and base.runs["1"] == "runs/base/1" and base.notes == ()
    assert nothing.cells == dict.fromkeys("012", "missing") and nothing.runs == {} and nothing.notes == ()
    assert nothing.results["validation/loss"].mean is None and nothing.costs.parameters is None
    assert table.made["date"] == "2026-11-22" and table.made["command"] == "ablate"
    assert table.made["commits"] == ("c" * 40,) and table.made["devices"] == ("cpu:0",)
    assert table.made["versions"] == {"python": "3.11.7", "jax": "0.10.2"}
    assert table.made["seconds"] == 4 * (10 + 11 + 12) + 3 * 1010  # Searches too.
    assert table.notes == ()
    curves = results.curves_of(table, str(folder))
    assert curves["worse"]["1"] == [(1, 6.0), (2, 5.36)] and "nothing" not in curves


def test_search(folder):
    found = row_of(results.table_of(ablation(), str(folder)), "searched")
    assert [value for _, value in found.search.points] == [5.0, 4.8, None]
    assert found.search.chosen == {"optimizer.learning_rate": 3e-3} and not found.search.at_edge
    assert found.search.sensitivity == pytest.approx((0.2 + 0 + 0.2) / 3)
    assert found.notes == ("compared with worse",
                           "search: searched@learning_rate=0.01/1000 failed: the loss is NaN at step 3")
    search_cells(folder, {"0.01": 4.1})
    found = row_of(results.table_of(ablation(), str(folder)), "searched")
    assert found.search.at_edge and "optimizer.learning_rate=0.01, is at its edge" in " ".join(found.notes)
    assert "trained by another config" in found.notes[1]  # With the rate chosen before.
    write(folder, "searched@learning_rate=0.01/1000", "running")
    found = row_of(results.table_of(ablation(), str(folder)), "searched")
    assert found.search.chosen is None and found.search.sensitivity is None
    assert "its search has not ended" in found.notes


def test_sensitivity():
    assert sensitivity_of([1.0, 3.0, None], "lower") == pytest.approx((0 + 2 + 2) / 3)
    assert sensitivity_of([1.0, 3.0, None], "higher") == pytest.approx((2 + 0 + 2) / 3)
    assert sensitivity_of([1.0], "lower") is None and sensitivity_of([None, None], "lower") is None


def test_what_a_reader_must_know(folder):
    table = ablation()
    write(folder, "same/1", "failed", error="out of\nmemory")
    write(folder, "same/2", "trained")
    write(folder, "worse/0", metrics={"validation/loss": 5.3}, unavailable={"test": "no test split"}, commit="d" * 40)
    (folder / "runs/worse/2/cell.json").unlink()
    found = results.table_of(table, str(folder))
    same, worse = row_of(found, "same"), row_of(found, "worse")
    assert same.cells == {"0": "done", "1": "failed", "2": "running"}
    assert same.notes == ("seed 1: failed: out of memory", "seed 2: not finished")
    assert same.results["validation/loss"].verdict == "too few seeds"
    assert same.results["validation/loss"].difference == pytest.approx(4.93 - BASE[0])
    assert worse.notes == ("seed 0: test/bleu: not measured: no test split",
                           "seed 0: trained by another config or code than today's", "seed 2: not run")
    assert list(worse.results["test/bleu"].values) == ["1"]
    assert found.notes == ("cells of 2 commits: cccccccccc, dddddddddd",)


def test_what_is_old_in_every_row_is_said_once(folder):
    for path in folder.glob("runs/*/*/cell.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "training_fingerprint": "of an older code"}))
    found = results.table_of(ablation(), str(folder))
    assert found.notes[0] == "all rows: trained by another config or code than today's"
    assert not any("today" in note for row in found.rows for note in row.notes)


def test_a_constant_difference_is_said(folder):
    finished(folder, ablation(), "same", [loss + 0.5 for loss in BASE])
    same = row_of(results.table_of(ablation(), str(folder)), "same")
    assert same.results["validation/loss"].verdict == "within noise"  # Reddens with the t-test's limit, p = 0.
    assert same.notes[0] == ("validation/loss: all 3 differences are 0.5, without any spread to test against; p is "
                             "that of flips of their signs, 2^(1 - 3)")


def test_nothing_there(tmp_path):
    found = results.table_of(ablation(), str(tmp_path))
    assert {row.results["test/bleu"].verdict for row in found.rows} == {"missing"}
    assert found.noise["test/bleu"].detectable is None and found.agreement[0].tau is None
    assert results.curves_of(found, str(tmp_path)) == {}


def test_dunnett_of_two_families(folder):
    """Reddens where the second family's p-values are not corrected for there being two."""
    table = results.table_of(ablation(test="dunnett"), str(folder))
    found = row_of(table, "searched").results["validation/loss"]
    alone = stats.ttest_rel((4.70, 4.72, 4.73), (5.30, 5.36, 5.33))
    assert found.p_value == pytest.approx(alone.pvalue, rel=1e-9)
    assert found.p_adjusted == pytest.approx(2 * alone.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(alone.confidence_interval(0.975)), rel=1e-9)
    assert "Bonferroni" in table.notes[0]


def test_dunnett_says_whose_spread_is_another(folder):
    finished(folder, ablation(), "same", (3.0, 5.0, 7.0))
    for test, said in (("dunnett", True), ("paired_t", False)):
        notes = row_of(results.table_of(ablation(test=test), str(folder)), "same").notes
        assert any("spread is larger" in note for note in notes) == said


def test_bootstrap_changes_the_interval_alone(folder):
    by_t, by_bootstrap = (row_of(results.table_of(ablation(interval=interval), str(folder)), "worse").results[
        "validation/loss"] for interval in ("t", "bootstrap"))
    assert by_t.p_adjusted == by_bootstrap.p_adjusted and by_t.interval != by_bootstrap.interval


def test_agreement_is_scipys():
    generator = np.random.default_rng(0)
    values = {f"r{row}": dict(enumerate(generator.normal(row / 3, 1, 3))) for row in range(8)}
    published = {f"r{row}": float(row // 2) for row in range(8)}  # With ties.
    found, _ = results_of(LOSS, values, {row: "r0" for row in values}, published, Rules("paired_t", "t", 0.95))
    ours = agreement.with_published(LOSS, found, 0.95)
    oracle = stats.kendalltau([np.mean(list(row.values())) for row in values.values()], list(published.values()))
    assert (ours.tau, ours.p_value) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-9)
    assert ours.interval[0] <= ours.tau <= ours.interval[1] and ours.same_sign[1] == 6
    best_first = [f"r{row}" for row in range(8)]
    lower = agreement.with_order(LOSS, found, best_first, 0.95)
    higher = agreement.with_order(BLEU, found, best_first, 0.95)
    assert lower.tau == pytest.approx(-higher.tau) and lower.tau > 0
    assert agreement.kendall([1.0], [1.0]) == (None, None) and agreement.kendall([1, 1], [1, 2]) == (None, None)
    assert agreement.kendall_interval([[1.0, 2.0], [1.0]], [1, 2], 0.95) is None


def test_fit_of_cells(tmp_path, monkeypatch):
    """Reddens where embeddings are counted, or the tokens of a step are not."""
    sizes = {f"n{layers}d{steps}": {"model.num_layers": layers, "training.num_steps": steps}
             for layers in (1, 2, 4) for steps in (11, 20, 40)}
    table = ablation(rows=tuple(Row(name, changes) for name, changes in sizes.items()), metrics=(LOSS,),
                     seeds=1, fit="chinchilla", base_published={}, evaluations=(Evaluation("validation"),))
    for cell in plan_cells(table):
        layers, steps = cell.config.model.num_layers, cell.config.training.num_steps
        loss = 1.5 + 30 / (layers * 12_000)**0.4 + 20 / (steps * 32 * 16)**0.3
        write(tmp_path, cell.key, metrics={"validation/loss": loss})
        (tmp_path / cell.folder / "config.json").write_text(to_json(cell.config))
    monkeypatch.setitem(scaling.fit_chinchilla.__kwdefaults__, "resamples", 20)
    found = results.table_of(table, str(tmp_path))
    points = {point["row"]: point for point in found.fit["points"]}
    assert points["n1d20"]["tokens"] == 20 * 32 * 16
    assert 12_000 < points["n1d20"]["parameters"] < 14_000  # 12 x 32^2 and biases and norms; the embedding has 2,048.
    assert found.fit["parameters"]["b"] == pytest.approx(0.3, rel=0.05)
    assert found.fit["residual"] < 1e-4 and set(found.fit["intervals"]) >= {"E", "A", "a", "B", "b"}
    few = results.table_of(dataclasses.replace(table, rows=table.rows[:3]), str(tmp_path))
    assert few.fit is None and "no fit: 4 different pairs" in few.notes[0]
    (tmp_path / "runs" / "n1d20" / "0" / "config.json").unlink()
    without = results.table_of(table, str(tmp_path))  # The rest of the table is as good as before.
    assert without.fit is None and "n1d20" in without.notes[0]


def test_why_cells_failed_is_told_by_row_and_seed(tmp_path):
    table = ablation()
    write(tmp_path, "worse/0", "failed", error="diverged")
    write(tmp_path, "worse/1", metrics={"validation/loss": 5.0})
    write(tmp_path, "same/2", "failed")
    found = results.errors_of(results.table_of(table, str(tmp_path)), str(tmp_path))
    assert found == {"worse": {"0": "diverged"}, "same": {"2": "no reason was recorded"}}
