"""Where the sentences of a text end: a rule, for English and Chinese.

A sentence ends

* after . ! or ? (several of them, and what closes a quotation or bracket there) before white space;
* after 。 ！ or ？ (and what closes a quotation there), white space or not;
* at a blank line.

A single full stop ends none before a word in lower case, since a sentence begins with something else (this alone keeps
most abbreviations together), none after one of `ABBREVIATIONS`, and none after an initial (J. Smith). A rule of thumb:
"We train on CIFAR etc. The rest is new." stays whole.
"""

from __future__ import annotations

import re

# In lower case, without the last full stop.
ABBREVIATIONS = frozenset({
    "e.g", "i.e", "eg", "ie", "al", "etc", "cf", "vs", "resp", "approx", "w.r.t", "i.i.d", "a.k.a", "viz", "ca", "fig",
    "figs", "eq", "eqs", "sec", "ref", "refs", "no", "vol", "pp", "dr", "mr", "mrs", "ms", "prof", "st"})

_BLANK_LINE = re.compile(r"\n\s*\n")
_END = re.compile(r"""(?P<mark>[.!?]+)["')\]”’]*\s+|[。！？]+["'”’」』）]*""")
_LAST_WORD = re.compile(r"""[^\s(\["'“‘]*$""")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in their order, without the white space between them; none of a blank text."""
    sentences = [sentence.strip() for paragraph in _BLANK_LINE.split(text) for sentence in _of_paragraph(paragraph)]
    return [sentence for sentence in sentences if sentence]


def _of_paragraph(text: str) -> list[str]:
    ends = [match.end() for match in _END.finditer(text) if match["mark"] != "." or _full_stop_ends(text, match)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)])]


def _full_stop_ends(text: str, match: re.Match[str]) -> bool:
    """Whether the full stop that was found ends a sentence."""
    if text[match.end():match.end() + 1].islower():
        return False
    word = _LAST_WORD.search(text[:match.start()]).group()
    initial = len(word) == 1 and word.isupper()
    return not initial and word.lower() not in ABBREVIATIONS
