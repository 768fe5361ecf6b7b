"""What a Transformer decoder remembers of its rows: keys and values in pages."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference.engine.rows import Rows
from purelm.models import Transformer
from purelm.models.paged_cache import PagedCache, init_pages


def init(config: ModelConfig, *, slots: int, num_pages: int, page_size: int, dtype: Any | None, int8: bool
         ) -> Any:
    """(keys, values) of all pages; `slots` have nothing of their own."""
    del slots
    return init_pages(config, num_pages, page_size, dtype, int8)


def step(config: ModelConfig, params: Any, tokens_B1: jax.Array, memory: Any, rows: Rows, alive_B: jax.Array
         ) -> tuple[jax.Array, Any]:
    """(logits_BV after each row's last known token, the memory with it); rows that are not alive write to scratch."""
    held_B = jnp.where(alive_B, rows.lengths_B - 1 - rows.window_starts_B, 0)
    cache = PagedCache(*memory, jnp.where(alive_B[:, None], rows.tables_BP, 0), held_B)
    output = Transformer(config).apply({"params": params}, tokens_B1, cache=cache)
    return output.logits_BTV[:, -1], (output.cache.keys, output.cache.values)


def read(config: ModelConfig, params: Any, tokens_1T: jax.Array, memory: Any, row: Rows, slot: jax.Array,
         start: jax.Array, count: jax.Array) -> tuple[jax.Array, Any]:
    """(x_1TD, the memory with `count` tokens of the row's window, from its token `start` on); the rest is padding."""
    del slot
    cache = PagedCache(*memory, row.tables_BP, start[None])
    output = Transformer(config).apply({"params": params}, tokens_1T, cache=cache, new_lengths=count[None],
                                       method="hidden")
    return output.logits_BTV, (output.cache.keys, output.cache.values)
