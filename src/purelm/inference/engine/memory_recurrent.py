"""What a recurrent language model remembers of its rows: a state each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference.engine.rows import Rows
from purelm.models import make_model


def init(config: ModelConfig, *, slots: int, num_pages: int, page_size: int, dtype: Any | None, int8: bool
         ) -> Any:
    """Each slot's state, zero; there are no pages, and states are float32."""
    from purelm.models.recurrent import init_carry

    del num_pages, page_size, dtype, int8
    # Copies, since the zeros may be one array, and the programs write in place.
    return jax.tree.map(jnp.copy, init_carry(config, slots))


def step(config: ModelConfig, params: Any, tokens_B1: jax.Array, memory: Any, rows: Rows, alive_B: jax.Array
         ) -> tuple[jax.Array, Any]:
    """(logits_BV after each row's last known token, the memory with it); rows that are not alive keep their state."""
    del rows
    output = make_model(config).apply({"params": params}, tokens_B1, carry=memory)
    kept = jax.tree.map(lambda new, old: jnp.where(alive_B[:, None], new, old), output.cache, memory)
    return output.logits_BTV[:, -1], kept


def read(config: ModelConfig, params: Any, tokens_1T: jax.Array, memory: Any, row: Rows, slot: jax.Array,
         start: jax.Array, count: jax.Array) -> tuple[jax.Array, Any]:
    """(x_1TD, the memory with `count` tokens of the row in `slot`, from its token `start` on); the rest is padding."""
    del row

    def state(leaf: jax.Array) -> jax.Array:
        return jnp.where(start == 0, 0, jax.lax.dynamic_slice_in_dim(leaf, slot, 1))

    segments_1T = (jnp.arange(tokens_1T.shape[1]) < count)[None].astype(jnp.int32)
    output = make_model(config).apply({"params": params}, tokens_1T, carry=jax.tree.map(state, memory),
                                      segments_BT=segments_1T, method="hidden")
    memory = jax.tree.map(lambda all_rows, new: jax.lax.dynamic_update_slice_in_dim(all_rows, new, slot, 0), memory,
                          output.cache)
    return output.logits_BTV, memory
