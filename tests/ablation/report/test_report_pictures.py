"""Pictures: there, whole, and readable with many rows."""

import contextlib
import dataclasses
import itertools
import math

import pytest
from example import LOSS, NASTY, NO_RESULT, example_curves, example_table, fit_table, large_table

from purelm.ablation.report import drawing, fit_picture, forest, pictures
from purelm.ablation.table import Noise, Search

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they were written."""
    figures, real = [], drawing.figure

    @contextlib.contextmanager
    def kept(*arguments):
        with real(*arguments) as figure:
            yield figure
            figures.append(figure)

    monkeypatch.setattr(drawing, "figure", kept)
    return figures


def boxes(figure):
    """(text, box) of every word that is drawn."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    axes = [each for each in figure.axes if each.get_visible()]
    axis = [each for panel in axes for each in (panel.xaxis, panel.yaxis)]
    # Ticks outside the limits are there, and not drawn.
    ticks = {id(label) for each in axis for tick in (*each.majorTicks, *each.minorTicks)
             for label in (tick.label1, tick.label2)}
    shown = {id(tick.label1) for each in axis for tick in each._update_ticks() if tick.label1.get_visible()}
    hidden = {id(word) for panel in figure.axes if not panel.get_visible() for word in panel.findobj(Text)}
    for word in figure.findobj(Text):
        drawn = word.get_visible() and id(word) not in hidden and (id(word) not in ticks or id(word) in shown)
        if word.get_text().strip() and drawn:
            yield word.get_text(), Text.get_window_extent(word, renderer)


def in_the_way(figure):
    """Pairs of words that cover each other, and words that the picture's edge cuts."""
    words = [(word, box) for word, box in boxes(figure) if box.width > 0]
    found = []
    for (one, a), (other, b) in itertools.combinations(words, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > 1 and height > 2:
            found.append((one, other))
    size = figure.bbox
    return found + [word for word, box in words if box.x0 < -1 or box.x1 > size.x1 + 1]


TABLES = {"example": example_table, "large": large_table, "hundred": lambda: large_table(100)}


@pytest.mark.parametrize("name", ["example", "large", pytest.param("hundred", marks=pytest.mark.slow)])
def test_nothing_covers_anything(name, drawn, tmp_path):
    table = TABLES[name]()
    assert pictures.draw_curves(table, example_curves(table), tmp_path / "curves.png")
    assert forest.draw_forest(table, tmp_path / "forest.png")
    assert pictures.draw_search(example_table(), tmp_path / "search.png")
    assert fit_picture.draw_fit(fit_table(), tmp_path / "fit.png")
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "forest.png", "search.png", "fit.png"}
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.iterdir())
    for figure in drawn:
        assert in_the_way(figure) == []


def words_of(figure):
    return [word for word, _ in boxes(figure)]


def test_every_row_with_a_curve_is_labelled_and_the_base_is_in_every_panel(drawn, tmp_path):
    table = large_table()
    pictures.draw_curves(table, example_curves(table), tmp_path / "curves.png")
    words = words_of(drawn[0])
    assert words.count(drawing.label(table.rows[0])) == 5
    assert {drawing.label(row) for row in table.rows} <= set(words)


def test_a_label_that_no_font_has_is_the_name(monkeypatch):
    row = example_table().rows[6]
    monkeypatch.setattr(drawing, "_letters", lambda: frozenset("abc C2"))
    assert drawing.label(row) == "C2"
    monkeypatch.setattr(drawing, "_letters", lambda: frozenset(row.label))
    assert drawing.label(row) == row.label


def test_dollars_are_no_mathematics(drawn, tmp_path):
    table = dataclasses.replace(example_table(), title="$x^2$ and $y$ \\frac", metrics=(
        dataclasses.replace(LOSS, label="$loss$"),))
    forest.draw_forest(table, tmp_path / "forest.png")
    assert r"\$x^2\$ and \$y\$ \frac" in words_of(drawn[0])
    assert drawing.plain(NASTY, 200).count(r"\$") == 2


