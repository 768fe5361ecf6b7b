"""Prompts to ids and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.data.tokenizers.special import around
from purelm.errors import UserError
from purelm.inference import Sampler, encode_prompt, parse_prompt_ids, sample_ids, sample_text
from purelm.inference.decode import Generated
from purelm.inference.prompts import decode_samples
from purelm.models import Transformer

CONFIG = ModelConfig(vocabulary_size=8, context_length=16, num_layers=1, width=8, num_heads=2)


class Letters:
    """a to e, and perhaps an end of text: the least that the functions here ask of a tokenizer."""

    def __init__(self, end_of_text: bool) -> None:
        self.end_of_text_id = 5 if end_of_text else None
        self.special = around(self.end_of_text_id)
        self.vocabulary_size = 5 + end_of_text

    def encode(self, text: str) -> np.ndarray:
        return np.array(["abcde".index(letter) for letter in text], np.int32)

    def decode(self, ids: np.ndarray) -> str:
        return "".join("abcde|"[number] for number in ids)

    def unknown_characters(self, text: str) -> list[str]:
        return [letter for letter in text if letter not in "abcde"]


@pytest.fixture(scope="module")
def params():
    return Transformer(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


def test_a_prompt_starts_a_document():
    assert encode_prompt(Letters(True), "cab").tolist() == [5, 2, 0, 1]
    assert encode_prompt(Letters(False), "cab").tolist() == [2, 0, 1]
    assert encode_prompt(Letters(True), "").tolist() == [5]


def test_prompts_that_cannot_be_encoded():
    with pytest.raises(UserError, match="empty"):
        encode_prompt(Letters(False), "")
    with pytest.raises(UserError, match="'x', '\\\\n'"):
        encode_prompt(Letters(True), "ax\n")


def test_prompt_ids():
    assert parse_prompt_ids("0, 7,3", 8).tolist() == [0, 7, 3]


@pytest.mark.parametrize("text, words", [
    ("", "entry 1 is ''"), ("1,,2", "entry 2 is ''"), ("1,a", "entry 2 is 'a'"), ("1.5", "entry 1"),
    ("0,8", r"entry 2 is 8, outside of the vocabulary \(0 to 7\)"), ("-1", "entry 1 is -1"),
])
def test_wrong_prompt_ids(text, words):
    with pytest.raises(UserError, match=words):
        parse_prompt_ids(text, 8)


def test_texts_begin_with_the_prompt_and_differ(params):
    arguments = {"max_new_tokens": 40, "sampler": Sampler(1.0), "seed": 1}
    texts = sample_text(CONFIG, params, Letters(False), "abc", num_samples=3, **arguments)
    assert len(set(texts)) == 3 and all(text.startswith("abc") and len(text) == 43 for text in texts)
    # The seed decides, and a sample does not depend on how many there are.
    assert sample_text(CONFIG, params, Letters(False), "abc", num_samples=3, **arguments) == texts
    assert sample_text(CONFIG, params, Letters(False), "abc", num_samples=1, **arguments) == texts[:1]
    assert sample_text(CONFIG, params, Letters(False), "abc", num_samples=3, **{**arguments, "seed": 2}) != texts


def test_texts_end_with_the_document(params):
    texts = sample_text(
        CONFIG, params, Letters(True), "", num_samples=4, max_new_tokens=60, sampler=Sampler(1.0), seed=0)
    assert len({len(text) for text in texts}) > 1 and "|" not in "".join(texts)


def test_decoded_samples_leave_out_what_is_not_text():
    generated = Generated(np.array([[1, 5, 5], [1, 2, 3]]), np.array([2, 3]), np.array([True, False]),
                          np.zeros(2))
    assert decode_samples(Letters(True), np.array([5, 0]), generated) == ["ab", "abcd"]
    assert decode_samples(Letters(True), np.array([0, 5]), generated) == ["a|b", "a|bcd"]


def test_the_number_of_samples(params):
    with pytest.raises(UserError, match="num_samples is 0"):
        sample_ids(CONFIG, params, np.array([1]), num_samples=0, max_new_tokens=3, sampler=Sampler(), seed=0,
                   stop_id=None, vocabulary_size=8)
