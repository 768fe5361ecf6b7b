"""Quantized weights against qwix's rounding, products against the dequantized matrix, whole models within rounding."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.models import Transformer, init_cache, make_model, quantization, unstack_layers
from purelm.models.quantization import KINDS, Quantized, dequantize, product, quantize, quantize_params, take_rows

CONFIG = ModelConfig(vocabulary_size=67, context_length=16, num_layers=2, width=32, num_heads=4)
# Half a step of the largest value's scale, in standard deviations of a normal matrix of this size.
ERRORS = {16: 0.01, 8: 0.02, 4: 0.3}


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens_BT, cache=None):
    model, inputs = Transformer(config), {"cache": cache}
    if config.architecture == "encoder_decoder":
        inputs["encoded"] = model.apply({"params": params}, tokens_BT, method="encode")
    output = model.apply({"params": params}, tokens_BT, **inputs)
    return output.logits_BTV, output.cache


def matrix(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_rounding_is_to_the_nearest_level(bits):
    # Reddens with: a scale of the wrong axis or levels, floor in place of round, halves of a group exchanged.
    whole = matrix(128, 24)
    stored = quantize(whole, bits, axis=0)
    error = np.abs(np.asarray(dequantize(stored, jnp.float32) - whole))
    assert 0 < error.max() < ERRORS[bits]
    if bits == 8:
        assert (error <= np.asarray(stored.scales) / 2 * 1.0001).all()
    if bits == 4:
        scales = np.repeat(np.asarray(stored.scales), 64, axis=0)
        assert (error <= scales / 2 * 1.0001).all() and stored.values.nbytes * 8 == whole.nbytes
    assert jax.tree.map(jnp.shape, quantize(whole[None].repeat(3, 0), bits, axis=0).values) == (3, *stored.values.shape)


@pytest.mark.parametrize("bits", [8, 4])
def test_levels_are_those_of_qwix(bits):
    qwix = pytest.importorskip("qwix")
    whole = matrix(128, 24)
    theirs = qwix.quantize(whole, "int8" if bits == 8 else "int4", channelwise_axes=(1,),
                           tiled_axes=None if bits == 8 else {0: 64})
    difference = dequantize(quantize(whole, bits, axis=0), jnp.float32) - qwix.dequantize(theirs)
    # qwix spreads int8 over 127.5 levels and int4 over 7.5, so values differ by up to a level there.
    assert np.abs(np.asarray(difference)).max() <= 1.01 * np.abs(np.asarray(theirs.scale)).max()


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_products_are_those_of_the_dequantized_matrix(bits, rows, monkeypatch):
    # Reddens with: a tile lost or read twice, scales of another tile.
    monkeypatch.setattr(quantization, "_TILE_SIZE", 64 * 24)
    x = matrix(rows, 192)
    stored = quantize(matrix(192, 24), bits, axis=0)
    assert quantization._tile(stored) == 64
    np.testing.assert_allclose(product(x, stored), x @ dequantize(stored, jnp.float32), atol=1e-4)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("bits", [16, 8])
def test_products_and_rows_of_a_table(bits, rows, monkeypatch):
    # 101 entries in tiles of 4 * 64 * 3 / 48 = 16: the last tile overlaps the one before.
    monkeypatch.setattr(quantization, "_TILE_SIZE", 64 * 3)
    table, x = quantize(matrix(101, 48), bits, axis=1), matrix(rows, 48)
    whole = dequantize(table, jnp.float32)
    np.testing.assert_allclose(product(x, table), x @ whole.T, atol=1e-4)
    np.testing.assert_array_equal(take_rows(table, jnp.array([[3, 100]])), whole[jnp.array([[3, 100]])])


@pytest.mark.parametrize("fields", [{}, {"tied_embeddings": False, "feed_forward": "swiglu", "norm": "rms_norm"},
                                    {"scan_layers": True},
                                    {"architecture": "encoder_decoder", "embedding_width": 16}], ids=str)
def test_a_model_with_quantized_weights(fields):
    # Reddens with: a matrix left out or dequantized wrongly, the cached form reading another matrix than the full one.
    config = dataclasses.replace(CONFIG, **fields)
    tokens_BT = jnp.asarray(np.random.default_rng(0).integers(0, 67, (2, 9)))
    params = jax.jit(make_model(config).init)(jax.random.key(0), tokens_BT)["params"]
    params = jax.tree.map(lambda leaf: leaf * 3, params)
    plain, errors = forward(config, params, tokens_BT)[0], {}
    for kind in KINDS:
        quantized = quantize_params(config, params, kind)
        count = len(jax.tree.leaves(quantized, is_leaf=lambda leaf: isinstance(leaf, Quantized)))
        assert count == len(jax.tree.leaves(params))
        errors[kind] = float(jnp.std(forward(config, quantized, tokens_BT)[0] - plain) / jnp.std(plain))
    assert 0 < errors["bfloat16"] < errors["int8"] < errors["int4"] < 0.3, errors
    if not fields:
        quantized = unstack_layers(quantize_params(config, params, "int4"))
        cache = init_cache(config, 2, 16)
        cache = forward(config, quantized, tokens_BT[:, :5], cache)[1]
        cached_BTV = forward(config, quantized, tokens_BT[:, 5:], cache)[0]
        np.testing.assert_allclose(cached_BTV, forward(config, quantized, tokens_BT)[0][:, 5:], atol=1e-4)


def test_what_cannot_be_quantized():
    with pytest.raises(UserError, match="quantize=int3: choose one of bfloat16, int8, int4"):
        quantize_params(CONFIG, {}, "int3")
    with pytest.raises(UserError, match="architecture=recurrent has no quantized form"):
        quantize_params(dataclasses.replace(CONFIG, architecture="recurrent"), {}, "int8")
    with pytest.raises(UserError, match="33 inputs, an odd number"):
        quantize(jnp.ones((33, 4)), 4, axis=0)
