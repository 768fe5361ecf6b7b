"""The page of a table in a browser: by mouse, by keyboard, on a phone, in the dark; skipped where there is none."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import pytest
from example import example_curves, example_table, large_table

from purelm.ablation.report.page import page

ATTACK = "</script><script>alert(1)</script>"


def example_page() -> str:
    table = example_table()
    differences = {row.name: {seed: {path: ("before", value) for path, value in row.changes.items()}
                              for seed in row.cells} for row in table.rows}
    return page(table, example_curves(table), differences, errors={"B2": {"0": "loss is NaN at step 120"}})


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
    pairs = tab.evaluate("""() => [...document.querySelectorAll("#page *")].filter((node) =>
      node.getClientRects().length
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
