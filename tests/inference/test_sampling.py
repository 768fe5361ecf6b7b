"""Sampling: the distribution against outside oracles, the frequencies against the distribution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.errors import UserError
from purelm.inference import sampling
from purelm.inference.sampling import History, Sampler, check_ids, mask_vocabulary

filter_logits = jax.jit(sampling.filter_logits, static_argnums=0)
sample = jax.jit(sampling.sample, static_argnums=0)
draw = jax.jit(sampling.draw, static_argnums=0)

SAMPLERS = [
    Sampler(0.7), Sampler(1.0, top_k=1), Sampler(1.3, top_k=7), Sampler(1.0, top_k=10_000), Sampler(1.0, top_p=0.9),
    Sampler(1.0, top_p=1e-6), Sampler(1.0, top_p=1.0), Sampler(0.5, top_p=0.3), Sampler(1.7, top_k=20, top_p=0.6),
    Sampler(1.5, min_p=0.2), Sampler(0.6, min_p=1.0), Sampler(1.0, min_p=0.0),
    Sampler(1.7, top_k=50, top_p=0.95, min_p=0.02),
]


def name(sampler: Sampler) -> str:
    """The fields that are not at rest."""
    return ",".join(f"{field.name}={getattr(sampler, field.name)}" for field in dataclasses.fields(sampler)
                    if getattr(sampler, field.name) != field.default)


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
    if sampler.min_p is not None:
        probabilities = np.where(probabilities >= sampler.min_p * probabilities.max(), probabilities, 0)
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("size", [3, 300])
def test_distribution_is_the_definition(sampler, size):
    # Reddens with: top_p before top_k, no renormalization between them, temperature applied last, <= in place of <.
    logits_BV = random_logits(4, size)
    found_BV = np.asarray(jax.nn.softmax(filter_logits(sampler, jnp.asarray(logits_BV)), axis=-1))
    for found_V, logits_V in zip(found_BV, logits_BV):
        expected_V = reference_probabilities(sampler, logits_V)
        np.testing.assert_array_equal(found_V > 0, expected_V > 1e-45)
        np.testing.assert_allclose(found_V, expected_V, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s.top_k != 10_000], ids=name)
def test_kept_tokens_are_those_of_transformers(sampler):
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    logits_BV = random_logits(4, 300, seed=1)
    scores = torch.tensor(logits_BV) / sampler.temperature
    if sampler.top_k is not None:
        scores = process.TopKLogitsWarper(sampler.top_k)(None, scores)
    if sampler.top_p is not None and sampler.top_p < 1:
        scores = process.TopPLogitsWarper(sampler.top_p)(None, scores)
    if sampler.min_p is not None:
        scores = process.MinPLogitsWarper(sampler.min_p)(None, scores)
    kept_BV = np.asarray(jnp.isfinite(filter_logits(sampler, jnp.asarray(logits_BV))))
    np.testing.assert_array_equal(kept_BV, np.isfinite(scores.numpy()))


def test_ties_stay_or_go_together():
    # Reddens with a border by rank in place of by value.
    logits_BV = jnp.asarray([[1.0, 2.0, 2.0, 0.0, 2.0, 3.0]])
    kept = np.isfinite(filter_logits(Sampler(1.0, top_k=2), logits_BV))[0]
    np.testing.assert_array_equal(kept, [False, True, True, False, True, True])
    kept = np.isfinite(filter_logits(Sampler(1.0, top_p=0.5), logits_BV))[0]
    np.testing.assert_array_equal(kept, [False, True, True, False, True, True])


def check_frequencies(ids, expected_V):
    """Chi-square of drawn ids against probabilities; rare tokens count together, impossible ones must not come."""
    stats = pytest.importorskip("scipy.stats")
    counts_V = np.bincount(ids, minlength=len(expected_V))
    expected_V = expected_V * len(ids)
    assert counts_V[expected_V == 0].sum() == 0
    large = expected_V >= 5
    observed = np.append(counts_V[large], counts_V[~large].sum())
    expected = np.append(expected_V[large], expected_V[~large].sum())
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    if len(expected) > 1:
        assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize("sampler", [Sampler(1.0), Sampler(1.5, top_k=30), Sampler(0.8, top_p=0.9)], ids=name)
@pytest.mark.parametrize("size", [2, 65])
def test_frequencies_are_the_distribution(sampler, size):
    # Reddens with: the block drawn uniformly, one key used for block and column, an off-by-one in the column.
    draws = 20_000
    logits_V = random_logits(1, size, seed=2)[0] / 2
    keys = jax.random.split(jax.random.key(3), draws)
    ids = sample(sampler, jnp.broadcast_to(jnp.asarray(logits_V), (draws, size)), keys)
    check_frequencies(ids, reference_probabilities(sampler, logits_V))


# Known text: token 9 before the window, a prompt of 1, 2, 2, and the answer 3, 4, 4 so far; 7 was never said.
TEXT = [9, 1, 2, 2, 3, 4, 4]
WINDOW_START, START, STOP = 1, 4, 5
OPTIONS = [
    {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.15}, {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.5}, {"frequency_penalty": 0.9}, {"presence_penalty": -1.1},
    {"logit_bias": ((0, 2.0), (7, -1.0))}, {"banned": (2, 11)}, {"min_new_tokens": 4}, {"min_new_tokens": 3},
    {"forced": ((3, 8),)}, {"forced": ((2, 8),)},
    {"temperature": 1.4, "top_k": 9, "top_p": 0.97, "min_p": 0.03, "repetition_penalty": 1.2,
     "frequency_penalty": 0.3, "presence_penalty": 0.2, "logit_bias": ((0, 0.7), (4, 1.0)), "banned": (10,),
     "forced": ((0, 1),), "min_new_tokens": 9},
]


def reference_of_everything(sampler: Sampler, logits_V: np.ndarray, allowed_V: np.ndarray | None) -> np.ndarray:
    """The definitions, one after another, in float64."""
    number = len(TEXT) - START
    for forced_number, i in sampler.forced:
        if forced_number == number:
            return np.eye(len(logits_V))[i]
    logits_V = logits_V.astype(np.float64)
    for i in set(TEXT[WINDOW_START:]):
        logits_V[i] *= sampler.repetition_penalty if logits_V[i] < 0 else 1 / sampler.repetition_penalty
    for i in set(TEXT[START:]):
        logits_V[i] -= TEXT[START:].count(i) * sampler.frequency_penalty + sampler.presence_penalty
    for i, value in sampler.logit_bias:
        logits_V[i] += value
    logits_V[list(sampler.banned)] = -np.inf
    if number < sampler.min_new_tokens:
        logits_V[STOP] = -np.inf
    if allowed_V is not None:
        logits_V[~allowed_V] = -np.inf
    return reference_probabilities(sampler, logits_V)


# Each is a program to compile: with a constraint, that of all options together is quick, the others slow.
@pytest.mark.parametrize("options, constrained", [
    pytest.param(options, constrained, id=",".join([*options, "constrained"][:len(options) + constrained]),
                 marks=[pytest.mark.slow] if constrained and options is not OPTIONS[-1] else [])
    for options in OPTIONS for constrained in (False, True)])
def test_every_option_has_its_distribution(options, constrained):
    # Reddens with a wrong order of the options, counts of the wrong part of the text, or numbers from the prompt on.
    sampler, draws, size = Sampler(**options), 4_000, 12
    logits_V = random_logits(1, size, seed=4)[0] / 2
    logits_V[STOP] = logits_V.max()
    allowed_V = np.arange(size) % 4 != 3 if constrained else None
    history = History(*(jnp.broadcast_to(jnp.asarray(value, jnp.int32), (draws, *np.shape(value)))
                        for value in ([*TEXT, 7, 7], len(TEXT), START, WINDOW_START)))
    allowed_BV = None if allowed_V is None else jnp.broadcast_to(allowed_V, (draws, size))
    ids = draw(sampler, jnp.broadcast_to(logits_V, (draws, size)), jax.random.split(jax.random.key(5), draws),
               history, allowed_BV=allowed_BV, stop_id=STOP)
    check_frequencies(ids, reference_of_everything(sampler, logits_V, allowed_V))


def test_bans_give_way_where_they_leave_nothing_that_is_allowed():
    # Reddens with a ban, or min_new_tokens, that leaves only -inf.
    history = History(*(jnp.asarray(value, jnp.int32) for value in ([[1]], [1], [1], [0])))
    logits_BV, keys = jnp.asarray([[5.0, 4.0, 3.0, 2.0]]), jax.random.split(jax.random.key(0), 1)
    for sampler in (Sampler(0.0, banned=(2,)), Sampler(banned=(2,)), Sampler(min_new_tokens=3)):
        allowed_BV = jnp.asarray([[False, False, True, False]])
        assert draw(sampler, logits_BV, keys, history, allowed_BV=allowed_BV, stop_id=2).tolist() == [2]
    allowed_BV = jnp.asarray([[False, False, True, True]])
    assert draw(Sampler(banned=(2,)), logits_BV, keys, history, allowed_BV=allowed_BV).tolist() == [3]


def test_a_sampler_with_a_history_is_not_drawn_without():
    with pytest.raises(ValueError, match="history"):
        sampling.draw(Sampler(presence_penalty=1.0), jnp.zeros((1, 4)), jax.random.split(jax.random.key(0), 1), None)
    assert Sampler(0.5, top_k=3, top_p=0.5, min_p=0.1, logit_bias=((1, 1.0),), banned=(1,)).plain
    for options in ({"repetition_penalty": 1.1}, {"forced": ((0, 1),)}, {"min_new_tokens": 1}):
        assert not Sampler(**options).plain


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


@pytest.mark.parametrize("sampler", [Sampler(0.0), Sampler(1.0), Sampler(5.0, top_k=9, top_p=0.99)], ids=name)
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
    ({"min_p": -0.1}, "min_p"), ({"min_p": 1.1}, "min_p"), ({"min_p": float("nan")}, "min_p"),
    ({"repetition_penalty": 0.0}, "repetition_penalty"), ({"repetition_penalty": float("inf")}, "repetition_penalty"),
    ({"frequency_penalty": float("nan")}, "frequency_penalty"), ({"presence_penalty": 1e9}, "presence_penalty"),
    ({"logit_bias": ((1, 2.0), (1, 3.0))}, "logit_bias has the id 1 twice"), ({"logit_bias": ((-1, 2.0),)}, "id -1"),
    ({"logit_bias": ((1, float("-inf")),)}, "logit_bias of id 1"), ({"banned": (-3,)}, "banned has the id -3"),
    ({"banned": (3, 3)}, "banned has the id 3 twice"), ({"forced": ((0, 1), (0, 2))}, "new token 0 twice"),
    ({"forced": ((-1, 1),)}, "new token -1"), ({"forced": ((0, -1),)}, "id -1"),
    ({"forced": ((0, 4),), "banned": (4,)}, "banned"), ({"min_new_tokens": -1}, "min_new_tokens"),
])
def test_wrong_rules_are_refused(fields, word):
    with pytest.raises(UserError, match=word) as error:
        Sampler(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fields", [{"logit_bias": ((4, 1.0),)}, {"banned": (4,)}, {"forced": ((0, 4),)},
                                    {"banned": (0, 1, 2, 3)}], ids=str)
def test_ids_are_checked_against_the_vocabulary(fields):
    check_ids(Sampler(**fields), 5)
    with pytest.raises(UserError, match=next(iter(fields))):
        check_ids(Sampler(**fields), 4)
