"""What skip-gram, CBOW and GloVe read: subsampling, reaches, blocks, negatives, counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from purelm.config.schema import WordVectorsConfig
from purelm.data.cooccurrence import count_pairs
from purelm.data.packing import TokenSplit
from purelm.data.word_pairs import (
    Purpose,
    WordText,
    blocks_of,
    draw_negatives,
    epoch_text,
    gather_blocks,
    generator,
    keep_probabilities,
    make_vocabulary,
    word_text,
)

COUNTS = np.array([9, 1000, 400, 100, 50, 4, 10])  # 0 is <unk>, 5 is rare, 6 is the end of text


def vocabulary(**changes):
    return make_vocabulary(COUNTS, [0, 6], WordVectorsConfig(**{"minimum_count": 5, **changes}))


def test_rare_words_and_those_that_are_none_are_left_out():
    assert vocabulary().counts_V.tolist() == [0, 1000, 400, 100, 50, 0, 0] and vocabulary().num_words == 4


def test_subsampling_is_that_of_the_authors_program():
    keep_V = keep_probabilities(COUNTS, 1e-2)
    for count, keep in zip(COUNTS, keep_V):
        ran = (math.sqrt(count / (1e-2 * COUNTS.sum())) + 1) * (1e-2 * COUNTS.sum()) / count  # word2vec.c
        assert keep == pytest.approx(min(ran, 1), rel=1e-6)
    assert keep_V[1] < 0.2 and keep_V[5] == 1 and (keep_probabilities(COUNTS, 0.0) == 1).all()


def test_words_stay_as_often_as_the_probability_says():
    known = vocabulary(subsample=1e-2)
    text = WordText(np.repeat(np.arange(1, 5), 20_000), np.array([0, 80_000]))
    drawn = epoch_text(text, known, 5, generator(0, Purpose.WORDS, 0))
    np.testing.assert_allclose(np.bincount(drawn.words, minlength=5)[1:] / 20_000, known.keep_V[1:5], atol=0.015)
    assert blocks_of(text, known, 10) * 10 >= len(drawn.words)


def test_negatives_follow_the_power_of_the_counts():  # reddens with power 1, or with words that are left out
    known = vocabulary(negative_power=0.75)
    drawn = np.bincount(draw_negatives(known, (400, 500), generator(0, Purpose.NEGATIVES, 0, 0)).ravel(), minlength=7)
    powers = known.counts_V ** 0.75
    np.testing.assert_allclose(drawn / drawn.sum(), powers / powers.sum(), atol=0.005)
    assert drawn[[0, 5, 6]].tolist() == [0, 0, 0]


def test_left_out_words_are_no_neighbors_and_documents_part():
    tokens = np.array([6, 1, 0, 2, 6, 3, 5, 4, 1, 6], np.uint16)
    split = TokenSplit("train", tokens, np.array([0, 4]), 1, 2)
    text = word_text(split, vocabulary())
    assert text.words.tolist() == [1, 2, 3, 4, 1] and text.starts.tolist() == [0, 2, 5]
    drawn = epoch_text(text, vocabulary(subsample=0.0), 4, generator(0, Purpose.WORDS, 0))
    assert (drawn.left <= [0, 1, 0, 1, 2]).all() and (drawn.right <= [1, 0, 2, 1, 0]).all()


def test_reaches_are_uniform():
    text = WordText(np.ones(40_000, np.int64), np.array([0, 40_000]))
    drawn = epoch_text(text, vocabulary(subsample=0.0), 4, generator(0, Purpose.WORDS, 0))
    np.testing.assert_allclose(np.bincount(drawn.left[4:-4], minlength=5) / 39_992, [0, .25, .25, .25, .25], atol=0.01)
    np.testing.assert_array_equal(drawn.left[4:-4], drawn.right[4:-4])


def test_blocks_hold_every_pair_once():  # reddens where pairs across two blocks are lost, or padding makes some
    random, window, length = np.random.default_rng(0), 3, 4
    text = WordText(random.integers(1, 5, 30), np.array([0, 3, 4, 19, 30]))
    drawn = epoch_text(text, vocabulary(subsample=0.0), window, generator(0, Purpose.WORDS, 0))
    expected = sorted((drawn.words[i], drawn.words[j], i) for i in range(30)
                      for j in range(i - drawn.left[i], i + drawn.right[i] + 1) if j != i)
    found = []
    batch = gather_blocks(drawn, np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, -1]), length, window)
    for b in range(10):
        for t in range(length):
            for s in range(t - batch["left"][b, t], t + batch["right"][b, t] + 1):
                if s != t:
                    found.append((batch["words"][b, window + t], batch["words"][b, window + s], b * length + t))
    assert sorted(found) == expected and batch["words"].shape == (10, length + 2 * window)


def test_purposes_and_numbers_draw_apart():
    draws = {generator(*key).integers(1 << 60) for key in [(0, Purpose.WORDS, 0), (0, Purpose.WORDS, 1),
                                                          (0, Purpose.NEGATIVES, 0), (1, Purpose.WORDS, 0)]}
    assert len(draws) == 4 and generator(0, Purpose.WORDS, 0).integers(1 << 60) in draws


@pytest.mark.parametrize("chunk", [1 << 20, 7])
def test_counts_are_those_of_a_brute_force(monkeypatch, chunk):  # 7: reddens where a chunk's last words lose pairs
    monkeypatch.setattr("purelm.data.cooccurrence._CHUNK", chunk)
    random = np.random.default_rng(1)
    text = WordText(random.integers(0, 6, 60), np.array([0, 20, 21, 21, 60]))
    expected = np.zeros((6, 6))
    for start, stop in zip(text.starts, text.starts[1:]):
        for i in range(start, stop):
            for j in range(start, stop):
                if 0 < abs(i - j) <= 4:
                    expected[text.words[i], text.words[j]] += 1 / abs(i - j)
    np.testing.assert_allclose(count_pairs(text, 6, 4).toarray(), expected, rtol=1e-6)
