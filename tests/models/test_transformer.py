from __future__ import annotations

import dataclasses
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    POSITIONS,
    init,
    jit,
    logits,
    loss,
    loss_and_gradient,
    random_params,
    small,
    tokens,
    training_logits,
)

from purelm.errors import UserError
from purelm.models import Transformer, count_parameters, init_cache, parameter_shapes, unstack_layers


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


def embedding_gradients(config, probe, length=12):
    """|d logits at `probe` / d embedding of token i|, summed, for each i (tokens all different, head untied)."""
    params = random_params(config)

    return np.abs(probe_gradient(config, params, jnp.arange(length)[None], probe))[:length].sum(axis=-1)


@jit
def probe_gradient(config, params, tokens_BT, probe):
    def probed(table):
        changed = {"params": {**params, "embedding": {"embedding": table}}}
        return Transformer(config).apply(changed, tokens_BT).logits_BTV[0, probe].sum()

    return jax.grad(probed)(params["embedding"]["embedding"])


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradient_is_zero_after_the_probe_and_nowhere_before(positions):
    gradients = embedding_gradients(small(positions=positions, tied_embeddings=False), probe=7)
    assert (gradients[8:] == 0).all()  # reddens when the mask lets a later key through
    assert (gradients[:8] > 0).all()  # reddens when the mask hides an earlier key or the query itself


def test_window_is_the_number_of_keys_seen():
    config = small(positions="rope", tied_embeddings=False, num_layers=1, attention_window=3)
    gradients = embedding_gradients(config, probe=7)
    assert [i for i in range(12) if gradients[i] > 0] == [5, 6, 7]


@pytest.mark.parametrize("positions", POSITIONS)
def test_packed_documents_equal_each_alone(positions):
    config = small(positions=positions)
    params = random_params(config)
    first, second = tokens(1, 5, seed=5), tokens(1, 7, seed=6)
    packed = jnp.concatenate([first, second, jnp.zeros((1, 2), jnp.int32)], axis=1)
    segments = jnp.array([[1] * 5 + [2] * 7 + [0] * 2])
    places = jnp.array([[*range(5), *range(7), *range(2)]])
    together = logits(config, params, packed, places, segments)
    # Reddens when attention crosses segments, or positions go on from one document to the next.
    assert_close(together[:, :5], logits(config, params, first))
    assert_close(together[:, 5:12], logits(config, params, second))
    assert np.isfinite(together).all()  # padding attends to padding: no empty softmax


@jit
def cached_logits(config, params, tokens_BT, cache):
    return Transformer(config).apply({"params": params}, tokens_BT, cache=cache)[:2]


def decode(config, params, tokens_BT, chunks, capacity=16):
    cache = init_cache(config, tokens_BT.shape[0], capacity)
    outputs, start = [], 0
    for size in chunks:
        chunk_logits, cache = cached_logits(config, params, tokens_BT[:, start: start + size], cache)
        outputs.append(chunk_logits)
        start += size
    assert int(cache.length) == start
    return jnp.concatenate(outputs, axis=1)


CACHED = [{"positions": positions} for positions in POSITIONS] + [
    {"num_kv_heads": 2, "qk_norm": True, "positions": "rope"},
    {"num_kv_heads": 1, "attention_window": 4},
    {"attention_sink": True, "attention_softcap": 2.0},
    {"attention_implementation": "xla", "positions": "alibi", "attention_window": 5},
    {"layer_sharing": 2, "parallel_block": True},
    {"scan_layers": True, "norm_place": "sandwich"},
]


@pytest.mark.parametrize("changes", CACHED, ids=str)
def test_cached_logits_equal_the_full_forward(changes):
    config = small(**changes)
    params, tokens_BT = random_params(config), tokens(2, 12)
    full = logits(config, params, tokens_BT)
    # Reddens when the mask, a rotation or a bias does not start at the cache's length.
    assert_close(decode(config, unstack_layers(params), tokens_BT, [1] * 12), full, 2e-5)
    assert_close(decode(config, params, tokens_BT, [5, 1, 1, 5]), full, 2e-5)


def test_cache_is_a_loop_carry():
    config = small(positions="rope", num_kv_heads=2)
    params = random_params(config)

    def body(carry):
        cache, last_B1 = carry
        output = Transformer(config).apply({"params": params}, last_B1, cache=cache)
        return output.cache, jnp.argmax(output.logits_BTV, axis=-1)

    start = (init_cache(config, 1, 8), jnp.ones((1, 1), jnp.int32))
    decoded = jax.jit(lambda start: jax.lax.while_loop(lambda carry: carry[0].length < 6, body, start))
    loop = decoded.lower(start).compile()
    # Reddens when a layout makes XLA copy the cache at each step (once each, into the loop, is its due).
    assert len(re.findall(r"= f32\[2,8,4\]\S* copy\(", loop.as_text())) <= 4
    cache, _ = loop(start)
    assert int(cache.length) == 6 and np.any(cache.keys[1][:, 5]) and not np.any(cache.keys[1][:, 6])


