"""Named steps that change a document's text or drop it; `data.cleaning` lists those to take, in order.

To add a step, register a factory in STEPS: it is called once a preparation and returns `text -> text | None`,
where None drops the document. A factory, because a step may remember what it saw.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from purelm.data import cleaning_steps
from purelm.errors import UserError, did_you_mean

Step = Callable[[str], str | None]

_NEWLINES = re.compile("\r\n?")
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def unicode_nfc() -> Step:
    """Canonical composition (Unicode Standard Annex 15): one spelling for each accented letter."""
    return lambda text: unicodedata.normalize("NFC", text)


def control_characters() -> Step:
    r"""Removes C0, C1 and DEL except "\n" and "\t"; "\r\n" and a lone "\r" become "\n" first."""
    def step(text: str) -> str:
        if "\r" in text:
            text = _NEWLINES.sub("\n", text)
        return _CONTROL_CHARACTERS.sub("", text)
    return step


def exact_duplicates() -> Step:
    """Drops a document whose text was seen before. Held-out files are read first, so it is the copy in the
    training data that goes. 64 bits of BLAKE2b stand for a text: two of 30 million collide with probability 2e-5."""
    seen: set[int] = set()

    def step(text: str) -> str | None:
        digest = int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")
        if digest in seen:
            return None
        seen.add(digest)
        return text
    return step


STEPS: dict[str, Callable[[], Step]] = {
    "unicode_nfc": unicode_nfc,
    "control_characters": control_characters,
    "exact_duplicates": exact_duplicates,
    "strip_html": cleaning_steps.strip_html,
    "whitespace": cleaning_steps.whitespace,
    "lower_case": cleaning_steps.lower_case,
    "unicode_nfkc": cleaning_steps.unicode_nfkc,
    "remove_urls": cleaning_steps.remove_urls,
    "remove_punctuation": cleaning_steps.remove_punctuation,
    "stop_words_en": cleaning_steps.stop_words_en,
    "stop_words_zh": cleaning_steps.stop_words_zh,
    "segment_chinese": cleaning_steps.segment_chinese,
}

# Steps that change characters one by one, so that places in a text can be followed through them.
OFFSET_KEEPING = ("unicode_nfc", "unicode_nfkc", "control_characters", "lower_case", "exact_duplicates")


def check_steps(names: Sequence[str]) -> None:
    """UserError for a step that does not exist."""
    for name in names:
        if name not in STEPS:
            raise UserError(f"config.data.cleaning: no step '{name}'{did_you_mean(name, STEPS)}")


class Cleaner:
    """Takes documents through the named steps and counts what each step changed and dropped.

    A document with no text, before or after cleaning, is dropped too and counted under "empty".
    Raises UserError for a step that does not exist.
    """

    def __init__(self, names: Sequence[str]):
        check_steps(names)
        self._steps = [(name, STEPS[name]()) for name in names]
        self.counts: dict[str, Any] = {
            "documents_read": 0, "empty": 0, "steps": {name: {"changed": 0, "dropped": 0} for name in names}}

    def __call__(self, text: str) -> str | None:
        """The cleaned text, or None where the document is dropped."""
        self.counts["documents_read"] += 1
        for name, step in self._steps:
            if not text:
                break
            cleaned = step(text)
            if cleaned is None:
                self.counts["steps"][name]["dropped"] += 1
                return None
            if cleaned != text:
                self.counts["steps"][name]["changed"] += 1
            text = cleaned
        if not text:
            self.counts["empty"] += 1
            return None
        return text
