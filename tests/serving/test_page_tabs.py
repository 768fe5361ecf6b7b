"""The page in a browser, against a server that says exactly what a test wants."""

import math

import page_stand_in
import pytest
from browsing import chat, complete, last_answer, open_page

POEM = "".join(page_stand_in.POEM)


def test_a_chat_streams_and_its_tokens_tell_their_alternatives(browser, url):
    with open_page(browser, url) as page:
        chat(page, "say a poem")
        assert last_answer(page).text_content() == POEM
        token = last_answer(page).locator(".token").nth(3)
        token.hover()
        shown = page.locator("#alternatives .option .value").all_text_contents()
        expected = [f"{100 * math.exp(value):.1f} %" for _, value in page_stand_in.alternatives(" a", 3)]
        assert shown == expected  # Reddens where alternatives belong to another token, or are no probabilities.
        assert page.locator("#alternatives .chosen code").text_content().endswith("␣a")
        assert "p3" in token.get_attribute("class")  # 11 %
        assert "9 + 13 tokens" in page.locator(".speed:visible").text_content()


def test_stop_keeps_what_was_written_and_tells_the_server(browser, url, app):
    gone = app.state.gone
    with open_page(browser, url) as page:
        chat(page, "be slow", wait=False)
        page.wait_for_selector(".turn.assistant .token >> nth=5")
        page.click("button:visible:text-is('Stop')")
        page.wait_for_selector("text=stopped by you")
        length = len(last_answer(page).text_content())
        page.wait_for_timeout(100)
        assert len(last_answer(page).text_content()) == length > 0
        assert page.locator("#notice").text_content() == ""
        page.keyboard.press("Tab")
        chat(page, "be slow", wait=False)
        page.wait_for_selector(".turn.assistant >> nth=1 >> .token >> nth=2")
        page.keyboard.press("Escape")
        page.wait_for_selector("button:visible:text-is('Regenerate')")
        page.wait_for_timeout(200)
    assert app.state.gone == gone + 2  # Reddens where the request goes on behind a stopped answer.


def test_regenerate_edit_and_clear(browser, url, app):
    with open_page(browser, url) as page:
        chat(page, "first seeded")
        first = last_answer(page).text_content()
        page.click("text=Regenerate")
        page.wait_for_function("text => document.querySelector('.turn.assistant .answer').textContent.length > 8 && "
                               "!document.querySelector('.stop:not([hidden])')", arg=first)
        assert page.locator(".turn").count() == 2
        assert app.state.bodies[-1]["messages"] == [{"role": "user", "content": "first seeded"}]
        page.click("text=Edit last")
        assert page.input_value("#message") == "first seeded" and page.locator(".turn").count() == 0
        chat(page, "second seeded")
        page.click("button:visible:text-is('Clear')")
        assert page.locator(".turn").count() == 0


def test_settings_are_sent_remembered_and_reset(browser, url, app):
    with open_page(browser, url) as page:
        page.click("#tab-chat")
        page.fill("#set-temperature", "0.3")
        page.fill("#set-top_k", "9999")
        page.fill("#set-seed", "11")
        page.fill("#set-stop_strings", "\\n\\n\nEND")
        page.fill("#set-system_prompt", "Be brief.")
        page.select_option("#set-constraint", "json_schema")
        page.fill("textarea.code", '{"type": "string"')
        chat(page, "hello", wait=False)
        page.wait_for_selector(".notice >> text=not JSON")
        page.fill("textarea.code", '{"type": "string"}')
        page.locator("textarea.code").blur()
        page.click("text=Try again")
        page.wait_for_selector("text=Regenerate")
        body = app.state.bodies[-1]
        assert {name: body[name] for name in ("temperature", "top_k", "seed", "stop", "json_schema")} == {
            "temperature": 0.3, "top_k": 200, "seed": 11, "stop": ["\n\n", "END"], "json_schema": {"type": "string"}}
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert not {"top_p", "min_p", "n", "regex"} & set(body)  # What is neutral is left to the server.
        page.reload()
        page.wait_for_selector("[role=tab]")
        assert page.input_value("#set-temperature") == "0.3" and not page.is_checked("#set-random_seed")
        page.click("text=Reset")
        assert page.input_value("#set-temperature") == "0.8" and page.is_checked("#set-random_seed")


