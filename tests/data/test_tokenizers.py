from __future__ import annotations

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tarfile
import typing

import numpy as np
import pytest

from purelm.data.tokenizers import TRAINED_KINDS, ByteTokenizer, CharacterTokenizer, load_tokenizer, train_tokenizer
from purelm.data.tokenizers.trained import byte_characters, chunks
from purelm.errors import UserError

ENGLISH = ["The quick brown fox jumps over the lazy dog, don't it?\n  And  again:\tthe dog's 12345 fleas.\n\n\n."] * 3
CHINESE = ["真隐先生，家居近在东湖。\n茅屋三椽，自有一种清虚。\n秫来酿酒，便无后、也解赊沽。"] * 3
PYTHON = [f"def f{i}(x):\n    if x == {i}:\n\treturn 'a' * {i}\n" for i in range(40)]
TEXTS = ENGLISH + CHINESE + PYTHON
AWKWARD = [
    "", " ", "  ", "\n", "\n\n \n", "\t\t x", " leading", "trailing ", "a  b   c", "<|endoftext|>", "x<|endoftext|>y",
    "[UNK]", "##ab", "\u203f!\u203fa", "\u0120\u010a", "\u2581a", "<0x41>", "e\u0301 \u00e9",
    "\U0001f468\u200d\U0001f469",
    "汉字，。\u3000中文 mixed", "\x00\x01\x7f", "\ufeffbom", "\u2028\u2029\x85\x1c", "\r\n\r", "=" * 300, "x" * 500,
    "汉" * 200, "7" * 50, "\U0010ffff\ud7a3", "नमस्ते", "مرحبا", " 's't're", " " * 100 + "x", "\n" * 60,
]


def every_tokenizer():
    made = [ByteTokenizer(True), CharacterTokenizer.train(TEXTS + AWKWARD, True)]
    return made + [train_tokenizer(kind, TEXTS, 700, end_of_text=True) for kind in TRAINED_KINDS]


@pytest.fixture(scope="module", params=range(2 + len(TRAINED_KINDS)))
def tokenizer(request, _made=[]):  # noqa: B006 (made once a module)
    if not _made:
        _made += every_tokenizer()
    return _made[request.param]


def random_text(rng: random.Random) -> str:
    ranges = [(32, 126), (9, 10), (0, 0x2FF), (0x300, 0x36F), (0x4E00, 0x9FFF), (0x1F600, 0x1F64F), (0xE000, 0x10FFFF)]
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(0, 60)))


def test_round_trip_is_exact(tokenizer):  # reddens with add_prefix_space, a "##" prefix, an unknown token, a normalizer
    rng = random.Random(0)
    texts = TEXTS + AWKWARD + ([random_text(rng) for _ in range(300)] if tokenizer.kind != "characters" else [])
    for text, ids in zip(texts, tokenizer.encode_batch(texts)):
        assert ids.dtype == np.int32
        assert tokenizer.decode(ids) == text
        assert ids.max(initial=0) < tokenizer.base_size


def test_end_of_text_is_an_id_that_no_text_has(tokenizer):
    assert tokenizer.end_of_text_id == tokenizer.vocabulary_size - 1
    assert tokenizer.end_of_text_id not in tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.end_of_text_id]) == "a<|endoftext|>"


