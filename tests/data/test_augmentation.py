from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_tasks import CLASSES, config

from purelm.data import tokenizers
from purelm.data.augmentation import STEPS, Augmenter, parse_steps
from purelm.errors import UserError

TEXTS = ["the cat sat on a mat and slept well", "one two three four five six seven eight nine ten eleven twelve"]
BPE = tokenizers.train_tokenizer("bpe", TEXTS * 20, 300, end_of_text=True)
WORDS = tokenizers.train_tokenizer("words", TEXTS, 100, end_of_text=True)
BYTES = tokenizers.ByteTokenizer(True)


def changed(tmp_path, steps, tokenizer, ids, *, epoch=0, number=0, seed=0, context_length=64):
    steps = (steps,) if isinstance(steps, str) else steps
    augmenter = Augmenter(config(tmp_path, context_length=context_length, augmentation=steps, seed=seed), tokenizer,
                          CLASSES)
    return augmenter({"tokens": np.asarray(ids, np.int32), "label": 1}, epoch, number)["tokens"]


def words(tokenizer, ids):
    return sorted(tokenizer.decode(ids).split())


@pytest.mark.parametrize("tokenizer", [BPE, WORDS, BYTES])
def test_what_each_step_keeps(tmp_path, tokenizer):
    ids = tokenizer.encode(" " + TEXTS[1])
    for number in range(20):
        swapped = changed(tmp_path, "word_swap:0.3", tokenizer, ids, number=number)
        assert sorted(swapped) == sorted(ids) and words(tokenizer, swapped) == words(tokenizer, ids)
        assert not np.array_equal(swapped, ids)
        deleted = words(tokenizer, changed(tmp_path, "word_deletion:0.3", tokenizer, ids, number=number))
        assert set(deleted) <= set(words(tokenizer, ids)) and deleted
        twice = words(tokenizer, changed(tmp_path, "word_duplication:0.3", tokenizer, ids, number=number,
                                         context_length=500))
        assert set(twice) == set(words(tokenizer, ids)) and len(twice) >= 12
        masked = changed(tmp_path, "token_masking:0.3", tokenizer, ids, number=number)
        blank = 0 if tokenizer is WORDS else tokenizer.end_of_text_id
        assert len(masked) == len(ids) and set(masked[masked != ids]) <= {blank}
        dropped = changed(tmp_path, "word_dropout:0.3", tokenizer, ids, number=number)
        left = words(tokenizer, dropped[dropped != blank])
        assert len(left) + np.count_nonzero(dropped == blank) == 12  # one blank a word, whatever tokens it had


def test_order_of_words_that_stay_is_kept(tmp_path):
    ids = BPE.encode(" " + TEXTS[1])
    left = BPE.decode(changed(tmp_path, "word_deletion:0.5", BPE, ids)).split()
    assert left == [word for word in TEXTS[1].split() if word in left] and 1 <= len(left) < 12


@pytest.mark.parametrize("step", STEPS)
def test_nothing_becomes_empty_and_nothing_stays_of_nothing(tmp_path, step):
    for tokenizer in (BPE, WORDS, BYTES):
        for text in ("cat", " one two"):
            assert len(changed(tmp_path, f"{step}:1", tokenizer, tokenizer.encode(text))) >= 1
        assert len(changed(tmp_path, step, tokenizer, [])) == 0


@pytest.mark.parametrize("step", STEPS)
def test_tokens_without_text_stay_where_they_are(tmp_path, step):
    mark = BPE.vocabulary_size  # a task's own token
    ids = np.concatenate([[mark], BPE.encode(" one two"), [mark], BPE.encode(" three"), [mark]])
    for number in range(10):
        found = changed(tmp_path, f"{step}:0.9", BPE, ids, number=number)
        assert found[0] == found[-1] == mark and np.count_nonzero(found == mark) == 3


def test_the_same_record_and_epoch_give_the_same_and_others_do_not(tmp_path):
    ids = WORDS.encode(TEXTS[1])
    first = changed(tmp_path, ("word_swap:0.5", "word_dropout:0.5"), WORDS, ids)
    same = changed(tmp_path, ("word_swap:0.5", "word_dropout:0.5"), WORDS, ids)
    np.testing.assert_array_equal(first, same)
    for other in ({"epoch": 1}, {"number": 1}, {"seed": 1}):
        assert not np.array_equal(first, changed(tmp_path, ("word_swap:0.5", "word_dropout:0.5"), WORDS, ids, **other))


def test_strength_is_the_rate(tmp_path):
    ids = np.ones(4000, np.int32)
    masked = changed(tmp_path, "token_masking:0.2", WORDS, ids)
    assert 0.17 < np.mean(masked == 0) < 0.23
    assert 0.08 < np.mean(changed(tmp_path, "token_masking", WORDS, ids) == 0) < 0.12


def test_chinese_characters_begin_words(tmp_path):  # reddens if only spaces part words: there is one word, no swap
    tokenizer = tokenizers.train_tokenizer("bpe", ["，".join("我爱北京天安门")] * 9, 280, end_of_text=True)
    ids = tokenizer.encode("我爱北京天安门")
    found = [changed(tmp_path, "word_swap", tokenizer, ids, number=number) for number in range(9)]
    assert any(not np.array_equal(ids, other) for other in found)


def test_a_record_never_outgrows_the_context(tmp_path):
    ids = WORDS.encode(TEXTS[1])
    for number in range(9):
        assert len(changed(tmp_path, "word_duplication:0.5", WORDS, ids, number=number, context_length=14)) <= 14


@pytest.mark.parametrize("step,parts", [
    ("word_drop", ["no step 'word_drop'", "did you mean 'word_dropout'"]),
    ("word_swap:2", ["'word_swap:2'", "at most 1"]),
    ("word_swap:", ["a number above 0"]), ("word_swap:nan", ["a number above 0"]), ("word_swap:0", ["above 0"])])
def test_bad_steps_are_named(step, parts):
    with pytest.raises(UserError) as caught:
        parse_steps((step,))
    assert all(part in str(caught.value) for part in ["config.data.augmentation", *parts])


def test_what_cannot_be_augmented_says_so(tmp_path):
    chosen = config(tmp_path, augmentation=("word_dropout",))
    with pytest.raises(UserError, match="no text that could be changed"):
        Augmenter(chosen, BPE, dataclasses.replace(CLASSES, augmented=()))
    with pytest.raises(UserError, match="end_of_text=true"):
        Augmenter(chosen, tokenizers.ByteTokenizer(False), CLASSES)
