"""Normalization, computed in float32 whatever the type of the activations."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import has_bias
from purelm.models.dtypes import param_dtype


@jax.custom_jvp
def layer_norm(x: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) over the last axis, in float32 (Ba, Kiros & Hinton 2016, arXiv 1607.06450).

    Its derivative (by x; epsilon is a constant) is given in closed form, which XLA's CPU backend runs faster than the
    chain of means it derives.
    """
    return _layer_norm(x, epsilon)[0]


def _layer_norm(x: jax.Array, epsilon: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    x = x.astype(jnp.float32)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse_stddev = jax.lax.rsqrt(jnp.mean(jnp.square(centered), axis=-1, keepdims=True) + epsilon)
    return centered * inverse_stddev, inverse_stddev


@layer_norm.defjvp
def _layer_norm_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    y, inverse_stddev = _layer_norm(*primals)
    t = tangents[0].astype(jnp.float32) * inverse_stddev
    return y, t - jnp.mean(t, axis=-1, keepdims=True) - y * jnp.mean(y * t, axis=-1, keepdims=True)


@jax.custom_jvp
def rms_norm(x: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) over the last axis, in float32 (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    return _rms_norm(x, epsilon)[0]


def _rms_norm(x: jax.Array, epsilon: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    x = x.astype(jnp.float32)
    inverse_rms = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return x * inverse_rms, inverse_rms


@rms_norm.defjvp
def _rms_norm_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    y, inverse_rms = _rms_norm(*primals)
    t = tangents[0].astype(jnp.float32) * inverse_rms
    return y, t - y * jnp.mean(y * t, axis=-1, keepdims=True)


def _scale(module: nn.Module, shape: tuple[int, ...]) -> jax.Array:
    """What a norm with config.norm_scale multiplies by, float32; 1 at the start."""
    offset, dtype = module.config.norm_offset, param_dtype(module.config)
    scale = module.param("scale", nn.initializers.zeros if offset else nn.initializers.ones, shape, dtype)
    return scale.astype(jnp.float32) + 1 if offset else scale.astype(jnp.float32)


class Norm(nn.Module):
    """config.norm over the last axis: LayerNorm, RMSNorm or nothing; the result has the input's type.

    The learned scale comes with config.norm_scale (1 + the parameter with norm_offset: Gemma, 2024, arXiv 2403.08295),
    the bias with config.norm_bias, or config.bias where that is none (LayerNorm only).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        if config.norm == "none":
            return x
        normalize = layer_norm if config.norm == "layer_norm" else rms_norm
        y = normalize(x, config.norm_epsilon)
        shape = (x.shape[-1],)
        if config.norm_scale:
            y = y * _scale(self, shape)
        if config.norm == "layer_norm" and has_bias(config, config.norm_bias):
            y = y + self.param("bias", nn.initializers.zeros, shape, param_dtype(config)).astype(jnp.float32)
        return y.astype(x.dtype)


class HeadNorm(nn.Module):
    """RMSNorm of queries or keys over the last axis (QK-norm): the head size, one scale for all heads, or all heads.

    Henry et al. 2020, arXiv 2010.04245; with RMS and a learned scale as in Dehghani et al. 2023, arXiv 2302.05442,
    and Chameleon (2024), arXiv 2405.09818. Over all heads, before they are cut: OLMo 2 (2024), arXiv 2501.00656.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTNH: jax.Array) -> jax.Array:
        y_BTNH = rms_norm(x_BTNH, self.config.norm_epsilon)
        if self.config.norm_scale:
            y_BTNH = y_BTNH * _scale(self, (x_BTNH.shape[-1],))
        return y_BTNH.astype(x_BTNH.dtype)
