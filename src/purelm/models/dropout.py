"""Dropout (Srivastava et al. 2014, JMLR 15)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purelm.config.numbers import is_zero, single


def dropout(x: jax.Array, rate: float | jax.Array, key: jax.Array | None) -> jax.Array:
    """Each element is zero with probability `rate`, the others are divided by 1 - rate; key None changes nothing."""
    if key is None or is_zero(rate):
        return x
    kept = 1 - single(rate)
    keep = jax.random.bernoulli(key, kept, x.shape)
    return jnp.where(keep, x / jnp.asarray(kept, x.dtype), jnp.zeros((), x.dtype))
