"""The page without a mouse, on a phone, in the dark, in Chinese, and with answers that are hard to show."""

import page_stand_in
import pytest
from browsing import chat, complete, last_answer, open_page


def test_predictions_as_bars_and_tags(browser, url):
    with open_page(browser, url) as page:
        page.click("#tab-predict")
        page.fill("#input", "where is my card")
        page.keyboard.press("Enter")
        page.wait_for_selector(".big >> text=card_arrival")
        assert page.locator(".options.wide .value").all_text_contents() == ["71.0 %", "20.0 %", "5.0 %"]
        assert "4.0 %" in page.locator(".result").text_content()  # All other labels together.
        page.fill("#input", "Ada Lovelace lived in London.")
        page.keyboard.press("Enter")
        page.wait_for_selector(".tagged mark")
        assert page.locator(".tagged mark").all_text_contents() == ["Ada Lovelaceperson", "Londonlocation"]
        assert page.locator(".facts td.value").all_text_contents() == ["93.0 %", "81.0 %"]


def test_the_keyboard_alone(browser, url, app):
    with open_page(browser, url) as page:
        page.focus("[role=tab][aria-selected=true]")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("() => document.activeElement.id") == "tab-chat"
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == "message"
        page.keyboard.type("a poem")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("please")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Regenerate")
        assert app.state.bodies[-1]["messages"][-1]["content"] == "a poem\nplease"
        for _ in range(6):  # Back from the message to the answer's first token.
            page.keyboard.press("Shift+Tab")
            if page.evaluate("() => document.activeElement.matches('.token')"):
                break
        focused = "() => document.activeElement.textContent"
        assert page.evaluate(focused) == "The"
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == " moon" and page.is_visible("#alternatives")
        page.keyboard.press("ArrowDown")
        assert page.evaluate(focused) in ("hung", " over")
        page.keyboard.press("End")
        assert page.evaluate(focused) == "." and page.locator('.token[tabindex="0"]:visible').count() == 1
        page.keyboard.press("Escape")
        assert not page.is_visible("#alternatives")
        complete(page, "Once: ")
        page.focus(".sheet .token >> nth=0")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelectorAll('.sheet .token').length === 15")
        assert app.state.bodies[-1]["prompt"] == "Once: The other1"


def test_enter_that_ends_composing_does_not_send(browser, url, app):
    with open_page(browser, url) as page:
        page.click("#tab-chat")
        page.fill("#message", "你好")
        before = len(app.state.bodies)
        for init in ("{ key: 'Enter', isComposing: true }", "{ key: 'Enter', keyCode: 229 }"):
            page.eval_on_selector("#message", "node => node.dispatchEvent(new KeyboardEvent('keydown', "
                                  f"{{ bubbles: true, cancelable: true, ...{init} }}))")
        page.wait_for_timeout(100)
        assert len(app.state.bodies) == before and page.input_value("#message") == "你好"


def test_a_phone_in_the_dark_in_chinese(browser, url):
    with open_page(browser, url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True,
                   locale="zh-CN", color_scheme="dark") as page:
        assert page.get_attribute("html", "lang") == "zh" and page.inner_text("#tab-chat") == "对话"
        assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
        chat(page, "xss")
        page.locator(".turn.assistant .token").nth(3).tap()
        assert page.is_visible("#alternatives")
        page.locator("h1").tap()
        assert not page.is_visible("#alternatives")
        page.click("summary:visible:has-text('注意力')")
        page.wait_for_selector("canvas:visible")
        page.click("summary:visible:has-text('设置')")
        for tab in ("predict", "completion", "chat"):
            page.click(f"#tab-{tab}")
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 360, tab
        page.click("#language")
        page.click("#theme")
        assert page.inner_text("#tab-chat") == "Chat" and page.inner_text(".turn.user .who span") == "You"
        page.reload()
        page.wait_for_selector("[role=tab]")
        assert page.get_attribute("html", "lang") == "en" and page.get_attribute("html", "data-theme") == "light"


def test_characters_of_several_tokens(browser, url):
    # What a byte-level tokenizer does to Chinese: reddens where tokens are shown before they make a character.
    with open_page(browser, url) as page:
        pieces = page.evaluate("""async () => {
          const { Aligner, tokenOf } = await import("/static/pieces.js");
          const aligner = new Aligner();
          const token = (name) => tokenOf(name, null, -1, []);
          const pieces = [
            ...aligner.push("", ["bytes:\\\\xe4"].map(token)), ...aligner.push("", ["bytes:\\\\xbd"].map(token)),
            ...aligner.push("你 a", ["bytes:\\\\xa0", " a"].map(token)),
            ...aligner.push(" word next", ["word", "next"].map(token)), ...aligner.push("\\ufffd!", []),
            ...aligner.push("un", ["unlike"].map(token)), ...aligner.push("like", []),
            ...aligner.push("x", ["bytes:\\\\xff"].map(token)), ...aligner.end()];
          return pieces.map((piece) => [piece.text, piece.tokens.length]);
        }""")
    assert pieces == [["你", 3], [" a", 1], [" word", 1], [" next", 1], ["\ufffd!", 0], ["unlike", 1], ["x", 1]]


@pytest.mark.parametrize("asked", ["long", pytest.param("characters", marks=pytest.mark.slow)])
def test_very_long_answers_stay_quick(browser, url, asked):
    with open_page(browser, url) as page:
        page.evaluate("""() => {
          window.longest = 0;
          new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
            window.longest = Math.max(window.longest, entry.duration);
          })).observe({ type: "longtask" });
        }""")
        chat(page, f"something {asked}")
        assert last_answer(page).text_content() == "".join(page_stand_in.ANSWERS[asked])
        # Reddens where an answer is drawn anew with each token: that takes seconds.
        assert page.evaluate("() => window.longest") < 500
