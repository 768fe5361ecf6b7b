"""Run folders made by hand, grouped and compared."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from scipy import stats

from purelm.ablation.compare import table_of_runs
from purelm.ablation.results import curves_of
from purelm.ablation.store import COSTS, CellRecord, write_record
from purelm.config import Config, ModelConfig, OptimizerConfig, TrainingConfig, to_json
from purelm.config.changes import apply_changes
from purelm.errors import UserError

CONFIG = Config(model=ModelConfig(width=32, num_heads=4, context_length=16, vocabulary_size=64),
                training=TrainingConfig(num_steps=10), optimizer=OptimizerConfig(learning_rate=5e-4))
BASE, WORSE = (2.00, 2.05, 2.02), (2.40, 2.47, 2.43)


def run(folder: pathlib.Path, loss: float | None, changes=(), *, seed: int = 0, step: int = 10, source: str = "a",
        tokenizer: str = "t", day: int = 1, evaluation: dict | None = None, packages=("0.10.2",)) -> pathlib.Path:
    folder.mkdir(parents=True)
    config = dataclasses.replace(apply_changes(CONFIG, dict(changes)), seed=seed)
    (folder / "config.json").write_text(to_json(config))
    rows = [{"step": step // 2, "split": "validation", "loss": 5.0}, {"step": step, "split": "train", "loss": 1.0},
            {"step": step, "split": "validation", "loss": loss, "accuracy": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    starts = [{"time": f"2026-11-{day:02d}T00:00:00+00:00", "git": None, "python": "3.11", "devices": ["cpu:0"],
               "packages": {"jax": packages[0]}}]
    data = {"source": {"sha256": source, "files": []}, "tokenizer": tokenizer, "splits": {"validation": {"bytes": 7}}}
    (folder / "run.json").write_text(json.dumps({"starts": starts, "data": data}))
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps({"split": "test", "step": step, **evaluation}))
    return folder


@pytest.fixture
def runs(tmp_path):
    for seed, (base, worse) in enumerate(zip(BASE, WORSE)):
        run(tmp_path / f"a{seed}", base, seed=seed, evaluation={"bleu": 30 - base, "tokens": 5, "unparsed": 0.1})
        run(tmp_path / f"b{seed}", worse, {"model.num_layers": 8, "model.positions": "rope"}, seed=seed)
    run(tmp_path / "c", 2.1, {"optimizer.learning_rate": 2e-3, "training.log_every": "3", "data.path": "/x"})
    return tmp_path


def rows_of(table):
    return {row.name: row for row in table.rows}


def test_groups_by_what_differs(runs):
    table = table_of_runs([f"{runs}/*"], command="ablate")
    rows = rows_of(table)
    assert list(rows) == ["base", "num_layers=8, positions=rope", "learning_rate=0.002"]
    assert rows["base"].runs == {str(seed): f"{runs}/a{seed}" for seed in range(3)}
    worse = rows["num_layers=8, positions=rope"]
    assert worse.changes == {"model.num_layers": 8, "model.positions": "rope"}
    test = stats.ttest_rel(WORSE, BASE)
    found = worse.results["validation/loss"]
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9) and found.verdict == "worse"
    assert rows["learning_rate=0.002"].results["validation/loss"].verdict == "too few seeds"
    assert worse.costs.parameters > rows["base"].costs.parameters > 0
    assert table.noise["validation/loss"].seeds == 3
    assert table.made["command"] == "ablate" and table.made["date"] == "2026-11-01"
    assert curves_of(table, ".")["base"]["1"] == [(5, 5.0), (10, 2.05)]


def test_metrics(runs):
    table = table_of_runs([f"{runs}/*"], metric="test/bleu")
    directions = {metric.name: metric.direction for metric in table.metrics}
    assert directions == {"test/bleu": "higher", "validation/loss": "lower", "validation/accuracy": "higher",
                          "test/unparsed": "lower"}
    assert next(iter(directions)) == "test/bleu"
    assert rows_of(table)["base"].results["test/bleu"].values == pytest.approx({str(s): 30 - BASE[s] for s in range(3)})


def test_named_base(runs):
    table = table_of_runs([f"{runs}/*"], base=f"{runs}/b1")
    assert table.rows[0].name == "base" and table.rows[0].changes == {} and set(table.rows[0].runs.values()) == {
        f"{runs}/b{seed}" for seed in range(3)}
    assert "num_layers=4, positions=learned" in rows_of(table)
    assert table_of_runs([f"{runs}/*"], base="c").rows[0].runs == {"0": f"{runs}/c"}


def test_other_data_is_never_compared(runs):
    """Reddens where the data's fingerprint has no part in it."""
    run(runs / "other", 0.1, source="b")
    run(runs / "other_task", 0.1, {"task.name": "masked_language_modeling"})
    table = table_of_runs([f"{runs}/*"])
    assert len(table.rows) == 3 and sum("left out, of other data or another task" in note for note in table.notes) == 2
    table = table_of_runs([f"{runs}/*"], base=f"{runs}/other")
    assert [list(row.runs.values()) for row in table.rows] == [[f"{runs}/other"]]


