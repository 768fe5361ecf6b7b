"""The keys and values of the tokens seen so far: a row of them a token, in order or as a ring, whole or as int8."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import head_size, num_kv_heads
from purelm.errors import UserError
from purelm.models.dtypes import compute_dtype


class Int8Rows(NamedTuple):
    """Rows of H numbers rounded to 255 levels: values int8 [..., H] times scales float32 [..., 1].

    The scale is the row's largest magnitude / 127, so that a number is off by half a scale at most (vector-wise absmax:
    Dettmers et al. 2022, LLM.int8(), arXiv 2208.07339, section 3.1). It saves memory, (H + 4) / 4H of float32 (27 % for
    heads of 64) or (H + 4) / 2H of bfloat16. It costs exactness, and time where the numbers are made whole again before
    each product, as XLA's CPU backend does.
    """

    values: jax.Array
    scales: jax.Array


Rows = jax.Array | Int8Rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """An argument and a result of the model, never hidden state; fit as the carry of a lax.while_loop.

    keys, values: one [B * K, S, H] a layer (or Int8Rows of it), row b's head k at b * K + k. Products over S want heads
    before S, and with B and K apart XLA's CPU backend copies all of it several times a step.
    length: tokens written so far, int32: a scalar, the same for all rows and quickest, or [B], one a row. Whoever sets
    it back (cache._replace(length=...)) forgets the tokens after it, such as padding. Tokens past S are not kept: with
    a scalar they overwrite the last ones (dynamic_update_slice clamps), with [B] they are dropped. Size it before.
    num_kv_heads: K. rolling: position p is at row p % S, where later ones overwrite it, so that S need not exceed
    attention_window. Both are static.
    """

    keys: tuple[Rows, ...]
    values: tuple[Rows, ...]
    length: jax.Array
    num_kv_heads: int = dataclasses.field(metadata={"static": True})
    rolling: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def capacity(self) -> int:
        """S: the tokens a row has room for."""
        return jax.tree.leaves(self.keys[0])[0].shape[1]

    def _replace(self, **changes: Any) -> Cache:
        """With other fields, as of a NamedTuple."""
        return dataclasses.replace(self, **changes)

    def extended(self, keys: tuple[Rows, ...], values: tuple[Rows, ...], added: Any) -> Cache:
        """With the keys and values after a call that added so many tokens."""
        return dataclasses.replace(self, keys=keys, values=values, length=self.length + added)


class Access(NamedTuple):
    """Where a call's T new tokens go and which keys it attends to; the same in all layers.

    rows: int32, the first one's row (scalar; the others follow), or each one's [1 or B, T], past the end where it is
    not kept. query_rows_BT, key_rows_BS: positions, those of keys below 0 where nothing was written; both None where
    `rows` is a scalar that positions count from, and keys' from 0. appended: the new keys are attended to after the
    cache as it was, since writing them first would overwrite some that are still seen. added: tokens that stay.
    """

    rows: jax.Array
    query_rows_BT: jax.Array | None
    key_rows_BS: jax.Array | None
    appended: bool
    added: Any


def init_cache(
    config: ModelConfig, batch_size: int, length: int, dtype: jnp.dtype | None = None, *, per_row: bool = False,
    rolling: bool = False, int8: bool = False,
) -> Cache:
    """An empty cache for `length` tokens a row, in `dtype` (none is the compute type; not read with int8).

    per_row: each row has its own length. rolling: it keeps the last `length` tokens, attention_window or more. int8:
    Int8Rows. Raises UserError if learned positions have fewer rows than `length`, a ring is smaller than the window, or
    a layer has none.
    """
    if config.positions == "learned" and length > config.context_length:
        raise UserError(f"{length} tokens do not fit config.model.context_length={config.context_length} learned "
                        "positions: ask for fewer tokens")
    if rolling and config.attention_window is None:
        raise UserError("a rolling cache forgets, but config.model.attention_window is none: set it, or rolling=False")
    if rolling and "full" in config.attention_pattern:
        raise UserError("a rolling cache forgets, but config.model.attention_pattern has full layers, which do not: "
                        "take one that keeps all")
    if rolling and length < config.attention_window:
        raise UserError(f"a rolling cache of {length} tokens is less than config.model.attention_window="
                        f"{config.attention_window}: make it that long")
    shape = (batch_size * num_kv_heads(config), length, head_size(config))
    dtype = compute_dtype(config) if dtype is None else dtype
    rows = [empty_rows(shape, dtype, int8) for _ in range(2 * config.num_layers)]
    return Cache(tuple(rows[: config.num_layers]), tuple(rows[config.num_layers:]),
                 jnp.zeros((batch_size,) if per_row else (), jnp.int32), num_kv_heads(config), rolling)


def take_cache_rows(cache: Cache, rows_B: jax.Array) -> Cache:
    """The cache whose row i is the given one's row rows_B[i]; rows may be repeated, left out, more or fewer."""
    keys, values = jax.tree.map(
        lambda leaf: take_rows_of(leaf, rows_B, cache.num_kv_heads), (cache.keys, cache.values))
    length = cache.length if cache.length.ndim == 0 else jnp.take(cache.length, rows_B)
    return cache._replace(keys=keys, values=values, length=length)


