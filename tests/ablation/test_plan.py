"""Cells, their fingerprints, and what of a spec and a plan survives being written."""

import dataclasses
import itertools

import pytest

from purelm.ablation import fingerprints, serialize
from purelm.ablation.plan import (
    choose,
    config_differences,
    plan_cells,
    read_plan,
    resolved_rows,
    search_points,
    seeds_of,
    write_plan,
)
from purelm.ablation.spec import Ablation, Evaluation, Metric, Row, Stage
from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig, WordVectorsConfig
from purelm.errors import UserError

RULES = (("embedding", 0.5), (".*", 1.0))


def whole() -> Ablation:
    """A spec with everything in it."""
    base = Config(model=ModelConfig(width=32), data=DataConfig(cleaning=("unicode_nfc",)),
                  training=TrainingConfig(num_steps=10))
    return Ablation(
        title="a ± table", source="a paper", base=base, base_label="the base", base_published={"validation/loss": 1.5},
        rows=(Row("wide", {"model.width": 64}, group="(A)", published={"validation/loss": 1.25}),
              Row("grid", grid={"model.num_layers": (2, 3), "optimizer.weight_decay": (0.1, 0.25)}, compare_to="wide"),
              Row("rules", {"optimizer.learning_rate_rules": RULES, "data.cleaning": ()}, label="规则"),
              Row("lion", {"optimizer.name": "lion", "optimizer.clip_norm": None},
                  search={"optimizer.learning_rate": (1e-4, 3e-4, 1e-3)}, stage_changes={"tune": {
                      "optimizer.learning_rate": 1}})),
        metrics=(Metric("validation/loss", "loss", "lower"), Metric("test/accuracy", "%", "higher", 1, 0.5)),
        evaluations=(Evaluation("validation", changes={"model.context_length": 512}), Evaluation("test", "test")),
        seeds=(0, 4), stages=(Stage("pretrain"), Stage("tune", {"training.num_steps": 5})),
        expected_order=("wide", "base"), confidence=0.9, fit="chinchilla", test="dunnett", interval="bootstrap")


def test_a_spec_survives_json_exactly(tmp_path):
    # Reddens where a tuple comes back as a list, or 1 as 1.0.
    (tmp_path / "ablation.json").write_text(serialize.to_json(whole()), encoding="utf-8")
    assert repr(serialize.read(str(tmp_path))) == repr(whole())


@pytest.mark.parametrize("text", ["", "{}", '{"rows": 3}', serialize.to_json(whole()).replace('"group"', '"grop"')])
def test_a_damaged_spec_is_one_line(text, tmp_path):
    with pytest.raises(UserError, match="no table was begun here"):
        serialize.read(str(tmp_path))
    (tmp_path / "ablation.json").write_text(text)
    with pytest.raises(UserError, match=r"ablation.json: not a table of this version"):
        serialize.read(str(tmp_path))


def test_rows_are_the_base_then_each_and_a_grid_is_all_its_points():
    rows = resolved_rows(whole())
    assert [row.name for row in rows] == [
        "base", "wide", *(f"grid,num_layers={n},weight_decay={d}" for n, d in itertools.product((2, 3), (0.1, 0.25))),
        "rules", "lion"]
    assert rows[3].stage_configs[0][1].model.num_layers == 2
    assert rows[3].stage_configs[0][1].optimizer.weight_decay == 0.25 and rows[3].compare_to == "wide"
    assert rows[0].label == "the base" and rows[1].group == "(A)" and rows[1].compare_to == "base"
    assert rows[-2].stage_configs[1][1].optimizer.learning_rate_rules == RULES
    lion = dict(rows[-1].stage_configs)
    assert lion["tune"].training.num_steps == 5 and lion["tune"].optimizer.learning_rate == 1.0
    assert lion["pretrain"].training.num_steps == 10 and lion["pretrain"].optimizer.learning_rate == 1e-3


