"""A model small enough to compile quickly, and jitted functions of it that all tests here share."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.models import Transformer, parameter_shapes

POSITIONS = ("none", "learned", "sinusoidal", "rope", "alibi", "t5")
# Compiling is most of these tests' time; what is compiled runs for milliseconds.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, static_argnums=0, compiler_options=QUICKLY)
BASE = ModelConfig(vocabulary_size=29, context_length=16, num_layers=2, width=16, num_heads=4)


def first_quick(number: int, cases):
    """The cases, of which those after the first `number` are for `make test-all`."""
    return [case if i < number else pytest.param(case, marks=pytest.mark.slow) for i, case in enumerate(cases)]


def small(**changes) -> ModelConfig:
    return dataclasses.replace(BASE, **changes)


@jit
def init(config: ModelConfig, key: jax.Array):
    return Transformer(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def random_params(config: ModelConfig, seed: int = 0, scale: float = 0.3):
    """Initial values plus noise, so that biases, scales, sinks and zero matrices matter."""
    params = init(config, jax.random.key(seed))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return jax.tree.unflatten(
        structure, [leaf + scale * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys)])


def any_params(config: ModelConfig, seed: int = 0, scale: float = 0.3):
    """Random numbers, scales about 1, without the compilation that initial values take."""
    draw = np.random.default_rng(seed)

    def leaf(path, shape):
        values = scale * draw.standard_normal(shape.shape)
        return jnp.asarray(values + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


def tokens(batch: int = 2, length: int = 12, seed: int = 3) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (batch, length), 0, BASE.vocabulary_size)


@jit
def logits(config: ModelConfig, params, tokens_BT, positions_BT=None, segments_BT=None):
    inputs = {"positions_BT": positions_BT, "segments_BT": segments_BT}
    return Transformer(config).apply({"params": params}, tokens_BT, **inputs).logits_BTV


@jit
def training_logits(config: ModelConfig, params, tokens_BT, key):
    model = Transformer(config)
    return model.apply({"params": params}, tokens_BT, deterministic=False, rngs={"dropout": key}).logits_BTV


def loss(config: ModelConfig, params, tokens_BT, key=None):
    """Mean cross-entropy of the next token."""
    inputs = {} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
    logits_BTV = Transformer(config).apply({"params": params}, tokens_BT, **inputs).logits_BTV[:, :-1]
    log_probability = jax.nn.log_softmax(logits_BTV)
    return -jnp.mean(jnp.take_along_axis(log_probability, tokens_BT[:, 1:, None], axis=-1))


loss_and_gradient = jit(jax.value_and_grad(loss, argnums=1))


def encoder_decoder(**changes) -> ModelConfig:
    return small(architecture="encoder_decoder", **changes)


def translated(config: ModelConfig, params, source_BS, source_segments_BS, tokens_BT, **inputs):
    """Output of an encoder-decoder."""
    model, variables = Transformer(config), {"params": params}
    deterministic, rngs = inputs.get("deterministic", True), inputs.pop("rngs", {})
    encoded = model.apply(variables, source_BS, source_segments_BS=source_segments_BS, deterministic=deterministic,
                          rngs=rngs, method="encode")
    return model.apply(variables, tokens_BT, encoded=encoded, rngs=rngs, **inputs)


@jit
def translation_logits(config: ModelConfig, params, source_BS, source_segments_BS, tokens_BT):
    return translated(config, params, source_BS, source_segments_BS, tokens_BT).logits_BTV


SOURCE_SEGMENTS = jnp.array([[1] * 7, [1] * 5 + [0] * 2])


def source(seed: int = 4) -> jax.Array:
    return tokens(2, 7, seed)
