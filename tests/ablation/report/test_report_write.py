"""All files of a report, whatever is there to report."""

import dataclasses

import pytest
from example import NO_COSTS, NO_RESULT, example_curves, example_table, fit_table

from purelm.ablation.report.csv_json import from_json
from purelm.ablation.report.terminal import to_text
from purelm.ablation.report.write import write_report
from purelm.errors import UserError

FILES = {"table.md", "table.tex", "table.csv", "results.json", "report.html"}


def files_of(folder):
    return {path.name for path in folder.iterdir()}


def test_a_report_is_all_files_and_nothing_else(tmp_path):
    table = fit_table()
    paths = write_report(table, example_curves(), str(tmp_path / "new"), {})
    assert {path.name for path in paths} == files_of(tmp_path / "new") == FILES | {
        "forest.png", "curves.png", "search.png", "fit.png"}
    assert from_json((tmp_path / "new" / "results.json").read_text(encoding="utf-8")) == table


def test_the_same_table_gives_the_same_files(tmp_path):
    first, second = (write_report(example_table(), example_curves(), str(tmp_path / name), {}) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_why_a_cell_failed_is_on_the_page(tmp_path):
    row = example_table().rows[1]
    write_report(example_table(), {}, str(tmp_path), {}, errors={row.name: {next(iter(row.cells)): "ended by a flood"}})
    assert "ended by a flood" in (tmp_path / "report.html").read_text(encoding="utf-8")


def unfinished():
    """Tables on their way: nothing measured, the base alone, no base, one metric."""
    table = example_table()
    nothing = [dataclasses.replace(row, results=dict.fromkeys(row.results, NO_RESULT), costs=NO_COSTS, search=None,
                                   cells={"0": "missing"}, runs={}, notes=()) for row in table.rows]
    return {
        "nothing": dataclasses.replace(table, rows=tuple(nothing), noise={}, agreement=(), made={}),
        "base alone": dataclasses.replace(table, rows=(table.rows[0], *nothing[1:]), agreement=()),
        "base missing": dataclasses.replace(table, rows=(nothing[0], *table.rows[1:])),
        "one row": dataclasses.replace(table, rows=table.rows[:1], compute="", notes=()),
        "one metric": dataclasses.replace(table, metrics=table.metrics[:1], agreement=table.agreement[:1],
                                          noise={name: noise for name, noise in table.noise.items() if "loss" in name}),
    }


@pytest.mark.parametrize("name", unfinished())
def test_a_half_finished_table_is_reported(name, tmp_path):
    table = unfinished()[name]
    write_report(table, example_curves(table), str(tmp_path), {})
    assert files_of(tmp_path) >= FILES
    assert table.title in to_text(table, 80)


def test_a_picture_that_has_nothing_anymore_is_deleted(tmp_path):
    write_report(example_table(), example_curves(), str(tmp_path), {})
    assert {"curves.png", "search.png"} <= files_of(tmp_path)
    write_report(unfinished()["nothing"], {}, str(tmp_path), {})
    assert files_of(tmp_path) == FILES


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(UserError, match="results.json: cannot be written"):
        write_report(example_table(), {}, str(tmp_path), {})
