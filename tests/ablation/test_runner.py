"""What the runner runs, and what it leaves alone. Trainings are counted rather than done."""

import collections
import dataclasses
import json
import os
import pathlib

import pytest
from small_table import ROWS, small_table

from purelm.ablation import cell_work, evaluate_cell, runner, worker
from purelm.ablation.launchers import TaskFailure
from purelm.ablation.launchers.here import HereLauncher
from purelm.ablation.spec import Evaluation, Row, Stage
from purelm.ablation.store import held, read_record
from purelm.config import to_json
from purelm.errors import UserError
from purelm.training import launch, together
from purelm.training.loop import Outcome


class Counted:
    """Trainings and evaluations in place of real ones: the loss is the learning rate's distance to 0.003."""

    def __init__(self, monkeypatch):
        self.trained, self.evaluated, self.from_runs = [], [], []
        self.failing = {}
        monkeypatch.setattr(launch, "launch", self.launch)
        monkeypatch.setattr(evaluate_cell, "evaluate", self.evaluate)
        monkeypatch.setattr(worker, "forget_programs", lambda: None)
        monkeypatch.setattr(cell_work, "model_costs", lambda folder: {"parameters": 1})
        monkeypatch.setattr(cell_work, "_seconds_per_step", lambda folder: 0.5)

    def launch(self, config, workdir, *, quiet, devices):
        folder = pathlib.Path(workdir)
        self.trained.append("/".join(folder.parts[folder.parts.index("runs") + 1:]))
        self.from_runs.append(config.init_from)
        folder.mkdir(parents=True, exist_ok=True)
        for part, error in self.failing.items():
            if part in workdir:
                raise error
        (folder / "run.json").write_text(json.dumps({"starts": [{"devices": ["cpu:0"], "git": {"commit": "abc"}}]}))
        return Outcome(config.training.num_steps, None, 0.25, 1000)

    def evaluate(self, cell, folder):
        self.evaluated.append(cell.key)
        return {"validation/loss": abs(cell.config.optimizer.learning_rate - 0.003) + cell.seed / 1e6}, {}

    def taken(self):
        """(trained, evaluated) since the last call."""
        found = self.trained, self.evaluated
        self.trained, self.evaluated = [], []
        return found


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.fixture
def go(tmp_path, counted):
    """Runs the small table, changed, and says what was trained and evaluated."""
    def run(changes=None, **options):
        options = {"launcher": HereLauncher(), "together": False} | options
        summary = runner.run(small_table(tmp_path, **(changes or {})), str(tmp_path / "work"), **options)
        return summary, *counted.taken()

    return run


ALL = ["base/0", "base/1", "wide/0", "wide/1", "quick/0", "quick/1"]


def test_a_finished_cell_is_never_run_again(go):
    summary, trained, evaluated = go()
    assert trained == evaluated == ALL and summary.done == summary.cells == 6 and not summary.failed
    summary, trained, evaluated = go()
    assert (trained, evaluated, summary.run) == ([], [], ()) and summary.done == 6


def test_a_further_seed_or_row_runs_its_cells_alone(go):
    go(rows=["base", "wide"])
    assert go()[1] == ["quick/0", "quick/1"]
    assert go({"seeds": (0, 1, 5)})[1] == ["base/5", "wide/5", "quick/5"]


def test_a_changed_row_runs_again_and_what_was_there_is_kept(go, tmp_path, capsys):
    go()
    (tmp_path / "work" / "runs" / "wide" / "0" / "mark").write_text("of before")
    capsys.readouterr()
    summary, trained, _ = go({"rows": (Row("wide", {"model.width": 32}), ROWS[1])})
    assert trained == ["wide/0", "wide/1"] and summary.replaced == ("wide/0", "wide/1")
    assert (tmp_path / "work" / "replaced" / "wide" / "0.1" / "mark").read_text() == "of before"
    assert not (tmp_path / "work" / "runs" / "wide" / "0" / "mark").exists()
    said = [line for line in capsys.readouterr().err.splitlines() if "run again" in line]
    assert len(said) == 1 and "model.width 24 -> 32" in said[0] and "wide/0, wide/1" in said[0]


def test_changed_code_runs_all_again_unless_it_is_to_be_kept(go, monkeypatch, capsys):
    from purelm.ablation import fingerprints

    go()
    monkeypatch.setattr(fingerprints, "code_fingerprint", lambda *_, **__: "other code")
    assert go(stale="keep")[1:] == ([], [])
    assert go()[1] == ALL
    assert "the code that trains it changed" in capsys.readouterr().err


def test_changed_evaluations_train_nothing(go):
    go()
    evaluations = (Evaluation("validation"), Evaluation("train", "train"))
    assert go({"evaluations": evaluations})[1:] == ([], ALL)
    assert go({"evaluations": evaluations})[1:] == ([], [])


