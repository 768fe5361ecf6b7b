"""The page of a table is one file that holds everything, loads nothing, and runs nothing of its labels."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
import re

import pytest
from example import example_curves, example_table, row

from purelm.ablation.report import text
from purelm.ablation.report.page import page, to_slot
from purelm.ablation.table import TableRow

ATTACK = "</script><script>alert(1)</script>"
SLOT = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def data_of(page_text: str) -> dict:
    return json.loads(SLOT.search(page_text).group(1))


def differences(rows: tuple[TableRow, ...]) -> dict:
    return {one.name: {seed: {path: ("before", value) for path, value in one.changes.items()} for seed in one.cells}
            for one in rows}


def example_page(**changes) -> str:
    table = dataclasses.replace(example_table(), **changes)
    return page(table, example_curves(table), differences(table.rows),
                errors={"B2": {"0": "loss is NaN at step 120"}})


# The data


def test_every_row_and_metric_is_in_the_data():
    table = example_table()
    data = data_of(example_page())
    assert [one["name"] for one in data["rows"]] == [one.name for one in table.rows]
    assert [one["base"] for one in data["rows"]] == [True] + [False] * (len(table.rows) - 1)
    for shown, measured in zip(data["rows"], table.rows):
        assert list(shown["results"]) == [metric.name for metric in table.metrics]
        for metric in table.metrics:
            result, there = measured.results[metric.name], shown["results"][metric.name]
            assert there["mean"] == result.mean
            assert there["difference"] == result.difference
            assert there["verdict"] == result.verdict
            assert there["text"]["measured"] == text.measured(result, metric.digits)
        assert [seed["seed"] for seed in shown["seeds"]] == list(measured.cells)
        assert [seed["state"] for seed in shown["seeds"]] == list(measured.cells.values())
    assert len(data["agreement"]) == len(table.agreement)
    assert all(metric["noise"]["text"] for metric in data["metrics"])


def test_curves_come_back_as_they_were():
    table = example_table()
    curves = example_curves(table)
    drawn = data_of(page(table, curves, {}))["curves"]["validation loss"]
    assert list(drawn) == list(curves)
    for name, seeds in curves.items():
        for seed, points in seeds.items():
            assert drawn[name]["steps"] == [step for step, _ in points]
            assert drawn[name]["seeds"][seed] == pytest.approx([loss for _, loss in points], rel=1e-5)


def test_long_curves_are_thinned_alike_and_keep_their_ends():
    points = {"0": [(step, 5.0 - step / 1e4) for step in range(1, 5001)], "1": [(step, 4.0) for step in range(1, 2001)]}
    drawn = data_of(page(example_table(), {"base": points}, {}))["curves"]["validation loss"]["base"]
    assert len(drawn["steps"]) < 300
    assert (drawn["steps"][0], drawn["steps"][-1]) == (1, 5000)
    assert len(drawn["seeds"]["0"]) == len(drawn["seeds"]["1"]) == len(drawn["steps"])
    assert drawn["seeds"]["1"][-1] is None


def test_several_losses_and_values_that_json_has_not():
    """A NaN left as it is would make the whole page unreadable to a browser."""
    nan = [(1, 3.0), (2, math.nan), (3, math.inf)]
    curves = {"validation loss": {"base": {"0": nan}}, "training loss": {"base": {"0": [(1, 4.0)]}}}
    drawn = data_of(page(example_table(), curves, {}))["curves"]
    assert drawn["validation loss"]["base"]["seeds"]["0"] == [3.0, None, None]
    assert drawn["training loss"]["base"]["seeds"]["0"] == [4.0]


def test_differing_configs_say_which_seeds():
    table = example_table()
    configs = {"A1": {"0": {"model.num_heads": (8, 1)}, "1": {"model.num_heads": (8, 1), "data.path": (None, "x")}}}
    rows = {one["name"]: one["changes"] for one in data_of(page(table, {}, configs))["rows"]}
    assert rows["A1"] == [["model.num_heads", "8", "1", ""], ["data.path", "None", "'x'", "1"]]
    # Without configs, what the row itself says.
    assert rows["A2"] == [["model.num_heads", "", "4", ""]]


def test_errors_and_searches_are_there():
    rows = {one["name"]: one for one in data_of(example_page())["rows"]}
    assert rows["B2"]["seeds"][0]["error"] == "loss is NaN at step 120"
    assert [point["chosen"] for point in rows["C1"]["search"]["points"]] == [False, False, True, False]
    assert rows["C1"]["search"]["points"][3]["value"] is None
    assert rows["C1"]["search"]["field"] == "optimizer.learning_rate"
    assert rows["C2"]["search"]["at_edge"]


def test_before_any_cell_is_done():
    nothing = row("base", "base", "", {}, (), (), cells={"0": "missing"})
    table = dataclasses.replace(example_table(), rows=(nothing, row("A", "", "", {"seed": 1}, (), ())), agreement=())
    assert [one["base"] for one in data_of(page(table, {}, {}))["rows"]] == [True, False]


def test_a_fit_is_drawn_by_size_and_tokens():
    points = [{"row": f"R{size}{tokens}", "seed": "0", "parameters": size, "tokens": tokens, "loss": 3.0,
               "predicted": 3.1} for size in (1000, 2000) for tokens in (10, 20)]
    fit = {"law": "loss = E + A / N^a + B / D^b", "parameters": {"E": 1.0, "A": 2.0, "a": 0.3, "B": 3.0, "b": 0.4},
           "intervals": {name: (0.1, 5.0) for name in ("E", "A", "a", "B", "b", "a_compute")}, "confidence": 0.95,
           "interval_method": "bootstrap", "residual": 0.01, "points": points}
    drawn = data_of(example_page(fit=fit))["fit"]
    assert drawn["lines"] == text.fit(fit)
    assert [one["points"] for one in drawn["series"]] == [[[10, [3.0], 3.1], [20, [3.0], 3.1]]] * 2


# Nothing from outside, nothing out of labels


@pytest.mark.parametrize("nasty", [ATTACK, "<!--<script>", "\u2028 \u2029", "@@data@@", "a & b &lt;", "]]>"])
def test_texts_stay_texts(nasty):
    """A slot written with json.dumps alone ends at the label's </script>."""
    table = example_table()
    rows = (table.rows[0], dataclasses.replace(table.rows[1], label=nasty, group=nasty, notes=(nasty,)))
    made = page(dataclasses.replace(table, title=nasty, rows=rows), {}, {"A1": {"0": {nasty: (nasty, nasty)}}},
                errors={"A1": {"0": nasty}})
    assert made.count("</script>") == example_page().count("</script>") == 2
    assert made.count("<script") == 2
    data = data_of(made)
    assert data["title"] == data["rows"][1]["label"] == data["rows"][1]["group"] == nasty
    assert data["rows"][1]["changes"][0][0] == nasty
    assert html.unescape(re.search("<title>(.*?)</title>", made, re.DOTALL).group(1)) == nasty


def test_the_slot_has_no_letter_that_html_or_javascript_would_read():
    assert not set(to_slot({"<>&\u2028": [ATTACK, "\u2029"]})) & set("<>&\u2028\u2029")


def test_the_page_loads_nothing():
    made = SLOT.sub("", example_page())
    made = made.replace("http://www.w3.org/2000/svg", "")  # The name of a language, which nothing loads.
    assert "http:" not in made and "https:" not in made
    assert not re.search(r"""\b(src|srcset)\s*=\s*["']|@import|import\s*\(|url\((?!#)|fetch\(|XMLHttp""", made)
    assert re.findall(r'<link[^>]*href="([^"]*)"', made) == ["data:,"]
    assert "default-src 'none'" in made
    # Texts go in as text nodes.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", made)


def test_the_policy_lets_the_pages_own_script_run_and_no_other():
    made = example_page()
    script = re.search(r"<script>(.*?)</script>", made, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in made
    assert "script-src 'unsafe-inline'" not in made