def test_save_and_load_give_the_same_tokenizer(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert (loaded.fingerprint, loaded.vocabulary_size) == (tokenizer.fingerprint, tokenizer.vocabulary_size)
    for text in TEXTS + AWKWARD:
        np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_ids_out_of_the_vocabulary_are_named(tokenizer):
    with pytest.raises(UserError, match=f"token id {tokenizer.vocabulary_size} "):
        tokenizer.decode([0, tokenizer.vocabulary_size])
    with pytest.raises(UserError, match="token id -1 "):
        tokenizer.decode([-1])


def test_half_a_surrogate_is_a_user_error(tokenizer):
    with pytest.raises(UserError, match="U\\+DCE9"):
        tokenizer.encode("caf\udce9")


def test_without_end_of_text_there_is_no_such_id():
    assert ByteTokenizer(False).vocabulary_size == 256 and ByteTokenizer(False).end_of_text_id is None
    assert train_tokenizer("bpe", TEXTS, 300, end_of_text=False).vocabulary_size == 300
    assert train_tokenizer("bpe", TEXTS, 300, end_of_text=True).vocabulary_size == 300
    assert ByteTokenizer(False).fingerprint != ByteTokenizer(True).fingerprint


def test_bytes_that_end_no_character_show_as_replacement():
    assert ByteTokenizer(True).decode([0xE6, 0xB1]) == "\ufffd"


def test_characters_are_sorted_and_unknown_ones_named():
    tokenizer = CharacterTokenizer.train(["hello"], False)
    assert tokenizer.characters == "ehlo" and tokenizer.encode("hole").tolist() == [1, 3, 2, 0]
    assert tokenizer.unknown_characters("hezlo汉z") == ["z", "汉"]
    with pytest.raises(UserError, match="'z' \\(U\\+007A\\), '汉' \\(U\\+6C49\\)"):
        tokenizer.encode("hezlo汉")
    assert tokenizer.encode("").tolist() == []


def test_cutting_long_texts_changes_no_token():  # reddens if chunks cut between a newline and what follows it
    tokenizer = train_tokenizer("bpe", TEXTS, 700, end_of_text=True)
    rng = random.Random(1)
    text = "".join(rng.choice([" ", "\n", "\n\n", "\n  \n", "\t", "word", "don't", "汉字", "!?", "12", "\u3000"])
                   for _ in range(4000))
    pieces = list(chunks(text, 50))
    assert "".join(pieces) == text and len(pieces) > 50
    np.testing.assert_array_equal(np.concatenate(tokenizer.encode_batch(pieces)), tokenizer.encode(text))
    assert list(chunks("x" * 100, 50)) == ["x" * 100] and list(chunks("")) == []


def test_merges_are_learned():  # reddens if training leaves bytes only
    for kind in TRAINED_KINDS:
        tokenizer = train_tokenizer(kind, TEXTS, 700, end_of_text=True)
        assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0].encode()) - 5


def test_byte_characters_are_those_of_the_library():
    from tokenizers import pre_tokenizers
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert len(set(byte_characters())) == 256


# Not of unigram, whose training is not always repeatable on texts as small as these.
@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_is_deterministic_in_another_process(kind):
    code = ("import sys; from purelm.data.tokenizers import train_tokenizer; texts = eval(sys.stdin.read());"
            f"print(train_tokenizer({kind!r}, texts, 1000, end_of_text=True).fingerprint)")
    modules = [argparse, tarfile, typing, random]
    texts = [pathlib.Path(module.__file__).read_text(encoding="utf-8") for module in modules]
    found = subprocess.run([sys.executable, "-c", code], input=ascii(texts), capture_output=True, text=True,
                           check=True)
    assert found.stdout.strip() == train_tokenizer(kind, texts, 1000, end_of_text=True).fingerprint
    assert found.stderr == ""


@pytest.mark.parametrize("kind,least", [("bpe", 257), ("wordpiece", 513), ("unigram", 258)])
def test_a_vocabulary_without_room_for_bytes_is_refused(kind, least):
    with pytest.raises(UserError, match=f"at least {least}"):
        train_tokenizer(kind, TEXTS, least - 1, end_of_text=True)
    tokenizer = train_tokenizer(kind, TEXTS, least, end_of_text=True)
    assert tokenizer.vocabulary_size <= least and tokenizer.decode(tokenizer.encode("\U0010ffffé")) == "\U0010ffffé"


def test_files_that_are_no_tokenizer_are_user_errors(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer = train_tokenizer("bpe", TEXTS, 300, end_of_text=True)
    tokenizer.save(path)
    whole = path.read_text(encoding="utf-8")
    foreign = json.dumps({"model": {}, "pre_tokenizer": {}})
    bad = [(whole[:500], "truncated"), (foreign, "Hugging Face"), ("[1]", "not a purelm tokenizer"),
           (whole.replace('"end_of_text": true', '"end_of_text": false'), "fingerprint"),
           (whole.replace('"type": "bpe"', '"type": "xyz"', 1), "fingerprint"),
           (json.dumps({**json.loads(whole), "tokenizer": {}}), "fingerprint")]
    for content, message in bad:
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message) as caught:
            load_tokenizer(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load_tokenizer(path)
    with pytest.raises(UserError, match="No such file"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be written"):
        tokenizer.save(tmp_path / "none" / "tokenizer.json")
