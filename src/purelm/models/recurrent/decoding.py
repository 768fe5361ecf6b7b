"""Decoding with recurrent networks: a state, one token a step, rows that move."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models.recurrent.network import Carry, Recurrent, init_carry

Params = Any


def init_state(config: ModelConfig, batch_size: int) -> Carry:
    """A language model's state before the first token. Raises UserError for a network that reads both ways."""
    return init_carry(config, batch_size)


def step(config: ModelConfig, params: Params, tokens_B1: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """(float32 logits_BV of the token after tokens_B1, the state after them)."""
    output = Recurrent(config).apply({"params": params}, tokens_B1, carry=state)
    return output.logits_BTV[:, -1], output.cache


def take_rows(state: Any, rows_B: jax.Array) -> Any:
    """The state whose row i is the given one's row rows_B[i]; rows may be repeated, left out, more or fewer."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows_B, axis=0), state)
