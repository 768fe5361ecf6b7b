"""Switches that published checkpoints need, against the same network written out in NumPy."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import any_params, jit, logits, small, tokens

from purelm.models import PagedCache, Transformer, init_cache, init_pages, parameter_shapes, unstack_layers
from purelm.models.classifier import Classifier

# Reddens with: a bias that stands where its switch says none; a scale without its 1, or one drawn about 1 beside it; a
# norm before the sublayer too, or after the sum; both parallel sublayers by one norm, or the second by the first's sum;
# erf for tanh; the table read at the position itself; sines by turns; a projection left out on either side.
ROWS = [
    {"query_key_value_bias": False},
    {"bias": False, "query_key_value_bias": True, "norm_offset": True},
    {"attention_output_bias": False, "norm_place": "output"},
    {"feed_forward_bias": False, "feed_forward": "geglu_tanh", "feed_forward_width": 24},
    {"bias": False, "feed_forward_bias": True, "norm_bias": True, "position_offset": 2},
    {"norm_bias": False, "parallel_block": True, "parallel_norms": "separate"},
    {"positions": "sinusoidal", "sinusoidal_halves": True, "norm": "rms_norm", "norm_offset": True},
    {"embedding_width": 6},
    {"embedding_width": 6, "tied_embeddings": False, "parallel_block": True, "norm_place": "output"},
]


def linear(module, x):
    return x @ module["kernel"] + module.get("bias", 0)


def norm(config, module, x):
    centered = x - (x.mean(-1, keepdims=True) if config.norm == "layer_norm" else 0)
    y = centered / np.sqrt((centered ** 2).mean(-1, keepdims=True) + config.norm_epsilon)
    return y * (module["scale"] + config.norm_offset) + module.get("bias", 0)


def attention(module, x):
    query, key, value = (linear(module[name], x).reshape(*x.shape[:2], 4, 4).swapaxes(1, 2)
                         for name in ("query", "key", "value"))
    scores = np.where(np.tri(x.shape[1]), query @ key.swapaxes(2, 3) / 2, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return linear(module["output"], (weights / weights.sum(-1, keepdims=True) @ value).swapaxes(1, 2).reshape(x.shape))


def feed_forward(module, x):
    up = linear(module["up"], x)
    if "gate" in module:
        gate = linear(module["gate"], x)
        return linear(module["down"], up * gate * (1 + np.tanh((gate + 0.044715 * gate ** 3) * (2 / np.pi) ** 0.5)) / 2)
    return linear(module["down"], up * (1 + np.vectorize(math.erf)(up / 2 ** 0.5)) / 2)


def block(config, layer, x):
    def branch(name, sublayer, x):
        module = layer["attention" if name == "attention" else "feed_forward"]
        if config.norm_place == "output":
            return norm(config, layer[f"{name}_output_norm"], sublayer(module, x))
        return sublayer(module, norm(config, layer[f"{name}_norm"], x))

    first = x + branch("attention", attention, x)
    return first + branch("feed_forward", feed_forward, x if config.parallel_block else first)


def written_out(config, params, tokens_BT):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    table, number = params["embedding"]["embedding"], np.arange(tokens_BT.shape[1])
    x = table[tokens_BT]
    if config.embedding_width is not None:
        x = x @ params["embedding_projection"]["kernel"]
    if config.positions == "learned":
        x = x + params["positions"]["embedding"][number + config.position_offset]
    else:
        angles = number[:, None] / 10_000 ** (np.arange(8) / 8)
        x = x + np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    for i in range(2):
        x = block(config, jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]), x)
    x = norm(config, params["final_norm"], x)
    if not config.tied_embeddings:
        return x @ params["head"]["kernel"]
    if config.embedding_width is not None:
        x = x @ params["head_projection"]["kernel"]
    return x @ table.T


@pytest.mark.parametrize("changes", ROWS, ids=str)
def test_logits_are_those_of_the_network_written_out(changes):
    config = small(**changes)
    params = any_params(config)
    assert params["positions"]["embedding"].shape[0] == 16 + config.position_offset if "positions" in params else True
    np.testing.assert_allclose(logits(config, params, tokens()), written_out(config, params, np.asarray(tokens())),
                               rtol=1e-4, atol=1e-4)


def biases(**changes):
    paths = jax.tree_util.tree_leaves_with_path(parameter_shapes(small(positions="rope", **changes)))
    names = [jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("layers/") for path, _ in paths]
    return {name.removesuffix("/bias") for name in names if name.endswith("bias")}


def test_each_kind_of_bias_has_its_switch():
    # Reddens where a layer reads another's switch.
    kinds = {"query_key_value_bias": {"attention/query", "attention/key", "attention/value"},
             "attention_output_bias": {"attention/output"},
             "feed_forward_bias": {"feed_forward/up", "feed_forward/gate", "feed_forward/down"},
             "norm_bias": {"attention_norm", "feed_forward_norm", "final_norm", "head_transform_norm"}}
    model = {"feed_forward": "geglu_tanh", "head_transform": True}
    every = set().union(*kinds.values())
    assert biases(**model) == every | {"head_transform"}
    assert biases(**model, bias=False) == set()
    for switch, names in kinds.items():
        assert biases(**model, bias=False, **{switch: True}) == names
        assert biases(**model, **{switch: False}) == (every | {"head_transform"}) - names


def test_scales_with_an_offset_start_at_zero_and_the_model_where_it_was():
    plain, offset = ({"norm": "rms_norm", "qk_norm": True, "norm_offset": value} for value in (False, True))
    params = [Transformer(small(**changes)).init(jax.random.key(0), tokens())["params"] for changes in (plain, offset)]
    for one, other in zip(*map(jax.tree_util.tree_leaves_with_path, params)):
        np.testing.assert_array_equal(one[1] - (one[0][-1].key == "scale"), other[1])
    one, other = (logits(small(**changes), values, tokens()) for changes, values in zip((plain, offset), params))
    np.testing.assert_array_equal(one, other)


@jit
def read(config, params, tokens_BT, cache):
    output = Transformer(config).apply({"params": params}, tokens_BT, cache=cache)
    return output.logits_BTV, output.cache


def test_caches_equal_the_full_forward():
    # Reddens where a cache counts a learned position without its offset.
    config = small(position_offset=2, norm_place="output", embedding_width=6, query_key_value_bias=False)
    params, tokens_BT = any_params(config), tokens()
    full = logits(config, params, tokens_BT)
    keys, values = init_pages(config, 9, 4)
    paged = PagedCache(keys, values, jnp.arange(1, 9, dtype=jnp.int32).reshape(2, 4), jnp.zeros(2, jnp.int32))
    for cache in (init_cache(config, 2, 16), paged):
        first, cache = read(config, unstack_layers(params), tokens_BT[:, :7], cache)
        second, _ = read(config, unstack_layers(params), tokens_BT[:, 7:], cache)
        np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), full, rtol=2e-5, atol=2e-5)


def test_encoder_and_decoder_share_a_factorized_table():
    # Reddens where the encoder projects by a matrix of its own, or not at all.
    config = small(architecture="encoder_decoder", embedding_width=6, positions="none")
    params = any_params(config)
    assert "embedding_projection" not in params["encoder"]
    own = small(architecture="encoder", embedding_width=6, positions="none")
    alone = {**params["encoder"], **{name: params[name] for name in ("embedding", "embedding_projection")}}
    encoded = Transformer(config).apply({"params": params}, tokens(), method="encode").features_BSD
    expected = Transformer(own).apply({"params": alone}, tokens(), method="features").logits_BTV
    np.testing.assert_allclose(encoded, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "activation"), [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))])
def test_pooling_transform_is_a_layer_before_the_dropout(name, activation):
    config = small(pooling="first", pooling_transform=name, num_classes=3, classifier_dropout=0.5)
    x = jax.random.normal(jax.random.key(0), (4, 5, 8))
    params = Classifier(config).init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(2), leaf.shape), params)
    transform, output = params["transform"], params["output"]
    assert transform["kernel"].shape == (8, 8)
    hidden = activation(x[:, 0] @ transform["kernel"] + transform["bias"])
    found, _ = Classifier(config).apply({"params": params}, x)
    np.testing.assert_allclose(found, hidden @ output["kernel"] + output["bias"], rtol=1e-5, atol=1e-5)
    rngs = {"dropout": jax.random.key(3)}
    dropped, _ = Classifier(config).apply({"params": params}, x, deterministic=False, rngs=rngs)
    # What is left of the transformed vector is 0 or doubled: all combinations of it, of which the logits must be one.
    masks = np.array(np.meshgrid(*[[0, 2]] * 8)).reshape(8, -1).T
    possible = (masks[None] * np.asarray(hidden)[:, None]) @ np.asarray(output["kernel"]) + np.asarray(output["bias"])
    assert (np.abs(possible - np.asarray(dropped)[:, None]).max(axis=-1).min(axis=-1) < 1e-4).all()
    assert np.abs(dropped - found).max() > 1e-3
