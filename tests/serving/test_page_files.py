"""The page's files, without a browser: nothing from outside, nothing inline, every word in both languages."""

import json
import pathlib
import re

import pytest

import purelm.serving

PAGE = pathlib.Path(purelm.serving.__file__).parent / "page"
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir()) if path.is_file()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
ENTRY = re.compile(r'^  (\w+): (\[.*\]),$', re.MULTILINE)


def strings():
    return {key: json.loads(pair) for key, pair in ENTRY.findall(FILES["strings.js"])}


def test_every_string_is_read():
    # Reddens where an entry is not on a line of its own, which the other tests would then pass over.
    lines = [line for line in FILES["strings.js"].splitlines() if line.startswith("  ")]
    assert len(strings()) == len(lines) and len(strings()) > 80


def test_every_string_has_both_languages():
    chinese = re.compile(r"[\u4e00-\u9fff]")
    same = {"top_p", "top_k", "min_p", "language", "language_label", "list_comma"}  # The switch names the other one.
    for key, pair in strings().items():
        assert len(pair) == 2 and all(pair), key
        english, translated = pair
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", translated)), key
        if key not in same:
            assert not chinese.search(english) and chinese.search(translated), key


def test_every_string_is_used_and_every_use_has_a_string():
    keys = set(strings())
    used = set(re.findall(r'data-(?:say|label|placeholder)="(\w+)"', FILES["index.html"]))
    quoted = set()
    for name, text in SCRIPTS.items():
        if name != "strings.js":
            quoted |= set(re.findall(r'"(\w+)"', text))
            used |= set(re.findall(r'\b(?:words|mistake|button)\("(\w+)"', text))
            used |= set(re.findall(r'\b(?:say|label|placeholder): "(\w+)"', text))
            used |= set(re.findall(r'\b(?:say|label|placeholder)\([^()]*(?:\([^()]*\))?[^()]*?, "(\w+)"', text))
    assert used <= keys, used - keys
    named = {f"{key}_help" for key in keys} | {key for key in keys if key.startswith("constraint_")}
    unused = {key for key in keys if key not in quoted | used | named and not re.search(rf"\b{key}: \{{",
                                                                                        FILES["settings.js"])}
    assert not unused


def test_no_words_outside_strings():
    # The name of the program, and what is said without JavaScript (in both languages), are all that HTML says.
    body = FILES["index.html"].split("<body>")[1]
    said = re.sub(r"<noscript>.*?</noscript>", "", body, flags=re.DOTALL)
    assert re.sub(r"<[^>]*>", "", said).split() == ["purelm"]
    assert "JavaScript" in body and "需要 JavaScript" in body


@pytest.mark.parametrize("name", FILES)
def test_nothing_from_outside_and_nothing_inline(name):
    text = FILES[name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", text), "a resource from elsewhere"
    assert not re.search(r"\bon\w+\s*=\s*[\"']", text) and "javascript:" not in text, "an inline handler"
    assert not re.search(r"<style|\sstyle\s*=|<script>", text), "inline style or script, which the policy forbids"


@pytest.mark.parametrize("name", SCRIPTS)
def test_text_is_never_made_into_markup(name):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser",
                         SCRIPTS[name])


def test_what_is_imported_is_there():
    for name, text in SCRIPTS.items():
        for other in re.findall(r'from "\./([\w.]+)"', text):
            assert other in FILES, f"{name} imports {other}"
    for other in re.findall(r'"/static/([\w.]+)"', FILES["index.html"]):
        assert other in FILES


@pytest.mark.parametrize("name", FILES)
def test_files_are_small(name):
    assert FILES[name].count("\n") < 300 and len(FILES[name].encode()) < 24_000
