"""Queries and keys normalized over all heads at once, against the formula and in every way a key can be kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from small_models import any_params, jit, small, tokens

from purelm.models import Transformer
from purelm.models.attention import Attention
from purelm.models.context import AttentionContext

OPTIONS = {"qk_norm": True, "qk_norm_over": "all_heads", "num_kv_heads": 2, "norm": "rms_norm", "bias": False}


def test_all_heads_are_normalized_together():
    # Reddens when the mean is over a head, after the cut, or the scale is one head's.
    config = small(**OPTIONS, norm_epsilon=0.1)
    params = any_params(config)["layers"]["attention"]
    params = jax.tree.map(lambda leaf: leaf[0], params)
    assert params["query_norm"]["scale"].shape == (16,) and params["key_norm"]["scale"].shape == (8,)
    x_TD = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)

    def normalized(name):
        y = x_TD @ params[name]["kernel"]
        y = y / np.sqrt(np.mean(y ** 2, axis=-1, keepdims=True) + 0.1) * params[f"{name}_norm"]["scale"]
        return y.reshape(5, -1, 4)

    query, key, value = normalized("query"), normalized("key"), (x_TD @ params["value"]["kernel"]).reshape(5, 2, 4)
    weights = jax.nn.softmax(jnp.einsum("tnh,snh->nts", query, key.repeat(2, axis=1)) / 2, axis=-1)
    expected = jnp.einsum("nts,snh->tnh", weights, value.repeat(2, axis=1)).reshape(5, 16) @ params["output"]["kernel"]
    found, _, _ = Attention(config).apply({"params": params}, x_TD[None], AttentionContext(), None, deterministic=True)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)


@jit
def cross_keys(config, params, source_BSD):
    return Attention(config).apply({"params": params}, source_BSD, method="keys_values")[0]


def test_keys_of_a_source_are_normalized_too():
    config = small(**OPTIONS, architecture="encoder_decoder", norm_scale=False)
    params = jax.tree.map(lambda leaf: leaf[0], any_params(config)["layers"]["cross_attention"])
    key_BKSH = cross_keys(config, params, jax.random.normal(jax.random.key(0), (1, 7, 16)))
    np.testing.assert_allclose(jnp.mean(key_BKSH ** 2, axis=(1, 3)), 1, rtol=1e-3)


def test_a_model_with_it_trains():
    config = small(**OPTIONS, positions="rope")
    params = any_params(config)
    gradient = jax.jit(jax.grad(lambda p: Transformer(config).apply({"params": p}, tokens()).logits_BTV.var()))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["layers"]["attention"]))