def test_cells_are_rows_times_seeds_and_a_search_comes_first():
    cells = plan_cells(whole())
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys) == 7 * 2 + 3
    assert keys[:3] == ["base/0", "base/4", "wide/0"] and keys[-1] == "lion@learning_rate=0.001/1000"
    assert all(config.seed == cell.seed for cell in cells for _, config in cell.stages)
    assert [e.name for e in cells[-1].evaluations] == ["validation"] and not cells[-1].evaluations[0].answers
    assert cells[0].folder == "runs/base/0" and cells[0].config.training.num_steps == 5
    chosen = plan_cells(whole(), chosen={"lion": {"optimizer.learning_rate": 3e-4}}, rows=["lion"])
    assert [cell.key for cell in chosen] == ["lion/0", "lion/4"]
    assert chosen[0].evaluations == whole().evaluations
    assert all(cell.config.optimizer.learning_rate == 3e-4 for cell in chosen)


def test_planning_again_is_the_same_and_some_rows_are_a_part_of_all():
    # Reddens where a fingerprint or program depends on anything but the table, such as the order of a set.
    cells = plan_cells(whole())
    assert plan_cells(serialize.from_json(serialize.to_json(whole()))) == cells
    for name in ("wide", "grid", "lion"):
        part = plan_cells(whole(), rows=[name])
        assert part == [cell for cell in cells if cell.row.startswith(name)] and part
    assert plan_cells(whole(), rows=["wide", "base"]) == plan_cells(whole(), rows=["base", "wide"])


def test_rows_asked_for_by_name_and_a_grid_by_its_row():
    assert {cell.row for cell in plan_cells(whole(), rows=["base", "grid"])} == {
        "base", *(row.name for row in resolved_rows(whole()) if row.name.startswith("grid"))}
    with pytest.raises(UserError, match="--rows=wid: the table has no such row; did you mean 'wide'"):
        plan_cells(whole(), rows=["wid"])


def test_a_stage_after_the_first_starts_from_no_run_that_the_table_names():
    # Reddens where a later stage's fingerprint has the run that the first one starts from.
    table = dataclasses.replace(whole(), base=dataclasses.replace(whole().base, init_from="runs/x"))
    assert [config.init_from for _, config in plan_cells(table)[0].stages] == ["runs/x", None]


def test_changes_of_an_evaluation_are_as_its_config_holds_them():
    table = dataclasses.replace(whole(), evaluations=(
        Evaluation("validation", changes={"data.validation_fraction": 0, "data.cleaning": ["unicode_nfc"]}),
        Evaluation("test", "test")))
    assert repr(plan_cells(table)[0].evaluations[0].changes) == repr(
        {"data.validation_fraction": 0.0, "data.cleaning": ("unicode_nfc",)})


def test_another_seed_is_one_more_cell_a_row_and_changes_no_other():
    before = {cell.key: cell for cell in plan_cells(whole())}
    after = {cell.key: cell for cell in plan_cells(dataclasses.replace(whole(), seeds=(0, 4, 5)))}
    assert {key: after[key] for key in before} == before
    assert sorted(set(after) - set(before)) == sorted(f"{row.name}/5" for row in resolved_rows(whole())
                                                      if not row.search)
    assert seeds_of(dataclasses.replace(whole(), seeds=3)) == (0, 1, 2)


def test_seeds_of_a_row_share_a_program_and_other_widths_do_not():
    cells = {cell.key: cell.program for cell in plan_cells(whole())}
    assert cells["base/0"] == cells["base/4"] != cells["wide/0"]
    assert cells["grid,num_layers=2,weight_decay=0.1/0"] == cells["grid,num_layers=2,weight_decay=0.25/4"]


def test_the_best_point_is_of_the_first_metric_and_what_failed_is_passed_over():
    names = [name for name, _ in search_points(whole(), "lion")]
    assert choose(whole(), "lion", dict(zip(names, (2.0, 1.0, 1.0)))) == {"optimizer.learning_rate": 3e-4}
    assert choose(whole(), "lion", dict(zip(names, (2.0, float("nan"), None)))) == {"optimizer.learning_rate": 1e-4}
    assert choose(whole(), "lion", dict.fromkeys(names)) is None
    up = dataclasses.replace(whole(), metrics=whole().metrics[::-1])
    assert choose(up, "lion", dict(zip(names, (2.0, 1.0, 3.0)))) == {"optimizer.learning_rate": 1e-3}


