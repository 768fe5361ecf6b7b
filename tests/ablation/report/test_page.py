"""The page is one file that holds everything, runs nothing of its labels, and works by mouse and keyboard."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
import pathlib
import re

import pytest
from example import example_curves, example_table, large_table, row

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
    assert not re.search(r"""(src|srcset|data)\s*=\s*["'](?!data")|@import|import\s*\(|url\((?!#)|fetch\(|XMLHttp""", made)
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


# In a browser


@pytest.fixture(scope="module")
def browser():
    """Chromium, by playwright, which is no dependency of the project."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    with sync_api.sync_playwright() as driver:
        found = next((path for path in map(pathlib.Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser",
                                                          "/usr/bin/google-chrome")) if path.exists()), None)
        own = pathlib.Path(driver.chromium.executable_path)
        if found is None and not own.exists():
            pytest.skip("needs chromium (apt-get install chromium, or playwright install chromium)")
        made = driver.chromium.launch(executable_path=str(found or own), args=[
            "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"])
        yield made
        made.close()


@pytest.fixture
def opened(browser, tmp_path):
    """opened(page text, width, scheme) -> the page in a tab; at the end nothing was said, thrown or asked for."""
    tabs, trouble = [], []

    def open_page(made: str, width: int = 1440, scheme: str = "light"):
        file = tmp_path / f"report{len(tabs)}.html"
        file.write_text(made, encoding="utf-8")
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tabs.append(tab)
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda asked: trouble.append(asked.url) if asked.url != file.as_uri()
               and not asked.url.startswith("data:") else None)
        tab.goto(file.as_uri())
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert not trouble


def shown_rows(tab) -> list[str]:
    return tab.eval_on_selector_all("tr[data-row]", "rows => rows.map((row) => row.dataset.row)")


def sort_button(tab, key: str):
    return tab.locator(f"th[data-key='{key}'] button")


def test_rows_open_by_click_and_by_key(opened):
    tab = opened(example_page())
    button = tab.locator("tr[data-row=C1] button.open")
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    tab.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    detail = tab.locator(f"#{button.get_attribute('aria-controls')}")
    shown = detail.inner_text()
    assert "model.num_layers" in shown and "'before'" in shown
    assert "Sensitivity 0.290" in shown and "optimizer.learning_rate=0.001" in shown
    assert detail.locator("svg.chart").count() == 2  # The search, and the curves seed by seed.
    assert detail.locator("a").first.get_attribute("href") == "./runs/C1/0/"
    # The focus stays where it was, and the same key closes.
    tab.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "false" and detail.count() == 0
    tab.locator("tr[data-row=B2] td.group").click()
    assert "loss is NaN at step 120" in tab.locator("tr.detail").inner_text()


def test_columns_sort_three_ways(opened):
    table = example_table()
    tab = opened(example_page())
    names = [one.name for one in table.rows]
    assert shown_rows(tab) == names
    key = "validation/loss mean"
    means = {one.name: one.results["validation/loss"].mean for one in table.rows}
    measured = sorted((name for name in names if means[name] is not None), key=means.get)
    without = [name for name in names if means[name] is None]
    sort_button(tab, key).click()
    assert shown_rows(tab) == measured + without
    assert tab.locator(f"th[data-key='{key}']").get_attribute("aria-sort") == "ascending"
    tab.keyboard.press("Enter")
    assert shown_rows(tab) == measured[::-1] + without
    assert tab.locator(f"th[data-key='{key}']").get_attribute("aria-sort") == "descending"
    tab.keyboard.press("Enter")
    assert shown_rows(tab) == names
    # Higher is better: the best is first all the same.
    sort_button(tab, "test/bleu mean").click()
    assert shown_rows(tab)[0] == "C1"


def test_rows_and_columns_are_chosen(opened):
    tab = opened(example_page())
    tab.get_by_label("Find").fill("num_heads")
    assert shown_rows(tab) == ["base", "A1", "A2"]
    tab.get_by_label("Find").fill("")
    tab.get_by_label("Group").select_option("(B)")
    assert shown_rows(tab) == ["base", "B1", "B2"]
    tab.get_by_label("Group").select_option("")
    tab.get_by_role("button", name="better").click()
    assert shown_rows(tab) == ["base", "C1", "big"]
    columns = tab.locator("table.results > thead > tr:last-child > th").count()
    tab.get_by_label("BLEU").select_option("full")
    assert tab.locator("table.results > thead > tr:last-child > th").count() > columns
    tab.get_by_label("BLEU").select_option("hidden")
    assert sort_button(tab, "test/bleu mean").count() == 0
    tab.get_by_role("button", name="Costs").click()
    assert sort_button(tab, "cost parameters").count() == 0


def test_curves_are_read_by_pointer_and_keys(opened):
    tab = opened(example_page())
    chart = tab.locator(".curves .chartbox")
    assert chart.locator(".line.cbase").count() == 1
    lines = chart.locator(".line").count()
    tab.locator(".picker button", has_text="A2").click()
    assert chart.locator(".line").count() == lines - 1
    chart.focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    assert chart.get_attribute("aria-valuenow") == "100"
    assert "base" in chart.get_attribute("aria-valuetext")
    tab.keyboard.press("Escape")
    assert not tab.locator(".readout").is_visible()
    chart.hover(position={"x": 300, "y": 100})
    assert "h = 1, d_k = 512" in tab.locator(".readout").inner_text()
    before = chart.locator(".line.cbase").get_attribute("points")
    tab.locator(".curves").get_by_role("button", name="Log steps").click()
    assert chart.locator(".line.cbase").get_attribute("points") != before


def test_a_label_is_not_run(opened):
    table = example_table()
    bad = f'{ATTACK}<img src=x onerror="alert(2)">'
    rows = tuple(dataclasses.replace(one, label=bad, group=bad, notes=(bad,)) for one in table.rows)
    tab = opened(page(dataclasses.replace(table, title=bad, rows=rows), example_curves(table), {}))
    tab.locator("button.open").nth(1).click()
    assert tab.locator("h1").inner_text() == bad
    assert tab.locator("img").count() == 0


def luminance(color: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055)**2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_both_themes(opened, scheme):
    """WCAG AA: 4.5 to 1 for texts, on the page and on an open row's darker ground."""
    tab = opened(example_page(), scheme=scheme)
    for name in ("C1", "B2"):
        tab.locator(f"tr[data-row={name}] button.open").click()
    pairs = tab.evaluate("""() => [...document.querySelectorAll("#page *")].filter((node) => node.getClientRects().length
      && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())).map((node) => {
        let ground = node;
        while (ground && /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) {
          ground = ground.parentElement;
        }
        const style = getComputedStyle(node);
        return [node instanceof SVGElement ? style.fill : style.color,
          getComputedStyle(ground || document.body).backgroundColor, node.outerHTML.slice(0, 90)];
      })""")
    assert len(pairs) > 100
    for ink, ground, node in pairs:
        high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, node


def test_the_theme_follows_the_system_and_the_button(opened):
    tab = opened(example_page(), scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(ground)
    assert luminance(dark) < 0.05
    tab.get_by_role("button", name="Light page").click()
    assert luminance(tab.evaluate(ground)) > 0.9
    # On paper it is always light.
    tab.get_by_role("button", name="Dark page").click()
    tab.emulate_media(media="print")
    assert luminance(tab.evaluate(ground)) > 0.9 or tab.evaluate(ground) == "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_never_wider_than_the_screen(opened, width):
    table = large_table(40)
    tab = opened(page(table, example_curves(table), {}), width)
    tab.locator("button.open").nth(3).click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("tr.detail .inside").bounding_box()["width"] <= width
