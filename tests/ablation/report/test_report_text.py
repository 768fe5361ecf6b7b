"""Numbers as text: each expectation reddens if digits, signs, directions or limits are changed."""

import dataclasses
import math

import pytest
from example import BLEU, LOSS, NO_COSTS, NO_RESULT, example_table, fit_table

from purelm.ablation.report import text
from purelm.ablation.table import Agreement, Noise, Search

A_RESULT = dataclasses.replace(NO_RESULT, values={"0": 5.2, "1": 5.3, "2": 5.28}, mean=5.26, spread=0.0529,
                               difference=0.31, interval=(0.2, 0.42), p_value=0.0042, p_adjusted=0.042, verdict="worse",
                               published=5.29, published_difference=0.37)


def test_a_measured_row_reads_as_in_a_paper():
    assert text.measured(A_RESULT, 2) == "5.26 ± 0.05 (3)"
    assert text.measured(dataclasses.replace(A_RESULT, spread=0.0042), 2) == "5.26 ± 0.004 (3)"  # Not "± 0.00".
    assert text.difference(A_RESULT, 2) == "+0.31 [0.20, 0.42]"
    assert text.p_value(A_RESULT, "paired_t") == "p 0.004 (Holm 0.042)"
    assert text.p_value(A_RESULT, "dunnett") == "p 0.004 (Dunnett 0.042)"
    assert text.verdict(A_RESULT) == "▼ worse"
    assert text.published(A_RESULT, 2) == "5.29 (+0.37)"
    assert text.published(dataclasses.replace(A_RESULT, reproduced=False), 2) == "5.29 (+0.37) ✗"


def test_what_is_missing_is_a_dash_and_what_is_not_known_is_left_out():
    one = dataclasses.replace(A_RESULT, values={"0": 5.2}, mean=5.2, spread=None, interval=None, p_value=None,
                              p_adjusted=None, verdict="too few seeds", published_difference=None)
    assert (text.measured(one, 1), text.difference(one, 1), text.p_value(one, "paired_t")) == ("5.2 (1)", "+0.3", "")
    assert text.published(one, 1) == "5.3"
    assert text.measured(NO_RESULT, 2) == text.difference(NO_RESULT, 2) == text.verdict(NO_RESULT) == "—"
    base = dataclasses.replace(A_RESULT, verdict="base", difference=None)
    assert text.difference(base, 2) == ""


@pytest.mark.parametrize("value, digits, plain, signed", [
    (-0.0004, 2, "0.00", "0.00"), (0.305, 1, "0.3", "+0.3"), (-1.25, 2, "-1.25", "-1.25"), (None, 2, "—", "—"),
    (math.inf, 2, "∞", "+∞"), (-math.inf, 2, "-∞", "-∞"), (math.nan, 2, "NaN", "NaN"), (1234.5, 0, "1234", "+1234")])
def test_signs(value, digits, plain, signed):
    assert (text.number(value, digits), text.signed(value, digits)) == (plain, signed)


def test_every_verdict_has_a_mark_of_its_own():
    assert len(set(text.MARKS.values())) == len(text.MARKS)
    assert text.heading(LOSS).endswith("↓") and text.heading(BLEU).endswith("↑")


@pytest.mark.parametrize("value, said", [(0.00049, "<0.001"), (0.004, "0.004"), (0.0312, "0.031"), (0.5, "0.5"),
                                         (1.0, "1"), (0.0, "<0.001")])
def test_probabilities(value, said):
    assert text.probability(value) == said


@pytest.mark.parametrize("name, value, said", [
    ("parameters", 1_950_000, "1.95 M"), ("parameters", 999_600, "1.00 M"), ("parameters", 213_400_000, "213 M"),
    ("parameters", 950, "950"), ("parameters", 99_960, "100 k"),
    ("flops_per_token", 11.7e9, "11.7 G"), ("seconds_per_step", 0.0123, "12.3"),
    ("seconds_per_step", 0.00123, "1.23"), ("seconds_per_step", 1.5, "1,500"), ("memory_bytes", 310 * 2**20, "310"),
    ("memory_bytes", 2**19, "0.5"), ("cache_bytes_per_token", 4096, "4,096"), ("train_seconds", 3.21, "3.2 s"),
    ("train_seconds", 59.7, "1 min 00 s"), ("train_seconds", 185, "3 min 05 s"), ("train_seconds", 7500, "2 h 05 min"),
    ("train_seconds", None, "—")])