def test_a_plan_is_read_as_it_was_written_and_keeps_what_was_planned_before(tmp_path):
    some, all_cells = plan_cells(whole(), rows=["base"]), plan_cells(whole())
    write_plan(str(tmp_path), some)
    assert list(read_plan(str(tmp_path)).values()) == some
    write_plan(str(tmp_path), all_cells[2:])
    assert list(read_plan(str(tmp_path)).values()) == all_cells
    with pytest.raises(UserError, match="plan.json: no such file; nothing was planned here"):
        read_plan(str(tmp_path / "other"))
    (tmp_path / "plan.json").write_text("[{}]")
    with pytest.raises(UserError, match="plan.json: damaged, or of another version"):
        read_plan(str(tmp_path))
    write_plan(str(tmp_path), some)
    assert list(read_plan(str(tmp_path)).values()) == some


def test_differences_are_between_the_base_and_the_row():
    found = config_differences(whole())
    assert found["base"] == {"0": {}, "4": {}}
    assert found["wide"]["4"] == {f"stage '{name}': model.width": (32, 64) for name in ("pretrain", "tune")}
    assert found["rules"]["0"]["stage 'tune': data.cleaning"] == (("unicode_nfc",), ())
    single = dataclasses.replace(whole(), stages=(), rows=(Row("sgd", {"optimizer.name": "sgd"}, search={
        "optimizer.learning_rate": (0.1, 1.0)}),))
    assert config_differences(single)["sgd"]["0"] == {"optimizer.name": ("adamw", "sgd")}
    chosen = config_differences(single, {"sgd": {"optimizer.learning_rate": 0.1}})["sgd"]["0"]
    assert chosen["optimizer.learning_rate"] == (1e-3, 0.1)


def test_word_vectors_of_two_seeds_are_not_trained_together():
    """Their data draws by the seed: reddens where seeds share it, so that they are no independent runs."""
    def programs(config: Config) -> set[str]:
        table = Ablation("t", "s", config, (Row("b", {"training.num_steps": 20}),),
                         (Metric("validation/loss", "loss", "lower"),), seeds=2)
        return {cell.program for cell in plan_cells(table, rows=["base"])}

    words = Config(task=TaskConfig(name="word_vectors"), data=DataConfig(tokenizer="words"),
                   model=ModelConfig(architecture="word_vectors"), training=TrainingConfig(num_steps=10),
                   word_vectors=WordVectorsConfig(method="glove"))
    assert len(programs(words)) == 2 and len(programs(Config(training=TrainingConfig(num_steps=10)))) == 1


def fingerprint_pair(path: str, value, best: bool = False) -> tuple[str, str]:
    table = Ablation("t", "s", Config(training=TrainingConfig(num_steps=10)), (Row("b", {path: value}),),
                     (Metric("validation/loss", "loss", "lower"),),
                     (Evaluation("validation", checkpoint="best" if best else "latest"),), seeds=1)
    base, row = plan_cells(table)
    return (base.training_fingerprint == row.training_fingerprint,
            base.evaluation_fingerprint == row.evaluation_fingerprint)


def test_fingerprints_change_with_what_decides_a_result_and_with_nothing_else():
    assert fingerprint_pair("model.width", 64) == (False, False)
    assert fingerprint_pair("data.path", "other.txt") == (False, False)
    assert fingerprint_pair("init_from", "runs/other") == (False, False)
    assert fingerprint_pair("model.head_size", 32) == (True, True)  # 128 / 4, written out.
    assert fingerprint_pair("model.vocabulary_size", 4096) == (False, False)
    assert fingerprint_pair("training.log_every", "7") == (True, True)
    assert fingerprint_pair("model.scan_layers", True) == (True, True)
    assert fingerprint_pair("training.evaluate_every", "7") == (True, True)
    assert fingerprint_pair("training.evaluate_every", "7", best=True) == (False, False)