def test_a_failed_cell_stops_nobody_and_is_tried_again_by_the_next_call(go, counted, tmp_path, capsys):
    counted.failing = {"wide/0": UserError("no such file"), "quick": ZeroDivisionError("by nought")}
    summary, trained, evaluated = go()
    assert trained == ALL and evaluated == ["base/0", "base/1", "wide/1"]
    assert summary.failed == (("wide/0", "no such file"), ("quick/0", "ZeroDivisionError: by nought"),
                              ("quick/1", "ZeroDivisionError: by nought"))
    record = read_record(str(tmp_path / "work"), "quick/1")
    assert (record.state, record.error) == ("failed", "ZeroDivisionError: by nought")
    assert "raise error" in (tmp_path / "work" / "logs" / "quick.1.log").read_text()  # The traceback.
    said = capsys.readouterr().err
    assert said.count("by nought") == 2  # When it happened first, and at the end: not once for each cell.
    counted.failing = {}
    summary, trained, _ = go()
    assert trained == ["wide/0", "quick/0", "quick/1"] and not summary.failed and summary.done == 6


def test_a_damaged_record_costs_its_cell_alone(go, tmp_path, capsys):
    go()
    (tmp_path / "work" / "runs" / "wide" / "1" / "cell.json").write_text('{"key": "wi')
    assert go()[1] == ["wide/1"]
    assert (tmp_path / "work" / "replaced" / "wide" / "1.1" / "cell.json").read_text() == '{"key": "wi'
    assert "its cell.json is missing or damaged" in capsys.readouterr().err


def test_a_damaged_plan_is_made_again(go, tmp_path):
    go(rows=["base"])
    (tmp_path / "work" / "plan.json").write_text("{")
    assert go(rows=["base", "wide"])[1] == ["wide/0", "wide/1"]


def test_a_search_comes_first_and_its_best_point_is_run(go, counted):
    search = {"search": {"optimizer.learning_rate": (0.001, 0.002, 0.01)}, "rows": ROWS[:1]}
    summary, trained, _ = go(search)
    points = [f"{row}@learning_rate={rate}/1000" for row in ("base", "wide") for rate in (0.001, 0.002, 0.01)]
    assert trained == points + ["base/0", "base/1", "wide/0", "wide/1"] and summary.done == 10
    assert go(search)[1:] == ([], [])
    # More seeds of the rows do not search again.
    assert go({**search, "seeds": 3})[1] == ["base/2", "wide/2"]


def test_a_point_that_fails_is_not_chosen_and_a_row_without_any_has_failed(go, counted, tmp_path):
    counted.failing = {"base@learning_rate=0.002": UserError("diverged"), "wide@": UserError("diverged")}
    search = {"search": {"optimizer.learning_rate": (0.001, 0.002, 0.01)}, "rows": ROWS[:1]}
    summary, trained, _ = go(search)
    assert trained[-2:] == ["base/0", "base/1"] and "wide/0" not in trained
    config = runner._Runner(None, str(tmp_path / "work"), None, None, True, "rerun", True)._read_plan()["base/0"].config
    assert config.optimizer.learning_rate == 0.001
    assert ("wide", "no point of its search could be trained") in summary.failed


def test_stages_follow_each_other_from_folder_to_folder(go, counted, tmp_path):
    stages = (Stage("pretrain"), Stage("tune", {"training.num_steps": 3}))
    _, trained, evaluated = go({"stages": stages, "rows": ROWS[:1], "seeds": 1})
    assert trained == ["base/0/stages/pretrain", "base/0", "wide/0/stages/pretrain", "wide/0"]
    assert evaluated == ["base/0", "wide/0"]
    assert counted.from_runs[:2] == [None, str(tmp_path / "work" / "runs" / "base" / "0" / "stages" / "pretrain")]


def test_a_stage_that_was_begun_goes_on_though_the_folder_is_given_by_another_path(go, counted, tmp_path, monkeypatch):
    """Reddens where init_from follows the path: training refuses to resume a run with another config."""
    stages = (Stage("pretrain"), Stage("tune", {"training.num_steps": 3}))
    counted.failing = {str(pathlib.Path("base", "0")): UserError("cut off")}
    go({"stages": stages, "rows": ROWS[:1], "seeds": 1}, rows=["base"])
    begun = tmp_path / "work" / "runs" / "base" / "0"
    before = dataclasses.replace(small_table(tmp_path).base, init_from="elsewhere/work/runs/base/0/stages/pretrain")
    (begun / "config.json").write_text(to_json(before))
    counted.failing, counted.from_runs = {}, []
    go({"stages": stages, "rows": ROWS[:1], "seeds": 1}, rows=["base"])
    assert counted.from_runs == [None, str(begun / "stages" / "pretrain")]  # No checkpoint: it begins here.
    (begun / "checkpoints" / "2").mkdir(parents=True)
    (begun / "cell.json").write_text((begun / "cell.json").read_text().replace('"done"', '"running"'))
    counted.from_runs = []
    go({"stages": stages, "rows": ROWS[:1], "seeds": 1}, rows=["base"])
    assert counted.from_runs == [None, before.init_from]


