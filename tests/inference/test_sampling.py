"""Sampling: the kept sets against outside oracles, the frequencies against the distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.errors import UserError
from purelm.inference import sampling
from purelm.inference.sampling import Sampler, mask_vocabulary

filter_logits = jax.jit(sampling.filter_logits, static_argnums=0)
sample = jax.jit(sampling.sample, static_argnums=0)

SAMPLERS = [
    Sampler(0.7), Sampler(1.0, top_k=1), Sampler(1.3, top_k=7), Sampler(1.0, top_k=10_000), Sampler(1.0, top_p=0.9),
    Sampler(1.0, top_p=1e-6), Sampler(1.0, top_p=1.0), Sampler(0.5, top_p=0.3), Sampler(1.7, top_k=20, top_p=0.6),
]


def random_logits(rows: int, size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(rows, size)) * 3).astype(np.float32)


def reference_probabilities(sampler: Sampler, logits_V: np.ndarray) -> np.ndarray:
    """By sorting, in float64: the definitions of top-k and of the nucleus, ties kept together."""
    scaled = logits_V.astype(np.float64) / sampler.temperature
    if sampler.top_k is not None and sampler.top_k < scaled.size:
        scaled = np.where(scaled >= np.sort(scaled)[-sampler.top_k], scaled, -np.inf)
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    if sampler.top_p is not None and sampler.top_p < 1:
        above = np.array([probabilities[scaled > value].sum() for value in scaled])
        probabilities = np.where(above < sampler.top_p, probabilities, 0)
        probabilities /= probabilities.sum()
    return probabilities


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("size", [3, 300])
def test_distribution_is_the_definition(sampler, size):
    # Reddens with: top_p before top_k, no renormalization between them, temperature applied last, <= in place of <.
    logits_BV = random_logits(4, size)
    found_BV = np.asarray(jax.nn.softmax(filter_logits(sampler, jnp.asarray(logits_BV)), axis=-1))
    for found_V, logits_V in zip(found_BV, logits_BV):
        expected_V = reference_probabilities(sampler, logits_V)
        np.testing.assert_array_equal(found_V > 0, expected_V > 1e-45)
        np.testing.assert_allclose(found_V, expected_V, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s.top_k != 10_000], ids=str)
def test_kept_tokens_are_those_of_transformers(sampler):
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    logits_BV = random_logits(4, 300, seed=1)
    scores = torch.tensor(logits_BV) / sampler.temperature
    if sampler.top_k is not None:
        scores = process.TopKLogitsWarper(sampler.top_k)(None, scores)
    if sampler.top_p is not None and sampler.top_p < 1:
        scores = process.TopPLogitsWarper(sampler.top_p)(None, scores)
    kept_BV = np.asarray(jnp.isfinite(filter_logits(sampler, jnp.asarray(logits_BV))))
    np.testing.assert_array_equal(kept_BV, np.isfinite(scores.numpy()))


def test_ties_stay_or_go_together():
    # Reddens with a border by rank in place of by value.
    logits_BV = jnp.asarray([[1.0, 2.0, 2.0, 0.0, 2.0, 3.0]])
    kept = np.isfinite(filter_logits(Sampler(1.0, top_k=2), logits_BV))[0]
    np.testing.assert_array_equal(kept, [False, True, True, False, True, True])
    kept = np.isfinite(filter_logits(Sampler(1.0, top_p=0.5), logits_BV))[0]
    np.testing.assert_array_equal(kept, [False, True, True, False, True, True])


@pytest.mark.parametrize("sampler", [Sampler(1.0), Sampler(1.5, top_k=30), Sampler(0.8, top_p=0.9)], ids=str)
@pytest.mark.parametrize("size", [2, 65])
def test_frequencies_are_the_distribution(sampler, size):
    # Reddens with: the block drawn uniformly, one key used for block and column, an off-by-one in the column.
    stats = pytest.importorskip("scipy.stats")
    draws = 20_000
    logits_V = random_logits(1, size, seed=2)[0] / 2
    keys = jax.random.split(jax.random.key(3), draws)
    ids = sample(sampler, jnp.broadcast_to(jnp.asarray(logits_V), (draws, size)), keys)
    counts_V = np.bincount(ids, minlength=size)
    expected_V = reference_probabilities(sampler, logits_V) * draws
    assert counts_V[expected_V == 0].sum() == 0
    large = expected_V >= 5
    observed = np.append(counts_V[large], counts_V[~large].sum())
    expected = np.append(expected_V[large], expected_V[~large].sum())
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_greedy_is_argmax_and_the_lowest_of_a_tie():
    logits_BV = random_logits(5, 50)
    keys = jax.random.split(jax.random.key(0), 5)
    np.testing.assert_array_equal(sample(Sampler(0.0), logits_BV, keys), logits_BV.argmax(-1))
    assert sample(Sampler(0.0, top_p=0.1), jnp.asarray([[1.0, 4.0, 4.0]]), keys[:1]).tolist() == [1]


@pytest.mark.parametrize("temperature", [1e-45, 2e-38, 1e-6])
def test_a_tiny_temperature_is_the_argmax(temperature):
    # Reddens with the division before the maximum is taken off (inf - inf), or by a denormal.
    logits_BV = jnp.asarray(random_logits(5, 50)) * 1e4
    ids = sample(Sampler(temperature), logits_BV, jax.random.split(jax.random.key(0), 5))
    np.testing.assert_array_equal(ids, logits_BV.argmax(-1))


@pytest.mark.parametrize("sampler", [Sampler(0.0), Sampler(1.0), Sampler(5.0, top_k=9, top_p=0.99)], ids=str)
def test_padded_entries_never_come_out(sampler):
    # Reddens without the mask: the padded entries are far the most probable.
    logits_BV = jnp.asarray(random_logits(2000, 16)).at[:, 11:].add(50.0)
    ids = sample(sampler, mask_vocabulary(logits_BV, 11), jax.random.split(jax.random.key(0), 2000))
    assert ids.min() >= 0 and ids.max() < 11


def test_a_row_does_not_depend_on_the_others():
    logits_BV, keys = jnp.asarray(random_logits(6, 40)), jax.random.split(jax.random.key(1), 6)
    together = sample(Sampler(1.0, top_p=0.9), logits_BV, keys)
    alone = [int(sample(Sampler(1.0, top_p=0.9), logits_BV[r: r + 1], keys[r: r + 1])[0]) for r in range(6)]
    assert together.tolist() == alone


@pytest.mark.parametrize("fields, word", [
    ({"temperature": -0.1}, "temperature"), ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_k": 2.5}, "top_k"),
    ({"top_p": 0.0}, "top_p"), ({"top_p": 1.01}, "top_p"), ({"top_p": float("nan")}, "top_p"),
])
def test_wrong_rules_are_refused(fields, word):
    with pytest.raises(UserError, match=word) as error:
        Sampler(**fields)
    assert "\n" not in str(error.value)
