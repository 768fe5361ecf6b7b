"""What is shown of a table that is being run."""

import io
import json
import types

import pytest

from purelm.ablation.board import Board, last_row
from purelm.ablation.store import CellRecord, run_folder, write_record

CELLS = [types.SimpleNamespace(key=f"{row}/{seed}", row=row, seed=seed) for row in ("base", "A1") for seed in (0, 1)]
COSTS = {"train_seconds": 38.0, "evaluate_seconds": 3.2}


def record(key, state, **values):
    row, seed = key.split("/")
    return CellRecord(key, row, int(seed), state, "f", costs=COSTS, **values)


@pytest.fixture
def board(tmp_path):
    write_record(str(tmp_path), record("base/0", "done", metrics={"validation/loss": 2.3456}))
    write_record(str(tmp_path), record("A1/1", "running"))  # Of a call before this one.
    return Board(str(tmp_path), CELLS, metric="validation/loss", workers=2, stream=io.StringIO())


def test_a_line_for_each_cell_that_ends_now(board, tmp_path):
    board.update()
    assert board.stream.getvalue() == ""  # What was done before is no news.
    write_record(str(tmp_path), record("base/1", "done", metrics={"validation/loss": 2.5}))
    write_record(str(tmp_path), record("A1/0", "failed", error="not finite"))
    board.started -= 60
    board.update()
    board.update()
    first, second = board.stream.getvalue().splitlines()
    assert first == "done 2/4  base/1  validation/loss 2.5  (0:41, 2 min left)"
    assert second == "done 3/4  A1/0  failed: not finite  (0:41, 30 s left)"


def test_before_the_first_cell_the_time_left_is_reckoned_by_those_of_before(board):
    assert board._left() == ", 57 s left"  # 3 cells of 38 s on 2 workers.


def test_an_error_that_many_cells_share_is_said_once(board, tmp_path):
    for key in ("base/1", "A1/0", "A1/1"):
        write_record(str(tmp_path), record(key, "failed", error="no such file"))
    board.update()
    assert board.stream.getvalue().count("no such file") == 1
    assert board.stream.getvalue().count("failed: as the one before") == 2


def test_how_each_cell_stands(board, tmp_path):
    write_record(str(tmp_path), record("A1/0", "running", started="now"))
    folder = run_folder(str(tmp_path), "A1/0")
    (folder / "metrics.jsonl").write_text('{"step": 5, "split": "train", "loss": 9.5}\n'
                                          '{"step": 10, "split": "train", "loss": 3.25}\n{"step": 15, "spl')
    (folder / "config.json").write_text(json.dumps({"training": {"num_steps": 40}}))
    board.update()
    states = {cell.key: board.state(cell.key) for cell in CELLS}
    assert {key: state.state for key, state in states.items()} == {
        "base/0": "done", "base/1": "waiting", "A1/0": "running", "A1/1": "waiting"}
    assert states["base/0"].text == "2.346" and states["A1/0"].text == "10/40 3.250" and states["A1/1"].text == "begun"


def test_the_board_on_a_terminal_shows_rows_and_seeds(board):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100)
    console.print(board.render())
    shown = console.file.getvalue()
    assert "seed 0" in shown and "A1" in shown and "2.346" in shown and "done 1/4" in shown


def test_the_last_row_of_a_long_file_is_found_without_reading_it_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) is None
    path.write_text("".join(json.dumps({"step": step, "loss": None}) + "\n" for step in range(2000)))
    assert last_row(path) == {"step": 1999, "loss": None}


def test_damaged_records_do_not_disturb_the_board(board, tmp_path, capsys):
    (tmp_path / "runs" / "A1" / "1" / "cell.json").write_text("{")
    board.update()
    assert board.state("A1/1").state == "waiting" and capsys.readouterr().err == ""
