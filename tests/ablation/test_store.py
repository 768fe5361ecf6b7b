"""What a work folder knows of its cells."""

import dataclasses
import json
import types

import pytest

from purelm.ablation.store import CellRecord, held, read_record, set_aside, status, write_record
from purelm.errors import UserError

RECORD = CellRecord("A1/0", "A1", 0, "done", "code 1", "evaluations 1", metrics={"validation/loss": 1.25},
                    unavailable={"long": "its table ends"}, devices=("cpu:0",), commit="abc", together=3)
CELL = types.SimpleNamespace(key="A1/0", training_fingerprint="code 1", evaluation_fingerprint="evaluations 1")


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(str(tmp_path), RECORD)
    assert read_record(str(tmp_path), "A1/0") == RECORD
    assert read_record(str(tmp_path), "A1/1") is None


@pytest.mark.parametrize("damage", [
    lambda text: text[:-20], lambda text: "", lambda text: "[]", lambda text: "\x00" * 40,
    lambda text: text.replace('"done"', '"finished"'), lambda text: text.replace("1.25", "NaN"),
    lambda text: text.replace("1.25", '"low"'), lambda text: text.replace('"host"', '"guest"'),
    lambda text: text.replace("A1/0", "A2/0")])
def test_a_damaged_record_counts_as_none_and_is_announced(damage, tmp_path, capsys):
    write_record(str(tmp_path), RECORD)
    path = tmp_path / "runs" / "A1" / "0" / "cell.json"
    path.write_text(damage(path.read_text()))
    assert read_record(str(tmp_path), "A1/0") is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "cell.json: damaged" in lines[0]
    assert status(str(tmp_path), CELL) == ("train", "its cell.json is missing or damaged")


def test_a_number_that_json_has_not_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write_record(str(tmp_path), dataclasses.replace(RECORD, metrics={"validation/loss": float("nan")}))


@pytest.mark.parametrize(("changes", "cell", "todo"), [
    ({}, {}, "done"),
    ({}, {"evaluation_fingerprint": "evaluations 2"}, "evaluate"),
    ({}, {"training_fingerprint": "code 2"}, "train"),
    ({"state": "trained"}, {}, "evaluate"),
    ({"state": "running"}, {}, "train"),
    ({"state": "failed", "error": "no"}, {}, "train"),
])
def test_what_is_left_to_do(changes, cell, todo, tmp_path):
    write_record(str(tmp_path), dataclasses.replace(RECORD, **changes))
    found = status(str(tmp_path), types.SimpleNamespace(**{**vars(CELL), **cell}))
    assert found.todo == todo
    # Only what another config or code made is in the way.
    assert (found.reason is not None) == ("training_fingerprint" in cell)


def test_a_cell_that_was_never_begun_is_to_be_trained(tmp_path):
    assert status(str(tmp_path), CELL) == ("train", None)


def test_what_is_set_aside_keeps_all_that_was_set_aside_before(tmp_path):
    for number in (1, 2):
        write_record(str(tmp_path), dataclasses.replace(RECORD, together=number))
        assert set_aside(str(tmp_path), "A1/0") == tmp_path / "replaced" / "A1" / f"0.{number}"
    kept = [json.loads((tmp_path / "replaced" / "A1" / name / "cell.json").read_text())["together"]
            for name in ("0.1", "0.2")]
    assert kept == [1, 2] and read_record(str(tmp_path), "A1/0") is None


def test_what_cannot_be_set_aside_is_one_line(tmp_path):
    write_record(str(tmp_path), RECORD)
    (tmp_path / "replaced").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"runs/A1/0: cannot be moved to .*replaced/A1/0.1"):
        set_aside(str(tmp_path), "A1/0")


def test_a_folder_is_held_by_one(tmp_path):
    with held(str(tmp_path)):
        with pytest.raises(UserError, match="another ablation is running there"), held(str(tmp_path)):
            pass
    with held(str(tmp_path)):
        pass