def test_costs(name, value, said):
    assert text.cost(name, value) == said


def test_costs_that_no_row_has_are_no_column():
    rows = example_table().rows
    assert text.measured_costs(rows) == list(text.COSTS)
    assert text.measured_costs([dataclasses.replace(row, costs=NO_COSTS) for row in rows]) == []


def test_rows_of_one_group_stand_together_in_order():
    assert [(group, [row.name for row in rows]) for group, rows in text.groups(example_table().rows)] == [
        ("", ["base"]), ("(A)", ["A1", "A2"]), ("(B)", ["B1", "B2"]), ("(C) & co_", ["C1", "C2"]), ("", ["big", "E"])]


def test_every_row_that_lacks_a_cell_says_so():
    table = example_table()
    for row in table.rows:
        assert text.notes(row) or set(row.cells.values()) == {"done"}
    row = dataclasses.replace(table.rows[0], cells={"0": "failed", "1": "failed", "2": "missing", "3": "done"})
    assert text.notes(row) == ["seeds 0 and 1 failed, seed 2 missing"]
    assert text.notes(dataclasses.replace(row, notes=("seed 0: NaN",))) == ["seed 0: NaN"]


def test_changes_and_searches():
    assert text.changes({"a.b": 1, "c": ("x", 0.5), "d": None}) == "a.b=1, c=[x, 0.5], d=None"
    search = Search((({"lr": 0.1}, 2.0), ({"lr": 0.2}, None)), {"lr": 0.1}, True, 0.25)
    assert text.search_lines(search, 2) == [("lr=0.1", "2.00", "chosen, at the edge"), ("lr=0.2", "failed", "")]
    searching = dataclasses.replace(search, chosen=None)
    assert [line[1:] for line in text.search_lines(searching, 2)] == [("2.00", ""), ("—", "")]
    assert "0.25 worse than the best" in text.sensitivity(search, dataclasses.replace(LOSS, digits=2))


def test_the_noise_floor_in_a_sentence():
    said = text.noise(Noise(0.03, 3, 0.08, 0.8), dataclasses.replace(LOSS, digits=2), 0.05)
    assert "two rows of 3 seeds must differ by 0.08 to be told apart with power 0.8 at level 0.05" in said
    assert "differ by 0.004 " in text.noise(Noise(0.001, 3, 0.0042, 0.8), BLEU, 0.05)  # Not "by 0.0".
    assert "1 seed, too few" in text.noise(Noise(None, 1, None, 0.8), LOSS, 0.05)


def test_agreement_in_a_sentence():
    said = text.agreement(Agreement(LOSS.name, "published", 6, 0.733, (0.47, 0.87), 0.06, (4, 5)), LOSS)
    assert "tau 0.73 [0.47, 0.87] over 6 rows, p 0.06; 4 of 5 differences to the base" in said
    assert "too few rows (1)" in text.agreement(Agreement(LOSS.name, "expected order", 1, None, None, None, None), LOSS)


def test_a_fit_in_sentences():
    law, compute = text.fit(fit_table().fit)
    assert "E = 1.7 [1.53, 1.87]" in law and "24 cells" in law and "a_compute" not in law
    assert "0.51 [0.459, 0.561]" in compute
    assert text.fit(None) == []


def test_how_it_was_made():
    said = text.made({"commits": ("c" * 40,), "versions": {"jax": "0.10"}, "seconds": 60.0, "command": None,
                      "date": "d", "devices": ()})
    assert said == [("commits", "c" * 10), ("versions", "jax 0.10"), ("time of all cells", "1 min 00 s"), ("date", "d")]


def test_the_test_is_named():
    assert "paired t-test with Holm's" in text.method("paired_t", "bootstrap", 0.95)
    assert "90% intervals (simultaneous); verdicts by Dunnett's test" in text.method("dunnett", "t", 0.9)
    # Each row's own: reddens where they are said to hold for all rows at once.
    assert "95% intervals (bootstrap); verdicts by Dunnett's" in text.method("dunnett", "bootstrap", 0.95)
    assert text.method("paired_t", "t", 0.95).endswith("at level 0.05.")