def test_a_log_that_cannot_be_written_is_one_line(go, counted, tmp_path):
    counted.failing = {"base": UserError("no such file")}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "logs").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"base.0.log: cannot be written .*base/0 failed: no such file"):
        go()


class Dying(HereLauncher):
    """Workers of one row die."""

    def run(self, workdir, tasks, *, together, on_change):
        lost = [keys for keys in tasks if keys[0].startswith("wide")]
        super().run(workdir, [keys for keys in tasks if keys not in lost], together=together, on_change=on_change)
        return [TaskFailure(tuple(keys), "worker died 3 times (signal 9)") for keys in lost]


def test_cells_whose_workers_die_have_failed(go, tmp_path):
    summary, trained, _ = go(launcher=Dying())
    assert trained == ["base/0", "base/1", "quick/0", "quick/1"]
    assert dict(summary.failed) == dict.fromkeys(("wide/0", "wide/1"), "worker died 3 times (signal 9)")
    assert go()[1] == ["wide/0", "wide/1"]


def test_a_folder_has_one_runner_and_says_so(go, tmp_path):
    go(rows=["base"])
    with held(str(tmp_path / "work")), pytest.raises(UserError, match="another ablation is running there"):
        go()


def test_a_wrong_table_writes_nothing(go, tmp_path):
    with pytest.raises(UserError, match="width"):
        go({"rows": (Row("wide", {"model.widht": 24}),)})
    with pytest.raises(UserError, match="no such row"):
        go(rows=["wied"])
    assert not (tmp_path / "work" / "runs").exists()


@pytest.fixture
def grouped(monkeypatch, counted):
    """Groups that were trained together; train_together counts as a launch of each."""
    groups = []

    def train_together(configs, workdirs, *, quiet, devices):
        groups.append([os.path.relpath(folder, folder.split("runs")[0] + "runs") for folder in workdirs])
        if "refused" in counted.failing:
            raise counted.failing["refused"]
        outcomes = []
        for config, folder in zip(configs, workdirs):
            error = "not finite" if "broken" in counted.failing and folder.endswith(counted.failing["broken"]) else None
            if error is None:
                counted.launch(config, folder, quiet=quiet, devices=devices)
            outcomes.append(together.TogetherOutcome(6, None, error, 0.1, 10, 2.5, len(configs)))
        return outcomes

    monkeypatch.setattr(together, "train_together", train_together)
    return groups


def test_cells_of_one_program_are_trained_together(go, grouped, tmp_path):
    summary, trained, _ = go(together=True)
    # A learning rate is a number of the same program.
    assert grouped == [["base/0", "base/1", "quick/0", "quick/1"], ["wide/0", "wide/1"]]
    assert collections.Counter(trained) == collections.Counter(ALL) and summary.done == 6
    record = read_record(str(tmp_path / "work"), "quick/1")
    assert (record.together, record.costs["train_seconds"], record.costs["seconds_per_step"]) == (4, 2.5, 0.1)


def test_what_a_training_cost_stays_known_where_only_its_evaluation_is_tried_again(go, grouped, tmp_path, monkeypatch):
    """Reddens where a start that finds nothing left to train says how the training went."""
    go(together=True)
    path = tmp_path / "work" / "runs" / "quick" / "1" / "cell.json"
    path.write_text(path.read_text().replace('"done"', '"failed"'))
    monkeypatch.setattr(launch, "launch", lambda *_, **__: Outcome(6, None))
    assert go(together=True)[2] == ["quick/1"]
    record = read_record(str(tmp_path / "work"), "quick/1")
    assert (record.together, record.costs["seconds_per_step"], record.costs["memory_bytes"]) == (4, 0.1, 10)


def test_one_of_a_group_fails_alone(go, grouped, counted):
    counted.failing = {"broken": "base/1"}
    summary, _, evaluated = go(together=True, rows=["base", "quick"])
    assert summary.failed == (("base/1", "not finite"),) and evaluated == ["base/0", "quick/0", "quick/1"]


def test_a_group_that_cannot_be_trained_as_one_is_trained_cell_by_cell(go, grouped, counted, tmp_path):
    counted.failing = {"refused": RuntimeError("no")}
    summary, trained, _ = go(together=True, rows=["wide"])
    assert grouped == [["wide/0", "wide/1"]] and trained == ["wide/0", "wide/1"] and not summary.failed
    assert "trained alone" in (tmp_path / "work" / "logs" / "wide.0.log").read_text()
