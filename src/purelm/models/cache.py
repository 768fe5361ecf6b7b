"""The keys and values of the tokens seen so far."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import head_size, num_kv_heads
from purelm.errors import UserError
from purelm.models.dtypes import compute_dtype


class Cache(NamedTuple):
    """An argument and a result of the model, never hidden state; fit as the carry of a lax.while_loop.

    keys, values: one [B * K, S, H] a layer, row b's head k at b * K + k. Products over S want heads before S, and with
    B and K apart XLA's CPU backend copies all of it several times a step. length: tokens written so far, int32 scalar,
    the same for all rows. Writing more than S tokens overwrites the last ones
    (dynamic_update_slice clamps), so size it before.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    length: jax.Array

    @property
    def capacity(self) -> int:
        """S: the tokens a row has room for."""
        return self.keys[0].shape[1]


def init_cache(config: ModelConfig, batch_size: int, length: int, dtype: jnp.dtype | None = None) -> Cache:
    """An empty cache for `length` tokens a row, in `dtype` (none is the compute type).

    Raises UserError if learned positions have fewer rows than `length`.
    """
    if config.positions == "learned" and length > config.context_length:
        raise UserError(f"{length} tokens do not fit config.model.context_length={config.context_length} learned "
                        "positions: ask for fewer tokens")
    shape = (batch_size * num_kv_heads(config), length, head_size(config))
    dtype = compute_dtype(config) if dtype is None else dtype
    zeros = [jnp.zeros(shape, dtype) for _ in range(2 * config.num_layers)]
    return Cache(tuple(zeros[: config.num_layers]), tuple(zeros[config.num_layers:]), jnp.zeros((), jnp.int32))


def write(cached: jax.Array, new_BKTH: jax.Array, start: jax.Array) -> jax.Array:
    """`cached` [B * K, S, H] with `new` at rows start, start + 1, ...: in place where XLA owns the buffer."""
    return jax.lax.dynamic_update_slice(cached, flat(new_BKTH).astype(cached.dtype), (0, start, 0))


def flat(rows_BKSH: jax.Array) -> jax.Array:
    """[B, K, S, H] as a cache's layer has it: [B * K, S, H]."""
    return rows_BKSH.reshape(-1, *rows_BKSH.shape[2:])