def take_rows_of(flat_XSH: jax.Array, rows_B: jax.Array, num_kv_heads: int) -> jax.Array:
    """Rows rows_B of a cache's array [B * K, S, H]."""
    rows_BKSH = flat_XSH.reshape(-1, num_kv_heads, *flat_XSH.shape[1:])
    return flat(jnp.take(rows_BKSH, rows_B, axis=0))


def empty_rows(shape: tuple[int, ...], dtype: jnp.dtype, int8: bool) -> Rows:
    """Zeros, of `dtype` or as Int8Rows."""
    if not int8:
        return jnp.zeros(shape, dtype)
    return Int8Rows(jnp.zeros(shape, jnp.int8), jnp.zeros((*shape[:-1], 1), jnp.float32))


def stored(new: jax.Array, like: Rows) -> Rows:
    """New rows in the form in which `like` holds its own."""
    if not isinstance(like, Int8Rows):
        return new.astype(like.dtype)
    new = new.astype(jnp.float32)
    scales = jnp.max(jnp.abs(new), axis=-1, keepdims=True) / 127
    return Int8Rows(jnp.round(new / jnp.where(scales > 0, scales, 1)).astype(jnp.int8), scales)


def read(rows: Rows, dtype: jnp.dtype) -> jax.Array:
    """Rows as numbers of `dtype`."""
    if not isinstance(rows, Int8Rows):
        return rows.astype(dtype)
    return (rows.values.astype(jnp.float32) * rows.scales).astype(dtype)


def access(cache: Cache, num_tokens: int, window: int | None, new_lengths: jax.Array | None) -> Access:
    """How a call with `num_tokens` new tokens a row uses `cache`; new_lengths, those of them that are no padding."""
    added = num_tokens if new_lengths is None else new_lengths
    if not cache.rolling and cache.length.ndim == 0:
        return Access(cache.length, None, None, False, added)
    rows_BT = token_rows(cache.length, num_tokens)
    if not cache.rolling:
        return Access(rows_BT, rows_BT, jnp.arange(cache.capacity)[None], False, added)
    appended = cache.capacity < window + num_tokens - 1
    end = cache.length + added
    key_rows_BS = _ring(cache.length if appended else end, cache.capacity)
    if appended:
        key_rows_BS = jnp.concatenate([key_rows_BS, rows_BT], axis=1)
    if num_tokens == 1 and new_lengths is None and cache.length.ndim == 0:
        return Access(cache.length % cache.capacity, rows_BT, key_rows_BS, appended, added)
    end_X1 = end.reshape(-1, 1)
    kept_BT = (rows_BT < end_X1) & (rows_BT >= end_X1 - cache.capacity)
    ring_BT = jnp.where(kept_BT, rows_BT % cache.capacity, cache.capacity)
    return Access(ring_BT, rows_BT, key_rows_BS, appended, added)


def token_rows(length: jax.Array, num_tokens: int) -> jax.Array:
    """Positions [1, T] or [B, T] of the tokens after `length`, a scalar or [B]."""
    return jnp.arange(num_tokens)[None] + (length if length.ndim == 0 else length[:, None])


def _ring(length: jax.Array, capacity: int) -> jax.Array:
    """The position [1 or B, S] at each row of a ring: the last one below `length` that belongs there."""
    last_X1 = length.reshape(-1, 1) - 1
    return last_X1 - (last_X1 - jnp.arange(capacity)[None]) % capacity


def update(
    cached: tuple[Rows, Rows], new: tuple[jax.Array, jax.Array], use: Access, dtype: jnp.dtype
) -> tuple[tuple[jax.Array, ...], tuple[Rows, ...]]:
    """((keys, values) [B * K, S, H] of `dtype` to attend to, one layer's cache with the new [B, K, T, H])."""
    attended, updated = [], []
    for old, new_BKTH in zip(cached, new):
        kept = stored(new_BKTH, old)
        updated.append(jax.tree.map(lambda before, rows: write(before, rows, use.rows), old, kept))
        if use.appended:
            attended.append(jnp.concatenate([read(old, dtype), flat(read(kept, dtype))], axis=1))
        else:
            attended.append(read(updated[-1], dtype))
    return tuple(attended), tuple(updated)


def write(cached: jax.Array, new_BKTH: jax.Array, rows: jax.Array) -> jax.Array:
    """`cached` [B * K, S, H] with `new` at Access.rows: in place where XLA owns the buffer."""
    if rows.ndim == 0:
        return jax.lax.dynamic_update_slice(cached, flat(new_BKTH), (0, rows, 0))
    rows_XT = jnp.repeat(rows, cached.shape[0] // rows.shape[0], axis=0)
    return cached.at[jnp.arange(cached.shape[0])[:, None], rows_XT].set(flat(new_BKTH), mode="drop")


def flat(rows_BKSH: jax.Array) -> jax.Array:
    """[B, K, S, H] as a cache's layer has it: [B * K, S, H]."""
    return rows_BKSH.reshape(-1, *rows_BKSH.shape[2:])
