"""The page in a browser, against the server and the engine themselves."""

import json
import math
import urllib.request

import pytest
from browsing import chat, complete, open_page


@pytest.fixture(scope="module")
def url(server):
    return server.url


def fix_seed(page, tokens):
    page.fill("#set-seed", "7")
    page.fill("#set-max_tokens", str(tokens))
    page.locator("#set-max_tokens").blur()


def ask(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_a_completion_is_the_servers_own(browser, url):
    with open_page(browser, url) as page:
        fix_seed(page, 24)
        complete(page, "User: what")
        written = page.locator(".sheet").text_content()
        body = {"model": "tiny", "prompt": "User: what", "max_tokens": 24, "seed": 7, "temperature": 0.8, "logprobs": 5}
        choice = ask(url, "/v1/completions", body)["choices"][0]
        assert written == "User: what" + choice["text"]  # Streamed or not, the same seed gives the same text.
        page.click("text=Undo")
        page.click("button:visible:text-is('Continue')")
        page.wait_for_selector("button:visible:text-is('Undo')")
        assert page.locator(".sheet").text_content() == written
        for number in range(3):
            # Reddens where alternatives are another token's, or no probabilities. A token alone in its node.
            token = page.locator(".sheet .token").nth(number)
            token.hover()
            # The window of the token before may still stand there.
            page.wait_for_function(
                "n => document.querySelectorAll('.sheet .token')[n].classList.contains('pointed')", arg=number)
            told = [value for value in page.locator("#alternatives .title b").all_text_contents()]
            if len(told) != 1:
                break  # Several tokens that only together make a character: those after it have other numbers here.
            mine = {name: math.exp(value) for name, value in choice["logprobs"]["top_logprobs"][number].items()}
            likeliest = sorted(mine.values(), reverse=True)[:5]
            right = pytest.approx(likeliest, abs=6e-4)
            shown = next((found for found in (shown_probabilities(page) for _ in range(50)) if found == right), None)
            assert (shown or shown_probabilities(page)) == right


def shown_probabilities(page):
    """The first five of the window of alternatives, after a moment."""
    page.wait_for_timeout(50)
    values = page.locator("#alternatives .option .value").all_text_contents()
    return [float(value.rstrip(" %").lstrip("< ")) / 100 for value in values][:5]


def test_a_chat_streams_and_stops(browser, url):
    with open_page(browser, url) as page:
        fix_seed(page, 8)
        chat(page, "what is 3?")
        first = page.locator(".turn.assistant .answer").text_content()
        page.click("text=Regenerate")
        page.wait_for_selector("button:visible:text-is('Regenerate')")
        assert page.locator(".turn.assistant .answer").text_content() == first
        page.fill("#set-max_tokens", "200")
        page.locator("#set-max_tokens").blur()
        chat(page, "and 4?", wait=False)
        page.wait_for_selector("button:visible:text-is('Stop'), button:visible:text-is('Regenerate')")
        page.keyboard.press("Escape")
        page.wait_for_selector("button:visible:text-is('Regenerate')")
        assert page.locator("#notice").text_content() == ""


def test_attention_of_a_completion(browser, url):
    with open_page(browser, url) as page:
        fix_seed(page, 8)
        complete(page, "User: what is 7")
        page.click("summary:visible:has-text('Attention')")
        page.wait_for_selector("canvas:visible")
        tokens = page.locator(".attention-tokens:visible .token").count()
        # The mark of a text's beginning, then a token a byte: reddens where the prompt or the answer is missing.
        assert tokens == 1 + len("User: what is 7") + 8
        page.select_option("#panel-completion .attention select >> nth=1", "1")
        page.hover(f".attention-tokens:visible .token >> nth={tokens - 1}")
        assert "%" in page.locator(".reading:visible").text_content()


def test_a_mistake_is_told_by_the_server(browser, url):
    with open_page(browser, url, expected=("400",)) as page:
        page.click("#tab-completion")
        page.select_option("#set-constraint", "regex")
        page.fill("textarea.code", "(unclosed")
        page.locator("textarea.code").blur()
        page.fill("#text", "User:")
        page.click("button:visible:text-is('Continue')")
        page.wait_for_selector(".notice >> text=regex")
