"""Terminal, Markdown, LaTeX, CSV and JSON of a table with every kind of trouble."""

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess

import pytest
from example import BLEU, LOSS, NASTY, example_table, fit_table, large_table

from purelm.ablation.report import latex, markdown, terminal, text
from purelm.ablation.report.csv_json import COLUMNS, from_json, to_csv, to_json
from purelm.errors import UserError

TABLE = example_table()


def relabelled(*labels):
    """The example with these labels, from the first row on."""
    rows = [dataclasses.replace(row, label=label) for row, label in zip(TABLE.rows, labels)]
    return dataclasses.replace(TABLE, rows=(*rows, *TABLE.rows[len(rows):]))


# CSV and JSON


def test_csv_has_every_row_under_every_metric_in_full_precision():
    lines = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    assert len(lines) == len(TABLE.rows) * 2 and list(lines[0]) == list(COLUMNS)
    by_key = {(line["row"], line["metric"]): line for line in lines}
    for row in TABLE.rows:
        for metric in (LOSS, BLEU):
            line, result = by_key[row.name, metric.name], row.results[metric.name]
            assert line["label"] == (row.label or row.name) and line["verdict"] == result.verdict
            assert json.loads(line["values"]) == result.values
            for name in ("mean", "spread", "difference", "p_adjusted", "published"):
                value = getattr(result, name)
                assert (float(line[name]) if line[name] else None) == value
            assert (line["interval_low"] == "") == (result.interval is None)
    assert by_key["base", BLEU.name]["reproduced"] == "true"


@pytest.mark.parametrize("table", [TABLE, large_table(), fit_table()], ids=lambda table: table.title[:8])
def test_json_read_back_is_the_same_table(table):
    assert from_json(to_json(table)) == table


def test_json_is_strict_and_keeps_what_is_not_finite():
    result = dataclasses.replace(TABLE.rows[0].results[LOSS.name], mean=math.inf, spread=math.nan)
    row = dataclasses.replace(TABLE.rows[0], results={**TABLE.rows[0].results, LOSS.name: result},
                              changes={"optimizer.clip_norm": -math.inf})
    written = to_json(dataclasses.replace(TABLE, rows=(row,)))
    json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = from_json(written).rows[0]
    assert back.results[LOSS.name].mean == math.inf and math.isnan(back.results[LOSS.name].spread)
    assert back.changes == {"optimizer.clip_norm": -math.inf}


@pytest.mark.parametrize("damage", [
    lambda written: written[:-40], lambda written: written.replace('"title"', '"titel"', 1), lambda written: "[]",
    lambda written: written.replace('"rows": [', '"rows": [3,', 1)])
def test_a_damaged_json_is_one_line(damage):
    with pytest.raises(UserError, match=r"^w/results.json: no measured table[^\n]*$"):
        from_json(damage(to_json(TABLE)), where="w/results.json")


# Markdown