@pytest.mark.parametrize(("remat", "layer_sharing"), [("none", 1), ("dots", 2), ("full", 1)])
def test_scan_and_remat_change_neither_loss_nor_gradients(remat, layer_sharing):
    # Dropout is on: reddens when the key of a layer depends on how the layers are applied.
    plain = small(
        num_layers=2 * layer_sharing, layer_sharing=layer_sharing, residual_dropout=0.2, feed_forward_dropout=0.2)
    params, tokens_BT, key = random_params(plain), tokens(), jax.random.key(9)
    expected = loss_and_gradient(plain, params, tokens_BT, key)
    for scan_layers in (False, True):
        changed = dataclasses.replace(plain, scan_layers=scan_layers, remat=remat)
        assert_close(loss_and_gradient(changed, params, tokens_BT, key), expected)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_remat_saves_less_for_the_backward_pass(scan_layers):
    def saved(remat):
        config = small(scan_layers=scan_layers, remat=remat)
        params = parameter_shapes(config)
        backward = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(config, p, tokens()), params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    # Reddens when two of the three are the same program.
    assert saved("full") < saved("dots") < saved("none")


def test_unstacked_layers_are_the_same_model():
    config = small()
    params = random_params(config)
    assert len(unstack_layers(params)["layers"]) == 2
    assert_close(logits(config, unstack_layers(params), tokens()), logits(config, params, tokens()))


def test_shared_layers_have_one_set_of_parameters():
    counts = [count_parameters(parameter_shapes(small(num_layers=4, layer_sharing=n))["layers"]) for n in (1, 2, 4)]
    assert counts[0] == 2 * counts[1] == 4 * counts[2]


def test_shared_layers_are_consecutive():
    config = small(num_layers=4, layer_sharing=2)
    params = random_params(config)
    repeated = {**params, "layers": jax.tree.map(lambda leaf: leaf[jnp.array([0, 0, 1, 1])], params["layers"])}
    unshared = dataclasses.replace(config, layer_sharing=1)
    assert_close(logits(config, params, tokens()), logits(unshared, repeated, tokens()))


def test_initial_values_depend_on_name_and_layer_alone():
    two = init(small(initialization="xavier"), jax.random.key(0))
    three = init(small(initialization="xavier", num_layers=3, positions="rope"), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), two["layers"], three["layers"])
    np.testing.assert_array_equal(two["embedding"]["embedding"], three["embedding"]["embedding"])
    kernels = [leaf for path, leaf in flax.traverse_util.flatten_dict(two["layers"]).items() if path[-1] == "kernel"]
    values = np.concatenate([np.ravel(kernel) for kernel in kernels])
    assert len(np.unique(values)) > 0.99 * len(values)  # reddens when two layers or matrices share a key


def test_hidden_times_head_kernel_is_logits():
    for changes in ({"logits_softcap": 3.0}, {"tied_embeddings": False, "norm_place": "post"}):
        config = small(**changes)
        variables = {"params": random_params(config)}
        hidden = Transformer(config).apply(variables, tokens(), method="hidden").logits_BTV
        product = hidden @ Transformer(config).apply(variables, method="head_kernel")
        cap = config.logits_softcap
        expected = product if cap is None else cap * jnp.tanh(product / cap)
        assert_close(logits(config, variables["params"], tokens()), expected)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_collected_intermediates(scan_layers):
    config = small(num_layers=4, layer_sharing=2, scan_layers=scan_layers, norm_place="post")
    params = random_params(config)
    output = jax.jit(lambda p: Transformer(config).apply({"params": p}, tokens(), collect=True))(params)
    collected = output.intermediates
    weights = collected["attention_weights_LBNTS"]
    assert weights.shape == (4, 2, 4, 12, 12) and collected["embedding_BTD"].shape == (2, 12, 16)
    assert_close(weights.sum(-1), np.ones(weights.shape[:-1]))
    assert (np.triu(weights, 1) == 0).all()
    residual = collected["residual_LBTD"]
    assert_close(collected["hidden_LBTD"], residual)  # post-norm has no final norm
    assert_close(residual[-1] @ params["embedding"]["embedding"].T, output.logits_BTV)
    assert not np.allclose(residual[0], residual[1])


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    config = small(compute_dtype="bfloat16")
    params, tokens_BT = random_params(config), tokens()
    value, gradient = loss_and_gradient(config, params, tokens_BT)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, gradient))} == {jnp.dtype("float32")}
    assert logits(config, params, tokens_BT).dtype == value.dtype == jnp.float32
    hidden = Transformer(config).apply({"params": params}, tokens_BT, method="hidden").logits_BTV
    assert hidden.dtype == jnp.bfloat16
    exact = loss(dataclasses.replace(config, compute_dtype="float32"), params, tokens_BT)
    assert 0 < abs(value - exact) < 0.1


def test_dropout_is_off_without_training_and_needs_a_key_with_it():
    config = small(attention_dropout=0.5, residual_dropout=0.5, embedding_dropout=0.5, feed_forward_dropout=0.5)
    params = random_params(config)
    assert_close(logits(config, params, tokens()), logits(small(), params, tokens()))
    one, same, other = (training_logits(config, params, tokens(), jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    with pytest.raises(flax.errors.InvalidRngError):
        Transformer(config).apply({"params": params}, tokens(), deterministic=False)


def test_calls_that_cannot_be_answered():
    config = small()
    params = {"params": parameter_shapes(config)}

    def call(length, **inputs):
        return jax.eval_shape(lambda p: Transformer(config).apply(p, tokens(1, length), **inputs), params)

    with pytest.raises(UserError, match="17 tokens do not fit config.model.context_length=16"):
        call(17)
    with pytest.raises(UserError, match="9 tokens do not fit a cache of 8"):
        call(9, cache=init_cache(config, 1, 8))
    with pytest.raises(UserError, match="segments_BT cannot be given with a cache"):
        call(2, cache=init_cache(config, 1, 8), segments_BT=jnp.ones((1, 2), jnp.int32))
    with pytest.raises(UserError, match="17 tokens do not fit"):
        init_cache(config, 1, 17)
