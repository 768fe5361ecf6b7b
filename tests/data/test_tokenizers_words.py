from __future__ import annotations

import json

import numpy as np
import pytest

from purelm.data.tokenizers import WordTokenizer, load_tokenizer, train_tokenizer
from purelm.data.tokenizers.words import split_words
from purelm.errors import UserError

TEXTS = ["The cat sat. The cat didn't sit!", "the dog sat , the dog", "我 喜欢 猫 。"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("words", TEXTS, 100, end_of_text=True)


@pytest.mark.parametrize("text,words", [
    ("Don't stop, it's 3.14!", ["Don't", "stop", ",", "it's", "3", ".", "14", "!"]),
    ("l\u2019homme d'\u00e9t\u00e9", ["l\u2019homme", "d'\u00e9t\u00e9"]),
    ("'tis the dogs' \"own\"", ["'", "tis", "the", "dogs", "'", '"', "own", '"']),
    ("e\u0301te\u0301 नमस्ते می\u200cخواهم", ["e\u0301te\u0301", "नमस्ते", "می\u200cخواهم"]),  # \w alone cuts these
    ("中文 分词，好", ["中文", "分词", "，", "好"]),
    ("a <unk> b\u3000c\td\n", ["a", "<unk>", "b", "c", "d"]),
    ("", []), (" \n", []),
])
def test_what_a_word_is(text, words):
    assert split_words(text) == words


def test_the_most_frequent_words_stay_and_ties_go_by_order():
    tokenizer = train_tokenizer("words", ["b a c", "c d a", "c"], 5, end_of_text=True)
    assert tokenizer.words == ("<unk>", "c", "a", "b")  # reddens where ties are sorted by spelling (d) or reversed
    assert tokenizer.vocabulary_size == 5 and tokenizer.end_of_text_id == 4
    assert tokenizer.encode("d c <unk> b zzz").tolist() == [0, 1, 0, 3, 0]
    assert tokenizer.decode(tokenizer.encode("d  c b")) == "<unk> c b"


def test_a_marked_unknown_word_of_the_text_is_no_word_of_the_vocabulary():
    tokenizer = train_tokenizer("words", ["<unk> <unk> a"], 10, end_of_text=False)
    assert tokenizer.words == ("<unk>", "a") and tokenizer.vocabulary_size == 2 and tokenizer.end_of_text_id is None


def test_round_trip_up_to_white_space(tokenizer):
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == text.replace(" ", "")
    ids = tokenizer.encode("The zebra sat.")
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(ids)), ids)
    assert ids.dtype == np.int32 and tokenizer.encode("").shape == (0,) and tokenizer.decode([]) == ""


def test_nothing_is_an_unknown_character(tokenizer):
    assert tokenizer.unknown_characters("zß汉\U0001f600") == []
    assert tokenizer.encode("zß汉 \U0001f600").tolist() == [0, 0]


def test_end_of_text_is_an_id_that_no_text_has(tokenizer):
    assert tokenizer.end_of_text_id == tokenizer.vocabulary_size - 1
    assert tokenizer.end_of_text_id not in tokenizer.encode("The<|endoftext|>cat")
    assert tokenizer.decode([*tokenizer.encode("cat"), tokenizer.end_of_text_id]) == "cat <|endoftext|>"


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(loaded, WordTokenizer) and loaded.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(loaded.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for words in (content["words"][::-1], content["words"][:1] * 2):
        (tmp_path / "changed.json").write_text(json.dumps({**content, "words": words}), encoding="utf-8")
        with pytest.raises(UserError, match="fingerprint"):
            load_tokenizer(tmp_path / "changed.json")


def test_half_a_surrogate_is_a_user_error(tokenizer):
    with pytest.raises(UserError, match="U\\+DCE9"):
        tokenizer.encode("caf\udce9")


@pytest.mark.parametrize("texts,size,message", [(["a b"], 2, "at least 3"), ([" \n", "<unk>"], 10, "no word")])
def test_what_makes_no_vocabulary_is_refused(texts, size, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer("words", texts, size, end_of_text=True)
