from __future__ import annotations

import pytest

from purelm.data.cleaning import Cleaner
from purelm.errors import UserError


def test_nfc_composes_and_counts():
    cleaner = Cleaner(["unicode_nfc"])
    assert cleaner("e\u0301") == "\u00e9"
    assert cleaner("plain") == "plain"
    assert cleaner.counts["steps"]["unicode_nfc"] == {"changed": 1, "dropped": 0}


def test_control_characters_keep_newline_and_tab():  # reddens if \n or \t is in the class, or \r\n gives two lines
    cleaner = Cleaner(["control_characters"])
    assert cleaner("a\x00\x07\tb\r\nc\rd\n\x7f\x85e\u3000") == "a\tb\nc\nd\ne\u3000"


def test_duplicates_are_dropped_over_documents_after_earlier_steps():  # reddens if steps run in another order
    cleaner = Cleaner(["unicode_nfc", "exact_duplicates"])
    assert [cleaner(text) for text in ["\u00e9", "e\u0301", "x"]] == ["\u00e9", None, "x"]
    assert cleaner.counts["steps"]["exact_duplicates"]["dropped"] == 1
    late = Cleaner(["exact_duplicates", "unicode_nfc"])
    assert [late(text) for text in ["\u00e9", "e\u0301"]] == ["\u00e9", "\u00e9"]


def test_no_step_leaves_text_alone_but_drops_what_has_none():
    cleaner = Cleaner([])
    assert cleaner("e\u0301\r\x00") == "e\u0301\r\x00"
    assert cleaner("") is None
    assert Cleaner(["control_characters"])("\x00") is None
    assert cleaner.counts["empty"] == 1 and cleaner.counts["documents_read"] == 2


def test_unknown_step_is_named():
    with pytest.raises(UserError, match="unicode_nfd.*did you mean 'unicode_nfc'"):
        Cleaner(["unicode_nfd"])