def test_how_answers_are_written_calls_for_another_evaluation_alone():
    from purelm.config import DecodingConfig

    stages = (("", Config(training=TrainingConfig(num_steps=1))),)
    other = (("", dataclasses.replace(stages[0][1], decoding=DecodingConfig(beam_size=4))),)
    first, second = (fingerprints.training_fingerprint(s, best=False) for s in (stages, other))
    assert first == second
    evaluations = (Evaluation("test", "test"),)
    assert (fingerprints.evaluation_fingerprint(first, stages[0][1], evaluations)
            != fingerprints.evaluation_fingerprint(first, other[0][1], evaluations))
    assert (fingerprints.evaluation_fingerprint(first, stages[0][1], evaluations)
            != fingerprints.evaluation_fingerprint(first, stages[0][1], (*evaluations, Evaluation("validation"))))


@pytest.mark.parametrize("other, same", [
    ('def f(x):\n    """Another."""\n    return x + 1  # why\n', True),
    ("def f(x):\n    return (x +\n            1)\n", True),
    ('def f(x):\n    """Doc."""\n    return x + 2\n', False),
    ('def f(x):\n    """Doc."""\n    return x + 1.0\n', False),
    ('def f(y):\n    """Doc."""\n    return y + 1\n', False),
    ('def f(x):\n    """Doc."""\n    "a text"\n    return x + 1\n', False),
])
def test_comments_and_docstrings_are_no_part_of_the_code(other, same):
    source = 'def f(x):\n    """Doc."""\n    return x + 1\n'
    assert (fingerprints.source_fingerprint(source) == fingerprints.source_fingerprint(other)) is same


def test_the_documentation_of_a_field_is_no_part_of_the_code_and_its_default_is():
    before, after = (fingerprints.source_fingerprint(f"width: int = knob(128, {doc!r}, minimum=1)")
                     for doc in ("a size", "the size"))
    assert before == after
    assert before != fingerprints.source_fingerprint("width: int = knob(256, 'a size', minimum=1)")
    assert before != fingerprints.source_fingerprint("width: int = knob(128, 'a size', minimum=2)")


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """A package with a file in each room, whose fingerprints are taken anew at every call."""
    for room in (*fingerprints.EVALUATION_ROOMS, "ablation", "models/recurrent"):
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "part.py").write_text("x = 1\n")
    monkeypatch.setattr(fingerprints, "__file__", str(tmp_path / "ablation" / "fingerprints.py"))
    yield tmp_path
    forget()


def forget() -> None:
    for cached in (fingerprints.code_fingerprint, fingerprints._file_fingerprint):
        cached.cache_clear()


def test_fingerprints_of_rooms_are_of_all_their_files(rooms):
    # Reddens where evaluation code is part of the training's fingerprint, or a folder inside a room is passed over.
    def both() -> tuple[str, str]:
        forget()
        return tuple(fingerprints.code_fingerprint(names) for names in (
            fingerprints.TRAINING_ROOMS, fingerprints.EVALUATION_ROOMS))

    before = both()
    (rooms / "evaluation" / "part.py").write_text("x = 2\n")
    after = both()
    assert after[0] == before[0] and after[1] != before[1]
    (rooms / "models" / "recurrent" / "part.py").write_text("x = 2\n")
    assert all(new != old for new, old in zip(both(), after))


def test_optimizers_of_a_table_are_planned_with_the_table_s_search():
    table = Ablation("t", "s", Config(training=TrainingConfig(num_steps=10)), (
        Row("sgd", {"optimizer.name": "sgd"}, search={"optimizer.learning_rate": (0.1, 1.0)}),
        Row("fixed", {"optimizer.name": "adam"}, search={})),
        (Metric("validation/loss", "loss", "lower"),), search={"optimizer.learning_rate": (1e-3, 1e-2)}, seeds=1)
    assert [cell.key for cell in plan_cells(table)] == [
        "base@learning_rate=0.001/1000", "base@learning_rate=0.01/1000", "sgd@learning_rate=0.1/1000",
        "sgd@learning_rate=1/1000", "fixed/0"]