def rendered_tables(source: str) -> list[list[list[str]]]:
    """Tables of a Markdown text as a parser reads them: lines of cells, as plain text."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tables, inside = [], False
    for token in parser.parse(source):
        inside = token.type == "table_open" or (inside and token.type != "table_close")
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and inside:
            tables[-1][-1].append("".join(child.content for child in token.children))
            assert not [child for child in token.children if child.type == "html_inline"], token.content
    return tables


def test_markdown_shows_labels_as_they_are():
    labels = ("*x* _y_", "1. one", "# not", "[a](b)", "![p](q)", "- dash", "a||b\\|", "&lt; &amp; <br>", "~~no~~")
    tables = rendered_tables(markdown.to_markdown(relabelled(*labels)))
    first_column = [line[0] for line in tables[0]]
    assert [label for label in first_column if label in labels] == list(labels)
    assert {len(line) for line in tables[0]} == {9}


def test_markdown_names_the_folders_of_runs():
    rows = [dataclasses.replace(TABLE.rows[0], runs=runs) for runs in (
        {"0": "runs/a/0", "1": "runs/a/1"}, {"0": "old/x", "1": "old/y"}, {})]
    tables = rendered_tables(markdown.to_markdown(dataclasses.replace(TABLE, rows=tuple(rows))))
    assert [line[1] for line in tables[2][1:]] == ["runs/a", "old/x, old/y", ""]


def test_markdown_lines_begin_with_words():
    notes = ("# no heading", "1. no list", "2) nor this", "- nor this", "+1 is a number", "= no rule", "> no quote")
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(markdown.to_markdown(dataclasses.replace(TABLE, notes=notes, title="1. # title")))
    shown = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    assert set(notes) <= set(shown) and "1. # title" in shown
    assert not {token.type for token in tokens} & {"ordered_list_open", "blockquote_open"}
    assert {token.level for token in tokens if token.type == "list_item_open"} == {1}


def test_markdown_has_all_that_the_table_has():
    source = markdown.to_markdown(TABLE, [("forest.png", "differences")])
    results, costs, rows, *searches = rendered_tables(source)
    by_label = {line[0]: line for line in results}
    assert by_label["h = 1, d_k = 512"][1:5] == ["5.240 ± 0.020 (3)", "+0.310 [0.260, 0.360]",
                                                 "▼ worse, p 0.001 (Holm 0.01)", "5.290 (+0.370)"]
    assert by_label[NASTY][3] == "▲ better, p <0.001 (Holm 0.002)"
    assert by_label["d_k = 32"][1:4] == ["—", "—", "—"]
    groups = [line[0] for line in results if len(line[0]) and not any(line[1:])]
    assert groups == ["(A)", "(B)", "(C) & co_"]
    assert costs[1][1:] == ["1.95 M", "11.7 M", "12.3", "310", "4,096", "3 min 05 s"]
    assert len(rows) == 1 + len(TABLE.rows) and any("loss is NaN at step 120" in line[3] for line in rows)
    assert ["model.num_layers=2, model.note=a|b" in line[2] for line in rows].count(True) == 1
    assert len(searches) == 2
    for needed in ("power 0.8", "tau 0.73", "![differences](forest.png)", "python experiments/ablate.py", "9d34b06",
                   "Multi30k"):
        assert needed in source


# LaTeX


def test_latex_is_balanced_and_every_line_has_as_many_cells_as_columns():
    source = latex.to_latex(TABLE)
    opened = re.findall(r"\\begin\{(\w+)\}", source)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", source)) and opened.count("tabular") == 2
    columns = None
    for line in source.splitlines():
        if line.startswith("%"):
            continue
        bare = re.sub(r"\\[{}&%$#_]", "", line)
        assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0, line
        if line.startswith(r"\begin{tabular}"):
            columns = len(line) - len(r"\begin{tabular}{}")
        if line.endswith(r" \\"):
            spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert bare.count("&") + 1 + sum(span - 1 for span in spans) == columns, line
    assert source.count(r"\midrule") == 5 + 5


def test_latex_escapes():
    assert latex.escape(NASTY) == (
        r"50\% \& \textless{}b\textgreater{}\textquotedbl{}x\textquotedbl{}\textless{}/b\textgreater{} \textbar{} "
        r"a\_b \$y\textasciicircum{}2\$ \{\#\textasciitilde{}\textbackslash{}\} \textasciigrave{}z\textasciigrave{}, "
        "'q'")
    assert latex.escape("-0.3 [-1, 2] x-y ≈ α") == r"$-$0.3 [$-$1, 2] x-y $\approx$ $\alpha$"
    lines = latex.to_latex(relabelled("*star", "[bracket]")).splitlines()
    assert [line[:6] for line in lines if "star" in line or "bracket" in line][:2] == ["{}*sta", "{}[bra"]
    assert "位" in latex.to_latex(TABLE).splitlines()[2]  # What pdfLaTeX cannot set is announced.


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    body = latex.to_latex(relabelled("*star", "[bracket]", "~", r"\input{x}", "ⅹ ← é ß µ"))
    body = "".join(letter if ord(letter) < 0x2000 else "?" for letter in body)
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage[T1]{fontenc}\\begin{document}\n" + body
        + "\\end{document}\n", encoding="utf-8")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:]


# Terminal


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("table", [TABLE, large_table()], ids=["example", "large"])
def test_the_terminal_keeps_its_width(table, width):
    cells = pytest.importorskip("rich.cells")
    shown = terminal.to_text(table, width)
    assert max(cells.cell_len(line) for line in shown.splitlines()) <= width
    if width >= 80:  # No number is broken or cut.
        for row in table.rows:
            for metric in table.metrics:
                result = row.results[metric.name]
                for part in (text.measured(result, metric.digits), text.difference(result, metric.digits),
                             text.published(result, metric.digits)):
                    assert part in shown


def test_the_terminal_shows_marks_where_words_have_no_room():
    narrow, wide = terminal.to_text(TABLE, 80), terminal.to_text(TABLE, 100)
    assert "▼ worse  " not in narrow and "▲ better, ▼ worse" in narrow and "▼ worse  " in wide
    for shown in (narrow, wide):
        assert "loss is NaN at step 120" in shown and "无位置编码" in shown and "<b>" in shown and "power 0.8" in shown
    assert "E = 1.7" in terminal.to_text(fit_table(), 100)