def test_a_run_that_diverged_flattens_nothing(drawn, tmp_path):
    table = example_table()
    wild = dataclasses.replace(table.rows[1].results[LOSS.name], difference=80.0, interval=(-900.0, 1060.0))
    rows = [dataclasses.replace(row, results={**row.results, LOSS.name: wild}) if row.name == "A1" else row
            for row in table.rows]
    forest.draw_forest(dataclasses.replace(table, rows=tuple(rows)), tmp_path / "forest.png")
    low, high = drawn[0].axes[0].get_xlim()
    assert -1.5 < low < high < 1.8
    assert "+80.000 →" in words_of(drawn[0])
    curves = example_curves(table)
    curves["A1"] = {"0": [(50, 9.0), (100, math.nan), (150, 4e5), (500, 1e6)]}
    pictures.draw_curves(table, curves, tmp_path / "curves.png")
    assert drawn[1].axes[0].get_ylim()[1] < 9
    assert in_the_way(drawn[1]) == []


def test_a_curve_is_the_mean_over_finished_seeds_at_shared_steps():
    row = dataclasses.replace(example_table().rows[1], cells={"0": "done", "1": "done", "2": "failed"})
    curves = {"A1": {"0": [(1, 4.0), (2, 2.0)], "1": [(1, 2.0), (2, 3.0), (3, 9.0)], "2": [(1, 100.0)]}}
    line = pictures._curve(row, curves)
    assert (line.x, line.y, line.low, line.high) == ((1, 2), (3.0, 2.5), (2.0, 2.0), (4.0, 3.0))
    running = dataclasses.replace(row, cells={"0": "running"})
    assert pictures._curve(running, {"A1": {"0": [(1, 4.0), (2, math.nan)]}}).x == (1,)
    assert pictures._curve(running, {"A1": {"0": []}}) is None


def test_of_a_search_over_two_fields_the_best_over_the_other_is_drawn():
    search = Search((({"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.0}, 3.0),
                     ({"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.1}, 2.0),
                     ({"optimizer.learning_rate": 0.2, "optimizer.weight_decay": 0.0}, None)),
                    {"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.1}, True, None)
    field = pictures._search_field([search])
    assert field == "optimizer.learning_rate"
    line = pictures._search_line(example_table().rows[1], search, field, "lower")
    assert (line.x, line.y, line.marked, line.failed) == ((0.1,), (2.0,), 0, (0.2,))
    assert pictures._search_line(example_table().rows[1], search, field, "higher").y == (3.0,)


def test_nothing_to_draw_is_no_picture(tmp_path):
    table = example_table()
    empty = dataclasses.replace(table, rows=tuple(
        dataclasses.replace(row, results=dict.fromkeys(row.results, NO_RESULT), search=None) for row in table.rows))
    assert not pictures.draw_curves(empty, {}, tmp_path / "a.png")
    assert not forest.draw_forest(empty, tmp_path / "a.png")
    assert not forest.draw_forest(dataclasses.replace(table, rows=table.rows[:1]), tmp_path / "a.png")
    assert not pictures.draw_search(empty, tmp_path / "a.png")
    failed = Search((({"optimizer.learning_rate": 0.1}, None),), None, False, None)
    assert not pictures.draw_search(dataclasses.replace(table, rows=(dataclasses.replace(
        table.rows[0], search=failed),)), tmp_path / "a.png")
    assert not fit_picture.draw_fit(table, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_one_row_and_no_noise_are_drawn(drawn, tmp_path):
    table = example_table()
    alone = dataclasses.replace(table, rows=table.rows[:1])
    assert pictures.draw_curves(alone, {"base": {"0": [(1, 3.0)]}}, tmp_path / "curves.png")
    two = dataclasses.replace(table, rows=table.rows[:2], noise={LOSS.name: Noise(None, 1, None, 0.8)})
    assert forest.draw_forest(two, tmp_path / "forest.png")
    assert not any("noise floor" in word for word in words_of(drawn[1]))


@pytest.mark.parametrize("places", [[0.5], [0.5, 0.5, 0.5], [0.0, 0.01, 1.0, 0.98], [0.3, 0.1, 0.2, 0.9], []])
def test_labels_are_moved_apart_and_keep_their_order(places):
    moved = drawing.apart(places, 0.1)
    ordered = [place for _, place in sorted(zip(places, moved), key=lambda pair: pair[0])]
    gaps = [b - a for a, b in itertools.pairwise(sorted(moved))]
    assert all(gap > 0.1 - 1e-9 for gap in gaps) and ordered == sorted(moved)
    assert sum(moved) == pytest.approx(sum(places))
    assert drawing.apart([0.1, 0.5], 0.1) == [0.1, 0.5]
