"""Position schemes, all functions of positions_BT: each token's index inside its segment."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import rotated_size
from purelm.models.dtypes import compute_dtype, param_dtype
from purelm.models.initialization import embedding_initializer
from purelm.models.rope_scaling import scaled_frequencies


def sinusoidal(positions_BT: jax.Array, width: int, *, halves: bool = False) -> jax.Array:
    """[B, T, width] float32: sin(p / 10000^(2i/width)) at 2i, cos of the same at 2i + 1 (Vaswani et al. 2017, 3.5).

    halves: at i and width / 2 + i, a permutation of it (tensor2tensor; Marian: Junczys-Dowmunt et al. 2018, arXiv
    1804.00344).
    """
    frequencies = 10_000.0 ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies
    parts = [jnp.sin(angles), jnp.cos(angles)]
    if halves:
        return jnp.concatenate(parts, axis=-1)
    return jnp.stack(parts, axis=-1).reshape(*positions_BT.shape, width)


class LearnedPositions(nn.Module):
    """positions_BT -> [B, T, D], a row of a table each (Gehring et al. 2017, arXiv 1705.03122).

    The table is [context_length + position_offset, D]; position p reads row p + position_offset.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, positions_BT: jax.Array) -> jax.Array:
        config = self.config
        shape = (config.context_length + config.position_offset, config.width)
        table = self.param("embedding", embedding_initializer(config), shape, param_dtype(config))
        rows_BT = positions_BT + config.position_offset if config.position_offset else positions_BT
        return jnp.take(table, rows_BT, axis=0, mode="clip").astype(compute_dtype(config))


def rotation(config: ModelConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [B, T, 1, R/2] float32 of RoPE's angles p * base^(-2i/R), R = rotated_size(config).

    Su et al. 2021, RoFormer, arXiv 2104.09864, equation 15. config.rope_scaling changes the angles, and with yarn
    multiplies both by a factor.
    """
    rotated = rotated_size(config)
    frequencies = config.rope_base ** (-jnp.arange(0, rotated, 2, dtype=jnp.float32) / rotated)
    frequencies, factor = scaled_frequencies(config, frequencies)
    angles = positions_BT[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return (cos, sin) if factor == 1 else (cos * factor, sin * factor)


def rotate(x_BTNH: jax.Array, cos_BT1R: jax.Array, sin_BT1R: jax.Array) -> jax.Array:
    """Rotary position embedding of the first 2R of each head's dimensions; the others pass unchanged.

    Dimension i turns with i + R ("rotate half", as in GPT-NeoX and Llama's Hugging Face weights), not with its
    neighbour as in the paper: a permutation of the head's dimensions.
    """
    half = cos_BT1R.shape[-1]
    x = x_BTNH.astype(jnp.float32)
    first, second, rest = x[..., :half], x[..., half: 2 * half], x[..., 2 * half:]
    turned = [first * cos_BT1R - second * sin_BT1R, second * cos_BT1R + first * sin_BT1R]
    return jnp.concatenate([*turned, rest], axis=-1).astype(x_BTNH.dtype)


def alibi_slopes(num_heads: int) -> list[float]:
    """One slope a head: 2^(-8 i / n), i = 1..n (Press, Smith & Lewis 2022, ICLR, arXiv 2108.12409).

    Where n is no power of two: the slopes of the power of two below, then every other slope of the power above, as
    in the authors' code.
    """
    below = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / below) for i in range(below)]
    return slopes + [2.0 ** (-4.0 * (2 * i + 1) / below) for i in range(num_heads - below)]


def alibi_bias(
    num_heads: int, query_positions_BT: jax.Array, key_positions_BS: jax.Array, *, both_ways: bool = False
) -> jax.Array:
    """bias_BNTS = -slope * (query position - key position), float32 (Press, Smith & Lewis 2022, arXiv 2108.12409).

    both_ways: of the distance's absolute value, where later keys are seen too.
    """
    distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
    if both_ways:
        distance_BTS = jnp.abs(distance_BTS)
    slopes_N = jnp.asarray(alibi_slopes(num_heads), jnp.float32)
    return -slopes_N[:, None, None] * distance_BTS[:, None].astype(jnp.float32)


def relative_bucket(
    distance: jax.Array, num_buckets: int, max_distance: int, *, both_ways: bool = False
) -> jax.Array:
    """Bucket 0..num_buckets-1 of a distance query - key; those below 0 fall in bucket 0 (T5's decoder).

    Raffel et al. 2020, JMLR 21, arXiv 1910.10683, section 2.1: one bucket a distance up to half of the buckets, the
    other half logarithmic up to max_distance, from where the last bucket is shared. both_ways (T5's encoder): the first
    half of the buckets is for keys that are not after the query, divided so; the second half, for those that are.
    """
    if both_ways:
        after = jnp.where(distance < 0, num_buckets // 2, 0)
        return after + relative_bucket(jnp.abs(distance), num_buckets // 2, max_distance)
    distance = jnp.maximum(distance, 0)
    exact = num_buckets // 2
    ratio = jnp.maximum(distance, exact).astype(jnp.float32) / exact
    logarithmic = jnp.log(ratio) / math.log(max_distance / exact) * (num_buckets - exact)
    return jnp.where(distance < exact, distance, jnp.minimum(exact + logarithmic.astype(jnp.int32), num_buckets - 1))


class RelativeBias(nn.Module):
    """bias_BNTS from a table [relative_buckets, N], one for all layers (T5: Raffel et al. 2020, arXiv 1910.10683).

    An encoder's buckets tell before from after; a decoder's do not.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, query_positions_BT: jax.Array, key_positions_BS: jax.Array) -> jax.Array:
        config = self.config
        shape = (config.relative_buckets, config.num_heads)
        table = self.param("embedding", embedding_initializer(config), shape, param_dtype(config))
        distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
        bucket_BTS = relative_bucket(
            distance_BTS, config.relative_buckets, config.relative_max_distance,
            both_ways=config.architecture == "encoder")
        return jnp.moveaxis(jnp.take(table, bucket_BTS, axis=0).astype(jnp.float32), -1, 1)
