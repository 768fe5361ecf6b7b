"""Gradient descent inside a batch: the way it goes, and that the trainer's step is just that way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import Config, ModelConfig, OptimizerConfig, TrainingConfig
from purelm.config.schema import TaskConfig, WordVectorsConfig
from purelm.tasks.online import online_sums
from purelm.training.parallel.single import SingleEngine


def places(batch):
    return (batch["ids"],)


def sums(rows, batch):
    errors = rows[0] - batch["targets"]
    return jnp.sum(errors ** 2), jnp.float32(errors.shape[0])


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(0)
    batch = {"ids": random.integers(0, 5, (6, 3)).astype(np.int32),
             "targets": random.normal(size=(6, 3, 2)).astype(np.float32)}
    return (random.normal(size=(7, 2)).astype(np.float32),), batch


@pytest.mark.parametrize("part_rows,size", [(1, 1), (2, 2), (4, 3), (100, 6), (0, 1)])
def test_the_gradient_is_the_way_of_the_parts(case, part_rows, size):
    # Reddens where a part reads the tables as they were, or a repeated row counts once.
    (table,), batch = case
    rate, moved, loss = 0.1, table.astype(np.float64), 0.0
    for first in range(0, 6, size):
        ids, targets = batch["ids"][first:first + size], batch["targets"][first:first + size]
        errors = moved[ids] - targets
        loss += (errors ** 2).sum()
        np.subtract.at(moved, ids, rate * 2 * errors)
    (value, weight), pull = jax.vjp(lambda t: online_sums(places, sums, rate, part_rows, t, batch), (table,))
    (gradient,), = pull((jnp.float32(1), jnp.float32(0)))
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    np.testing.assert_allclose(table - rate * gradient / weight, moved, atol=1e-5)


def test_without_a_gradient_nothing_moves(case):  # what validation reports is the loss of the tables as they are
    (table,), batch = case
    value, weight = online_sums(places, sums, 0.1, 1, (table,), batch)
    np.testing.assert_allclose(value, ((table[batch["ids"]] - batch["targets"]) ** 2).sum(), rtol=1e-5)
    assert weight == 6


@pytest.mark.parametrize("method", ["skip_gram", "cbow"])
def test_one_step_of_the_trainer_is_word2vecs(method):
    """Block by block with numpy; CBOW's neighbors move by the mean's whole error, as in word2vec.c."""
    config = Config(
        model=ModelConfig(architecture="word_vectors", vocabulary_size=9, context_length=512, width=4),
        task=TaskConfig(name="word_vectors"), word_vectors=WordVectorsConfig(method=method, window=2, negatives=3),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.01, momentum=0.0, schedule="constant", warmup="0"),
        training=TrainingConfig(num_steps=1, batch_size=2))
    random = np.random.default_rng(0)
    batch = {"words": random.integers(0, 9, (2, 516)), "left": random.integers(0, 3, (2, 512)),
             "right": random.integers(0, 3, (2, 512)), "negatives": random.integers(0, 9, (2, 512))}
    batch = {name: leaf.astype(np.int32) for name, leaf in batch.items()}
    batch["left"][:, 40:] = batch["right"][:, 40:] = 0  # few pairs, so that numpy is done soon
    engine = SingleEngine(config, jax.devices())
    state = engine.init(0)
    x, y = (np.array(state.params[name]["embedding"], np.float64) for name in ("input", "output"))
    state, result = engine.train_step(state, batch)
    pairs = 0
    for words, left, right, negatives in zip(*(batch[n] for n in ("words", "left", "right", "negatives"))):
        dx, dy = np.zeros_like(x), np.zeros_like(y)
        for t in range(40):
            center, near = words[2 + t], [words[s] for s in range(2 + t - left[t], 3 + t + right[t]) if s != 2 + t]
            asked = [([center], x[center], word) for word in near] if method == "skip_gram" else (
                [(near, x[near].mean(0), center)] if near else [])
            for movers, hidden, target in asked:
                pairs += 1
                targets = np.concatenate([[target], negatives])
                pull = np.where(np.arange(513) == 0, 1.0, 0.0) - 1 / (1 + np.exp(-y[targets] @ hidden))
                pull *= np.where(np.arange(513) == 0, 1.0, 3 / 512)
                np.add.at(dx, movers, pull @ y[targets])
                np.add.at(dy, targets, pull[:, None] * hidden)
        x, y = x + 0.01 * dx, y + 0.01 * dy
    assert float(result["weight"]) == pairs
    np.testing.assert_allclose(state.params["input"]["embedding"], x, atol=1e-5)
    np.testing.assert_allclose(state.params["output"]["embedding"], y, atol=1e-5)