def test_another_tokenizer_is_said(runs):
    run(runs / "d", 1.0, {"data.tokenizer": "bytes"}, tokenizer="u")
    assert "another tokenizer" in rows_of(table_of_runs([f"{runs}/*"]))["tokenizer=bytes"].notes[0]


def test_what_does_not_count(runs):
    """Unfinished runs, and an older one with the same config and seed, which would be no further evidence."""
    run(runs / "a0_again", 1.0, seed=0, day=2)
    run(runs / "half", 9.0, seed=7, step=5)
    (runs / "broken").mkdir()
    (runs / "broken/config.json").write_text('{"seeed": 1}')
    (runs / "broken/metrics.jsonl").write_text("")
    table = table_of_runs([f"{runs}/*"])
    base = rows_of(table)["base"]
    assert base.runs["0"] == f"{runs}/a0_again" and base.cells["7"] == "running"
    assert base.results["validation/loss"].values == {"0": 1.0, "1": 2.05, "2": 2.02}
    assert base.notes == ("seed 7: at step 5 of 10, not finished, so it does not count",)
    assert any(f"{runs}/a0: left out, {runs}/a0_again is the same" in note for note in table.notes)
    assert any("left out: " in note and "broken" in note and "seeed" in note for note in table.notes)
    assert rows_of(table_of_runs([f"{runs}/*"], base=f"{runs}/a0"))["base"].runs == base.runs  # Left out, and found.


def test_notes_of_the_numbers(runs):
    run(runs / "d", None, {"model.num_layers": 2}, evaluation={"bleu": 1.0, "step": 4}, packages=("0.11.0",))
    table = table_of_runs([f"{runs}/*"])
    row = rows_of(table)["num_layers=2"]
    assert row.results["validation/loss"].verdict == "missing" and row.results["test/bleu"].mean == 1.0
    assert any("no number" in note for note in row.notes) and any("of step 4, not of" in note for note in row.notes)
    assert any("several versions of jax: 0.10.2, 0.11.0" in note for note in table.notes)


def test_work_folders(tmp_path):
    """Rows are found below; stages, searches and what was replaced are none; measured costs are taken; a stage's config
    counts, and where it lies does not."""
    for row, rate in (("base", 5e-4), ("fast", 1e-3)):
        for seed in (0, 1):
            folder = tmp_path / "work/runs" / row / str(seed)
            run(folder / "stages/before", 3.0, {"optimizer.learning_rate": rate}, seed=seed)
            run(folder.parent / f"{seed}_", 2.0 + seed + rate, {"init_from": str(folder / "stages/before")}, seed=seed)
            for name in ("config.json", "metrics.jsonl", "run.json"):
                (folder.parent / f"{seed}_" / name).rename(folder / name)
            (folder.parent / f"{seed}_").rmdir()
            write_record(str(tmp_path / "work"), CellRecord(
                f"{row}/{seed}", row, seed, "done", "t", costs={**dict.fromkeys(COSTS), "parameters": 77,
                                                                "seconds_per_step": 0.5}))
    run(tmp_path / "work/replaced/base/0.1", 1.0)
    run(tmp_path / "work/runs/base@learning_rate=0.001/1000", 1.0)
    table = table_of_runs([str(tmp_path / "work")])
    rows = rows_of(table)
    assert list(rows) == ["base", "learning_rate=0.001"] and list(rows["base"].runs) == ["0", "1"]
    assert rows["learning_rate=0.001"].changes == {"before.optimizer.learning_rate": 1e-3}
    assert rows["base"].costs.parameters == 77 and rows["base"].costs.seconds_per_step == 0.5


def test_names_stay_short_and_apart(tmp_path):
    many = {f"model.{name}": 0.1 for name in ("embedding_dropout", "attention_dropout", "residual_dropout")}
    many |= {"optimizer.beta1": 0.5, "optimizer.beta2": 0.5, "optimizer.name": "lion", "optimizer.epsilon": 1e-3}
    for index in range(3):
        run(tmp_path / f"r{index}", 2.0, {**many, "optimizer.epsilon": 1e-4 * index + 1e-4} if index else {})
    names = [row.name for row in table_of_runs([f"{tmp_path}/*"], base=f"{tmp_path}/r0").rows]
    assert names[1].startswith("embedding_dropout=0.1, ") and "optimizer=lion" in names[1]
    assert names[1].endswith("and 1 more") and names[2] == f"{names[1]} (2)"


@pytest.mark.parametrize("arguments, message", [
    ({"patterns": ["{}/nothing*"]}, "--runs={}/nothing*: nothing matches; give run folders"),
    ({"patterns": ["{}/a0/*.json"]}, "no run folder there"),
    ({"patterns": ["{}/*"], "base": "{}/a9"}, "is none of the runs; did you mean"),
    ({"patterns": ["{}/*"], "metric": "validation/los"}, "no run has the metric validation/los; did you mean")])
def test_errors(runs, arguments, message):
    filled = {name: value.format(runs) if isinstance(value, str) else [part.format(runs) for part in value]
              for name, value in arguments.items()}
    with pytest.raises(UserError) as error:
        table_of_runs(**({"metric": "validation/loss"} | filled))
    assert message.format(runs) in str(error.value) and "\n" not in str(error.value)
