"""Penalties, biases and bans against NumPy and the processors of transformers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.inference import penalties
from purelm.inference.penalties import NO_ID, History

ROWS, SIZE, COLUMNS = 5, 30, 12


@pytest.fixture(scope="module")
def logits_BV():
    return (np.random.default_rng(0).normal(size=(ROWS, SIZE)) * 4).astype(np.float32)


@pytest.fixture(scope="module")
def history():
    """Rows of different lengths, the last with nothing said yet, one with a token that was not a number."""
    ids_BX = np.random.default_rng(1).integers(0, SIZE // 2, (ROWS, COLUMNS)).astype(np.int32)
    ids_BX[2, 4] = -1
    return History(ids_BX, np.array([12, 9, 7, 3, 5]), np.array([6, 2, 3, 1, 5]), np.array([4, 0, 1, 2, 0]))


def spans(history: History, starts_B: np.ndarray) -> list[np.ndarray]:
    return [ids[start:length][ids[start:length] >= 0]
            for ids, start, length in zip(history.ids_BX, starts_B, history.lengths_B)]


def column(values) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None]


@pytest.mark.parametrize("penalty", [1.3, 0.6])
def test_repetition_is_that_of_transformers_over_the_window(logits_BV, history, penalty):
    # Reddens with: the whole text or the answer alone, tokens beyond the length, a negative logit divided.
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    found_BV = penalties.penalize_repetition(
        jnp.asarray(logits_BV), history, column([penalty] * ROWS), column([1 / penalty] * ROWS))
    for row, seen in enumerate(spans(history, history.window_starts_B)):
        expected = process.RepetitionPenaltyLogitsProcessor(penalty)(
            torch.tensor(seen[None].astype(np.int64)), torch.tensor(logits_BV[row:row + 1]))
        np.testing.assert_allclose(found_BV[row], expected[0].numpy(), rtol=3e-7)


def test_frequency_and_presence_are_those_of_the_answer(logits_BV, history):
    # Reddens with: the prompt counted, presence by the count, frequency once.
    frequency_B, presence_B = np.array([0.5, -0.2, 0, 1, 2]), np.array([0, 0.3, 1.5, -1, 0.1])
    found_BV = penalties.penalize_frequency(jnp.asarray(logits_BV), history, column(frequency_B), column(presence_B))
    for row, said in enumerate(spans(history, history.starts_B)):
        counts_V = np.bincount(said, minlength=SIZE)
        expected_V = logits_BV[row] - counts_V * frequency_B[row] - (counts_V > 0) * presence_B[row]
        np.testing.assert_allclose(found_BV[row], expected_V, rtol=1e-6, atol=1e-6)


def test_penalties_of_nothing_change_no_bit(logits_BV, history):
    ones, zeros = column([1] * ROWS), column([0] * ROWS)
    logits_BV = jnp.asarray(logits_BV).at[:, 3].set(-jnp.inf)
    np.testing.assert_array_equal(penalties.penalize_repetition(logits_BV, history, ones, ones), logits_BV)
    np.testing.assert_array_equal(penalties.penalize_frequency(logits_BV, history, zeros, zeros), logits_BV)


def test_biases_and_bans(logits_BV):
    # Reddens where the padding is clamped into the vocabulary, or wraps.
    ids_BJ = np.array([[0, 29], [NO_ID, NO_ID], [5, NO_ID], [7, 6], [29, NO_ID]], np.int32)
    values_BJ = np.array([[1, -2], [9, 9], [3, 9], [-1, 1], [100, 9]], np.float32)
    expected_BV, banned_BV = logits_BV.copy(), logits_BV.copy()
    for row, (ids, values) in enumerate(zip(ids_BJ, values_BJ)):
        for i, value in zip(ids, values):
            if i != NO_ID:
                expected_BV[row, i] += value
                banned_BV[row, i] = -np.inf
    np.testing.assert_array_equal(penalties.add_biases(jnp.asarray(logits_BV), ids_BJ, values_BJ), expected_BV)
    np.testing.assert_array_equal(penalties.ban(jnp.asarray(logits_BV), ids_BJ), banned_BV)
    one_for_all = np.array(penalties.ban(jnp.asarray(logits_BV), ids_BJ[:1]))
    assert np.isinf(one_for_all[:, [0, 29]]).all() and np.isfinite(np.delete(one_for_all, [0, 29], axis=1)).all()


def test_the_stop_id_is_held_back_until_its_number(logits_BV):
    # Reddens with <= in place of <, with the first of several alone, and with a stop id of -1 that wraps to the last.
    stop_ids_BS = jnp.asarray([[4, -1], [7, 4], [4, 4], [-1, -1], [29, 2]])
    held_BV = np.array(penalties.hold_stop(jnp.asarray(logits_BV), jnp.asarray([0, 1, 2, 1, 0]), stop_ids_BS,
                                           jnp.asarray([2, 2, 2, 5, 0])))
    expected_BV = logits_BV.copy()
    expected_BV[[0, 1, 1], [4, 4, 7]] = -np.inf
    np.testing.assert_array_equal(held_BV, expected_BV)


def test_forced_tokens():
    # Reddens where the padding's number -1 meets a row that forces id -1, and where rows share their lists.
    forced = jax.jit(penalties.forced_ids)(
        jnp.asarray([0, 1, 5, 0]), jnp.asarray([[0, 1], [0, 1], [0, 1], [-1, -1]]),
        jnp.asarray([[7, 8], [7, 8], [7, 8], [-1, -1]]))
    assert forced.tolist() == [7, 8, -1, -1]
    assert penalties.forced_ids(jnp.asarray([3]), jnp.zeros((1, 0), int), jnp.zeros((1, 0), int)).tolist() == [-1]
