from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import loss_and_gradient, random_params, small, tokens

from purelm.errors import UserError
from purelm.models.attention_forms import naive_attention, splash_attention
from purelm.models.choice import choose_implementation, obstacle
from purelm.models.context import AttentionContext, attention_mask

CALL = {"num_tokens": 128, "cached": False, "collect": False, "training": True}


def heads(config, batch, length, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    size, shared = config.head_size, config.num_kv_heads
    query_BTNH = jax.random.normal(keys[0], (batch, length, config.num_heads, size))
    return query_BTNH, *(jax.random.normal(key, (batch, shared, length, size)) for key in keys[1:])


@pytest.mark.parametrize("changes", [
    {"positions": "rope", "num_kv_heads": 2}, {"positions": "alibi", "attention_window": 3}, {"positions": "t5"},
    {"attention_scale": 0.7, "num_kv_heads": 1}], ids=str)
def test_xla_equals_naive(changes):
    configs = [small(attention_implementation=form, **changes) for form in ("naive", "xla")]
    params = random_params(configs[0])
    (one, one_gradient), (other, other_gradient) = (loss_and_gradient(c, params, tokens()) for c in configs)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one_gradient, other_gradient)


def test_mask_is_what_its_words_say():
    # Brute force over the definition: reddens on an off-by-one in the window or on a query row without the start.
    config = small(attention_window=3)
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 0, 0]])
    mask_BTS = attention_mask(config, jnp.arange(8), 8, segments)
    expected = [[j <= i < j + 3 and segments[0, i] == segments[0, j] for j in range(8)] for i in range(8)]
    np.testing.assert_array_equal(mask_BTS[0], expected)
    cached = attention_mask(config, jnp.arange(2) + 5, 8, None)
    np.testing.assert_array_equal(cached[0], [[3 <= j <= 5 for j in range(8)], [4 <= j <= 6 for j in range(8)]])


def test_sink_takes_part_of_the_softmax_and_reads_nothing():
    config = small(attention_sink=True, head_size=4, num_kv_heads=4)
    query, key, value = heads(config, 2, 6)
    sink_N = jnp.array([0.0, 1.0, -50.0, 3.0])
    y, weights = naive_attention(config, query, key, value, AttentionContext(), sink_N, None)
    scores = jnp.einsum("BTNH,BNSH->BNTS", query, key) / 2
    with_sink = jnp.concatenate([scores, jnp.broadcast_to(sink_N[:, None, None], (2, 4, 6, 1))], axis=-1)
    expected = jax.nn.softmax(with_sink, axis=-1)[..., :-1]
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, jnp.einsum("BNTS,BNSH->BTNH", expected, value), rtol=1e-5, atol=1e-5)


def test_softcap_bounds_the_scores_before_the_mask():
    config = small(attention_softcap=0.5, head_size=4, num_kv_heads=4)
    query, key, value = heads(config, 1, 6)
    context = AttentionContext(mask_BTS=attention_mask(config, jnp.arange(6), 6, None))
    _, weights = naive_attention(config, 100 * query, key, value, context, None, None)
    seen = np.tril(np.ones((6, 6), bool))
    assert (weights[0, :, ~seen] == 0).all()
    assert (weights[0, :, 5].max(axis=-1) / weights[0, :, 5].min(axis=-1) < np.exp(2 * 0.5) + 1e-3).all()


@pytest.mark.parametrize("changes", [{}, {"attention_window": 40}, {"attention_softcap": 1.5}], ids=str)
def test_splash_equals_naive_in_the_interpreter(changes):
    config = small(head_size=128, num_heads=2, num_kv_heads=1, **changes)
    inputs = heads(config, 2, 128)
    segments = jnp.repeat(jnp.array([[1, 1, 1, 2], [1, 2, 3, 3]]), 32, axis=1)
    mask = AttentionContext(mask_BTS=attention_mask(config, jnp.arange(128), 128, segments))
    context = AttentionContext(implementation="splash", segments_BT=segments)

    def total(function, context, *inputs, **options):
        y = function(config, *inputs, context, *options.pop("rest", ()), **options)
        y_BTNH = y[0] if isinstance(y, tuple) else y
        return jnp.sum(jnp.sin(y_BTNH)), y_BTNH

    naive = jax.value_and_grad(lambda *x: total(naive_attention, mask, *x, rest=(None, None)), (0, 1, 2), has_aux=True)
    splash = jax.value_and_grad(
        lambda *x: total(splash_attention, context, *x, interpret=True), (0, 1, 2), has_aux=True)
    (_, expected), expected_gradients = naive(*inputs)
    (_, actual), gradients = splash(*inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    for a, b in zip(gradients, expected_gradients):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


REFUSED = [
    ({"attention_implementation": "splash"}, "needs a TPU, not cpu"),
    ({"attention_implementation": "cudnn"}, "needs a GPU, not cpu"),
    ({"attention_implementation": "xla", "attention_softcap": 1.0}, "has no softcap"),
    ({"attention_implementation": "xla", "attention_sink": True}, "has no attention sinks"),
    ({"attention_implementation": "cudnn", "attention_dropout": 0.1}, "has no attention dropout"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=str)
def test_a_form_asked_for_by_name_that_cannot_is_refused(changes, message):
    with pytest.raises(UserError, match=f"attention_implementation={changes['attention_implementation']} .*{message}"):
        choose_implementation(small(**changes), **CALL)


def test_auto_takes_the_form_of_the_device(monkeypatch):
    large = {"head_size": 128, "compute_dtype": "bfloat16"}
    for platform, form in (("cpu", "naive"), ("gpu", "cudnn"), ("tpu", "splash")):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        assert choose_implementation(small(**large), **CALL) == form
        assert choose_implementation(small(**large), **{**CALL, "cached": True}) == "naive"
        assert choose_implementation(small(**large), **{**CALL, "collect": True}) == "naive"
        assert choose_implementation(small(**large, attention_sink=True), **CALL) == "naive"
        assert choose_implementation(small(**large, attention_dropout=0.1), **CALL) == "naive"
        assert choose_implementation(small(**large, attention_dropout=0.1), **{**CALL, "training": False}) == form


@pytest.mark.parametrize(("form", "platform", "changes", "num_tokens"), [
    ("cudnn", "gpu", {"compute_dtype": "float32"}, 128), ("cudnn", "gpu", {"head_size": 12}, 128),
    ("cudnn", "gpu", {"head_size": 136}, 128), ("cudnn", "gpu", {}, 127), ("splash", "tpu", {"head_size": 64}, 128),
    ("splash", "tpu", {}, 100), ("splash", "tpu", {"positions": "alibi"}, 128),
    ("splash", "tpu", {"positions": "t5"}, 128),
])
def test_what_a_kernel_cannot_do_is_known(form, platform, changes, num_tokens):
    fits = small(head_size=128, compute_dtype="bfloat16")
    where = {"platform": platform, "training": True}
    assert obstacle(fits, form, num_tokens=128, **where) is None
    changed = small(**{"head_size": 128, "compute_dtype": "bfloat16", **changes})
    assert obstacle(changed, form, num_tokens=num_tokens, **where) is not None