def test_completion_continues_branches_and_undoes(browser, url, app):
    with open_page(browser, url) as page:
        complete(page, "Once: ")
        sheet = page.locator(".sheet")
        assert sheet.text_content() == "Once: " + POEM
        sheet.locator(".token").nth(2).click()
        page.click("#alternatives button >> nth=1")
        page.wait_for_function("() => document.querySelectorAll('.sheet .token').length === 16")
        # Reddens where the token itself, or what came after it, stays in the prompt.
        assert app.state.bodies[-1]["prompt"] == "Once: The moon other1"
        assert sheet.text_content() == "Once: The moon other1" + POEM
        page.click("text=Undo")
        assert sheet.text_content() == "Once: " + POEM
        page.click("text=Edit text")
        page.fill("#text", "Once: The")
        page.click("text=Undo")
        assert sheet.text_content() == "Once: " + POEM and sheet.is_visible()
        page.click("text=Edit text")
        page.fill("#text", "Once: The moon is blue.")
        page.click("text=Show tokens")
        assert sheet.locator(".token").all_text_contents() == ["The", " moon", " is"]
        page.click("button:visible:text-is('Continue')")
        page.wait_for_function("text => document.querySelector('.sheet').textContent === text",
                               arg="Once: The moon is blue." + POEM)
        assert sheet.locator(".given").all_text_contents() == ["Once: ", " blue."]


def test_samples_to_choose_from(browser, url):
    with open_page(browser, url) as page:
        page.click("#tab-completion")
        page.fill("#set-samples", "3")
        page.fill("#text", "Go: ")
        page.click("button:visible:text-is('Continue')")
        page.wait_for_selector("button:text-is('Use this one'):enabled >> nth=2")
        page.click("button:text-is('Use this one') >> nth=1")
        assert page.locator(".sheet").text_content() == "Go: " + POEM and page.locator(".choice").count() == 0


def test_markup_of_a_model_is_text(browser, url):
    # Reddens where any text of the model becomes HTML.
    with open_page(browser, url) as page:
        for start in (chat, complete):
            start(page, "xss")
            answer = page.locator(".answer:visible").last
            assert "".join(page_stand_in.XSS) in answer.text_content()
            answer.locator(".token").first.hover()
        page.click("summary:visible:has-text('Attention')")
        page.wait_for_selector("canvas:visible")
        assert page.evaluate("() => window.hacked") is None and page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("asked, said", [("refused", "The server says: temperature: 9 is more than 2"),
                                         ("wrong", "The server says: the logits were not finite"),
                                         ("broken", "The connection to the server was lost")])
def test_errors_are_a_line_with_another_try(browser, url, app, asked, said):
    with open_page(browser, url, expected=("400",)) as page:
        chat(page, f"be {asked}", wait=False)
        page.wait_for_selector(f".notice >> text={said}")
        kept = page.locator(".turn.assistant .token").count()
        assert (kept > 0) == (asked != "refused")
        before = len(app.state.bodies)
        page.click("text=Try again")
        page.wait_for_selector(".notice")
        page.wait_for_function("() => !document.querySelector('.stop:not([hidden])')")
        assert len(app.state.bodies) == before + 1 and page.locator(".turn").count() == (1 if asked == "refused" else 2)


def test_a_key_is_asked_for_after_a_401_only(browser):
    with page_stand_in.serving(page_stand_in.make_stand_in(key="sesame")) as address:
        with open_page(browser, address, expected=("401",)) as page:
            page.fill("#key", "sesame")
            page.keyboard.press("Enter")
            page.wait_for_selector("[role=tab]")
            assert page.locator("#key").count() == 0


def test_attention_draws_and_long_texts_are_cut(browser, url, app):
    with open_page(browser, url) as page:
        complete(page, "Look: ")
        page.click("summary:visible:has-text('Attention')")
        page.wait_for_selector("canvas:visible")
        colors = page.evaluate("""() => {
          const canvas = document.querySelector("#panel-completion canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(Array.from({ length: data.length / 4 }, (_, k) => data.slice(4 * k, 4 * k + 3).join())).size;
        }""")
        assert colors > 5  # Reddens where the canvas stays empty.
        page.hover(".attention-tokens .token >> nth=4")
        shares = page.eval_on_selector_all("#panel-completion .attention-tokens .token",
                                           "nodes => nodes.map((node) => node.style.getPropertyValue('--w'))")
        assert shares[2] == "100%" and shares[5:] == ["0%"] * (len(shares) - 5)  # Token 4 reads 2 most, none after.
        page.select_option("#panel-completion .attention select >> nth=0", "2")
        page.select_option("#panel-completion .attention select >> nth=1", "1")
        page.wait_for_timeout(100)
        assert (app.state.bodies[-1]["layer"], app.state.bodies[-1]["head"]) == (2, 1)
        complete_long = " ".join(["many"] * 90)
        page.click("text=Edit text")
        page.fill("#text", complete_long)
        page.click("button:visible:text-is('Continue')")
        page.wait_for_selector("text=/Only the last \\d+ tokens/")
