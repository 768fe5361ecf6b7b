"""Keys and values in pages that rows own by a table: rows of any length share one store, and may share pages."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import head_size, num_kv_heads
from purelm.models.cache import Rows, empty_rows, stored, token_rows
from purelm.models.dtypes import compute_dtype

# Rows that attend together, as far as their longest needs; numbers of keys that one of their steps gathers; and the
# keys a row within which a step stays. On a CPU the copy should still lie in the processor's cache when the product
# reads it, and keys past a row's end cost as much as others; elsewhere few large steps are quicker.
_ROWS_TOGETHER = {"cpu": 16}
_GATHERED, _GATHERED_ELSEWHERE = {"cpu": 2 ** 18}, 2 ** 24
_FEWEST_KEYS = 64
_MOST_KEYS, _MOST_KEYS_ELSEWHERE = {"cpu": 128}, 512


class PagedCache(NamedTuple):
    """Kwon et al. 2023, PagedAttention, arXiv 2309.06180; an argument and a result of the model, as models.cache.Cache.

    keys, values: one [pages, K, page_size, H] a layer (or Int8Rows of it). tables_BP: int32, row b's tokens
    p * page_size to (p + 1) * page_size - 1 are on page tables_BP[b, p]. Page 0 is scratch: what nobody reads is
    written there (padding, rows in no use, whose tables are 0, and tokens past the table), and entries that are not
    needed yet may be 0. lengths_B: int32, tokens that each row holds. Pages of several rows may be the same, as long as
    they are full.

    What is on a page past its row's length is never read, not even if it is not finite.
    """

    keys: tuple[Rows, ...]
    values: tuple[Rows, ...]
    tables_BP: jax.Array
    lengths_B: jax.Array

    @property
    def page_size(self) -> int:
        """Tokens of a page."""
        return jax.tree.leaves(self.keys[0])[0].shape[2]

    @property
    def capacity(self) -> int:
        """The tokens a row's table has room for."""
        return self.tables_BP.shape[1] * self.page_size

    @property
    def length(self) -> jax.Array:
        """lengths_B, by the name it has in Cache."""
        return self.lengths_B

    def extended(self, keys: tuple[Rows, ...], values: tuple[Rows, ...], added: Any) -> PagedCache:
        """With the pages after a call that added so many tokens a row."""
        return PagedCache(keys, values, self.tables_BP, self.lengths_B + added)


class PagedRows(NamedTuple):
    """What each row of a call attends to; the same in all layers.

    query_rows_BT: positions of the new tokens. ends_B: of what is read. first_B, last_B: numbers of the first and last
    page that are seen. positions_BT: as given to the model, for biases. prefix_BT: as given.
    """

    tables_BP: jax.Array
    query_rows_BT: jax.Array
    ends_B: jax.Array
    first_B: jax.Array
    last_B: jax.Array
    positions_BT: jax.Array
    prefix_BT: jax.Array | None


class PagedAccess(NamedTuple):
    """Where a call's T new tokens go and which pages it attends to; the same in all layers.

    rows: see there. page_BT, offset_BT: of each new token. rows_together: that attend in one loop, a divisor of B;
    pages_a_step: of that loop; both static. bias_ND: T5's, by distance. added: tokens that stay.
    """

    rows: PagedRows
    page_size: int
    page_BT: jax.Array
    offset_BT: jax.Array
    rows_together: int
    pages_a_step: int
    bias_ND: jax.Array | None
    added: Any


def init_pages(
    config: ModelConfig, num_pages: int, page_size: int, dtype: jnp.dtype | None = None, int8: bool = False
) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
    """(keys, values) of `num_pages` empty pages, the scratch page among them, in `dtype` (none is the compute type)."""
    shape = (num_pages, num_kv_heads(config), page_size, head_size(config))
    dtype = compute_dtype(config) if dtype is None else dtype
    pages = [empty_rows(shape, dtype, int8) for _ in range(2 * config.num_layers)]
    return tuple(pages[: config.num_layers]), tuple(pages[config.num_layers:])


def paged_access(
    config: ModelConfig, cache: PagedCache, positions_BT: jax.Array, new_lengths: jax.Array | None,
    bias_ND: jax.Array | None, prefix_BT: jax.Array | None,
) -> PagedAccess:
    """How a call uses `cache`; positions_BT [1 or B, T], new_lengths: the new tokens that are no padding."""
    num_tokens, size = positions_BT.shape[1], cache.page_size
    rows_BT = token_rows(cache.lengths_B, num_tokens)
    added = num_tokens if new_lengths is None else new_lengths
    ends_B = cache.lengths_B + added
    kept_BT = (rows_BT < cache.capacity) & (rows_BT < ends_B[:, None])
    owned_BT = jnp.take_along_axis(cache.tables_BP, rows_BT // size, axis=1, mode="clip")
    window = config.attention_window
    first_B = jnp.zeros_like(ends_B)
    if window is not None:
        first_B = jnp.maximum(cache.lengths_B - window + 1, 0) // size
    last_B = (jnp.minimum(cache.lengths_B + num_tokens, cache.capacity) - 1) // size
    rows = PagedRows(cache.tables_BP, rows_BT, ends_B, first_B, last_B,
                     jnp.broadcast_to(positions_BT, rows_BT.shape), prefix_BT)
    rows_together = _rows_together(len(ends_B))
    return PagedAccess(
        rows, size, jnp.where(kept_BT, owned_BT, 0), rows_BT % size, rows_together,
        _pages_a_step(config, cache, rows_together), bias_ND, added)


def _rows_together(batch_size: int) -> int:
    most = min(_ROWS_TOGETHER.get(jax.default_backend(), batch_size), batch_size)
    return max(rows for rows in range(1, most + 1) if batch_size % rows == 0)


def _pages_a_step(config: ModelConfig, cache: PagedCache, rows: int) -> int:
    backend = jax.default_backend()
    gathered = _GATHERED.get(backend, _GATHERED_ELSEWHERE)
    keys = gathered // (rows * num_kv_heads(config) * head_size(config))
    keys = min(max(keys, _FEWEST_KEYS), _MOST_KEYS.get(backend, _MOST_KEYS_ELSEWHERE))
    return min(max(keys // cache.page_size, 1), cache.tables_BP.shape[1])


def write_pages(pages: Rows, new_BKTH: jax.Array, use: PagedAccess) -> Rows:
    """One layer's pages with the new keys or values, in place where XLA owns the buffer."""

    def write(old: jax.Array, new_BKTX: jax.Array) -> jax.Array:
        return old.at[use.page_BT, :, use.offset_BT].set(jnp.swapaxes(new_BKTX, 1, 2), mode="promise_in_bounds")

    return jax.tree.map(write, pages, stored(new_BKTH, pages))


def gather_pages(pages: Rows, numbers_BX: jax.Array) -> Rows:
    """Pages numbers_BX of each row, one after the other: [B, K, X * page_size, H]."""

    def gather(leaf: jax.Array) -> jax.Array:
        _, num_kv_heads, size, width = leaf.shape
        # Head by head as they lie, so that what is gathered need not be transposed.
        numbers_BKX = numbers_BX[:, None, :] * num_kv_heads + jnp.arange(num_kv_heads)[:, None]
        found_BKXY = leaf.reshape(-1, size * width).at[numbers_BKX].get(mode="promise_in_bounds")
        return found_BKXY.reshape(*numbers_BKX.shape[:2], -1, width)

    return jax.tree.map(gather, pages)
