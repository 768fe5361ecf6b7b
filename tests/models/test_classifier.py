from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import small

from purelm.errors import UserError
from purelm.models.classifier import Classifier, Pooling, TokenClassifier

FEATURES = jax.random.normal(jax.random.key(0), (3, 6, 8))
# Left, right and inner padding of rows; the last row is padding alone.
SEGMENTS = jnp.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0] * 6])
ROWS = [slice(0, 4), slice(1, 6)]


def pool(kind, **changes):
    config = small(pooling=kind, initialization="xavier", **changes)
    variables = Pooling(config).init(jax.random.key(1), FEATURES, SEGMENTS)
    return variables, Pooling(config).apply(variables, FEATURES, SEGMENTS)


@pytest.mark.parametrize(("kind", "expected"), [
    ("first", lambda x: x[0]), ("last", lambda x: x[-1]), ("mean", lambda x: x.mean(axis=0)),
    ("max", lambda x: x.max(axis=0))])
def test_pooling_reads_the_real_tokens_alone(kind, expected):
    _, (pooled, weights) = pool(kind)
    for row, places in enumerate(ROWS):  # reddens when padding is read
        np.testing.assert_allclose(pooled[row], expected(np.asarray(FEATURES[row, places])), rtol=1e-6)
    assert weights is None
    assert np.isfinite(pooled).all()


def test_attention_pooling_is_the_formula():
    variables, (pooled, weights) = pool("attention")
    params = jax.tree.map(np.asarray, variables["params"])
    for row, places in enumerate(ROWS):
        x = np.asarray(FEATURES[row, places])
        scores = np.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"]) @ params["vector"]
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(weights[row, places], expected, rtol=1e-5)
        np.testing.assert_allclose(pooled[row], expected @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weights[:2][SEGMENTS[:2] == 0], 0.0)  # reddens when padding is attended to
    assert np.isfinite(pooled).all()


def test_last_of_both_directions_is_where_each_has_read_all():
    _, (pooled, _) = pool("last", architecture="recurrent", bidirectional=True)
    np.testing.assert_array_equal(pooled[0], np.concatenate([FEATURES[0, 3, :4], FEATURES[0, 0, 4:]]))
    np.testing.assert_array_equal(pooled[1], np.concatenate([FEATURES[1, 5, :4], FEATURES[1, 1, 4:]]))


def test_without_segments_all_tokens_are_real():
    pooled, _ = Pooling(small(pooling="mean")).apply({}, FEATURES, None)
    np.testing.assert_allclose(pooled, FEATURES.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_classifier_is_a_layer_on_the_pooled_vector():
    config = small(pooling="mean", num_classes=5, compute_dtype="bfloat16", param_dtype="bfloat16")
    variables = Classifier(config).init(jax.random.key(1), FEATURES, SEGMENTS)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), variables["params"]) == {
        "output": {"kernel": ((8, 5), "bfloat16"), "bias": ((5,), "bfloat16")}}
    logits, weights = Classifier(config).apply(variables, FEATURES, SEGMENTS)
    assert logits.shape == (3, 5)
    assert logits.dtype == jnp.float32
    assert weights is None


def test_every_parameter_of_a_classifier_gets_a_gradient():
    config = small(pooling="attention", num_classes=5)
    params = Classifier(config).init(jax.random.key(1), FEATURES, SEGMENTS)["params"]
    assert set(params) == {"pooling", "output"}
    gradient = jax.grad(lambda p: jnp.square(1 + Classifier(config).apply({"params": p}, FEATURES, SEGMENTS)[0]).sum())(
        params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("model", [Classifier, TokenClassifier])
def test_classifier_dropout_is_on_in_training_alone(model):
    def apply(rate, **arguments):
        config = small(num_classes=5, classifier_dropout=rate)
        variables = model(config).init(jax.random.key(1), FEATURES)
        output = model(config).apply(variables, FEATURES, **arguments)
        return output[0] if model is Classifier else output

    drawn = {"deterministic": False, "rngs": {"dropout": jax.random.key(2)}}
    np.testing.assert_array_equal(apply(0.5), apply(0.0))
    assert np.abs(apply(0.5, **drawn) - apply(0.5)).max() > 0
    np.testing.assert_array_equal(apply(0.0, **drawn), apply(0.0))


def test_token_classifier_answers_for_each_token():
    config = small(num_classes=5)
    variables = TokenClassifier(config).init(jax.random.key(1), FEATURES)
    logits = TokenClassifier(config).apply(variables, FEATURES)
    kernel, bias = variables["params"]["output"]["kernel"], variables["params"]["output"]["bias"]
    np.testing.assert_allclose(logits, FEATURES @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [Classifier, TokenClassifier])
def test_classes_must_be_counted(model):
    with pytest.raises(UserError, match="num_classes is none"):
        model(small()).init(jax.random.key(1), FEATURES)
