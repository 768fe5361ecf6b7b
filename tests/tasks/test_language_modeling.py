"""The task's sums of the real model."""

import dataclasses

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TrainingConfig
from purelm.tasks import language_modeling


def make_config(training=None, data=None, **model):
    model = {"context_length": 8, "num_layers": 1, "width": 16, "num_heads": 2, "vocabulary_size": 30} | model
    return Config(model=ModelConfig(**model), data=DataConfig(**(data or {})),
                  training=TrainingConfig(num_steps=4, batch_size=3, **(training or {})))


def make_batch(config):
    random = np.random.default_rng(0)
    tokens = random.integers(0, config.model.vocabulary_size, (3, 9)).astype(np.int32)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:],
            "weights": random.integers(0, 2, (3, 8)).astype(np.float32),
            "segments": np.ones((3, 8), np.int32), "positions": np.tile(np.arange(8, dtype=np.int32), (3, 1))}


def gradient(config, params, batch):
    def loss(params):
        sums = language_modeling.loss_sums(config, params, batch, None)
        return sums["loss"], sums

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


@pytest.mark.parametrize("model", [
    {}, {"tied_embeddings": False, "logits_softcap": 3.0},
    {"head_bias": True, "head_transform": True, "head_scale": "inverse_sqrt_width"}])
def test_chunked_loss_equals_whole(model):
    # Reddens where the chunked path forgets the softcap or the bias, or takes another head than the logits do.
    training = {"label_smoothing": 0.1, "z_loss": 0.01}
    config = make_config(training, **model)
    params, batch = language_modeling.initialize(config, jax.random.key(0)), make_batch(config)
    params = jax.tree.map(lambda leaf: 5 * leaf + 0.1, params)  # so that the softcap bends, and biases are not zero
    close(gradient(config, params, batch), gradient(make_config(training | {"loss_chunk": 13}, **model), params, batch))


def test_a_target_of_weight_zero_counts_for_nothing():
    config = make_config()
    params, batch = language_modeling.initialize(config, jax.random.key(0)), make_batch(config)
    other = np.where(batch["weights"] == 0, (batch["targets"] + 1) % 30, batch["targets"])
    assert (other != batch["targets"]).any()
    close(gradient(config, params, batch), gradient(config, params, batch | {"targets": other}))


def test_stream_and_documents_agree_on_whole_windows_and_only_there():
    config, stream = make_config(), make_config(data={"packing": "stream"})
    params, batch = language_modeling.initialize(config, jax.random.key(0)), make_batch(config)
    close(gradient(config, params, batch), gradient(stream, params, batch))
    segments = batch | {"segments": np.where(np.arange(8) < 4, 1, 2) * np.ones((3, 1), np.int32)}
    before, after = (language_modeling.loss_sums(config, params, b, None)["loss"] for b in (batch, segments))
    assert before != after


@pytest.mark.parametrize("change", [{"label_smoothing": 0.1}, {"z_loss": 0.1}])
def test_only_the_objective_is_smoothed(change):
    config = make_config()
    params, batch = language_modeling.initialize(config, jax.random.key(0)), make_batch(config)
    changed = dataclasses.replace(config, training=dataclasses.replace(config.training, **change))
    before, after = (language_modeling.loss_sums(c, params, batch, None) for c in (config, changed))
    assert before["loss"] == before["cross_entropy"] == after["cross_entropy"] != after["loss"]


def test_dropout_needs_a_key():
    config = make_config(residual_dropout=0.5)
    params, batch = language_modeling.initialize(config, jax.random.key(0)), make_batch(config)
    still, again, one, two = (language_modeling.loss_sums(config, params, batch, key)["loss"]
                              for key in (None, None, jax.random.key(1), jax.random.key(2)))
    assert still == again and len({float(still), float(one), float(two)}) == 3
