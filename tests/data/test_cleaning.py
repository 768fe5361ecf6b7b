from __future__ import annotations

import pytest

from purelm.data.cleaning import STEPS, Cleaner
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


@pytest.mark.parametrize("name,text,expected", [
    ("strip_html", "a <b>b</b><br /><br />c", "a b\nc"),
    ("strip_html", "<p>one</p><p>two</p>", "one\ntwo\n"),
    ("strip_html", "x &amp; y &lt;b&gt; &#20320;", "x & y <b> 你"),
    ("strip_html", "1 < 2 and 3 > 2 <3", "1 < 2 and 3 > 2 <3"),  # reddens with a regex such as <[^>]*>
    ("strip_html", "a<script>var x = '<b>';</script>b<!-- c -->", "ab"),
    ("whitespace", " a\t\n b\u3000c ", "a b c"),
    ("lower_case", "ÄB İ 汉", "äb i̇ 汉"),
    ("unicode_nfkc", "Ａ１ﬁ½", "A1fi1\u20442"),
    ("remove_urls", "see http://a.b/c?d=e，and www.x.org. HTTPS://Y <www.z.org>", "see ，and   <>"),
    ("remove_urls", "an awww.ful word", "an awww.ful word"),
    ("remove_punctuation", "Don't - \"stop\", well-known。你好！", "Don't    stop   well-known 你好 "),
    ("remove_punctuation", "'quoted' $5 + 3", " quoted  $5 + 3"),
    ("stop_words_en", "The film WASN'T what I had thought of it.", "film WASN'T thought ."),
    ("stop_words_en", "nothing couldn't theory", "theory"),
    ("stop_words_zh", "我 的 书 在 桌子 上\n不 是", "书 桌子\n不"),
    ("segment_chinese", "我爱北京天安门，Python很好用。\n第二行", "我 爱 北京 天安门 ，Python 很 好 用 。\n第二行"),
    ("segment_chinese", "no  Chinese ", "no  Chinese "),
])
def test_steps(name, text, expected):
    if name == "segment_chinese":
        pytest.importorskip("jieba")
    assert Cleaner([name])(text) == expected


def test_chinese_is_segmented_then_stopped_and_says_nothing(capfd):
    pytest.importorskip("jieba")
    cleaner = Cleaner(["segment_chinese", "stop_words_zh"])
    assert cleaner("我们在北京的学校学习中文") == "北京 学校 学习 中文"
    assert cleaner.counts["steps"]["stop_words_zh"]["changed"] == 1
    captured = capfd.readouterr()
    assert not captured.out and not captured.err


def test_every_step_says_what_it_does():
    assert all(factory.__doc__ for factory in STEPS.values())
