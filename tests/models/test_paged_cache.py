"""A paged cache against the full forward, and its rows against themselves alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import any_params, first_quick, jit, logits, small, tokens

from purelm.errors import UserError
from purelm.models import PagedCache, Transformer, init_cache, init_pages, unstack_layers

PAGE, PAGES = 4, 4
VARIANTS = [
    {"positions": "rope", "num_kv_heads": 2, "qk_norm": True},
    {"positions": "alibi", "attention_window": 5, "num_kv_heads": 1},
    {"positions": "t5", "relative_buckets": 4, "relative_max_distance": 8, "attention_sink": True},
    {},
    {"positions": "none", "attention_softcap": 2.0, "attention_sink": True, "layer_sharing": 2},
    {"positions": "sinusoidal", "attention_window": 3, "parallel_block": True, "attention_implementation": "xla"},
    {"scan_layers": True, "norm_place": "sandwich", "attention_window": 1},
]


@jit
def read(config, params, tokens_BT, cache, new_lengths=None):
    output = Transformer(config).apply({"params": params}, tokens_BT, cache=cache, new_lengths=new_lengths)
    return output.logits_BTV, output.cache


def tables(batch_size, num_pages=PAGES, seed=0):
    """Pages in no order, so that one that is taken for another shows."""
    numbers = 1 + np.random.default_rng(seed).permutation(batch_size * num_pages)
    return jnp.asarray(numbers.reshape(batch_size, num_pages), jnp.int32)


def paged(config, batch_size, *, int8=False, tables_BP=None, unwritten=float("nan")):
    """What stands on pages before they are written is never read."""
    keys, values = init_pages(config, 1 + batch_size * PAGES, PAGE, int8=int8)
    if not int8:
        keys, values = jax.tree.map(lambda leaf: jnp.full_like(leaf, unwritten), (keys, values))
    tables_BP = tables(batch_size) if tables_BP is None else tables_BP
    return PagedCache(keys, values, tables_BP, jnp.zeros(batch_size, jnp.int32))


def in_chunks(config, params, tokens_BT, cache, sizes):
    outputs, start = [], 0
    for size in sizes:
        chunk, cache = read(config, params, tokens_BT[:, start:start + size], cache)
        outputs.append(chunk)
        start += size
    return jnp.concatenate(outputs, axis=1), cache


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """One page a step of attention and two rows together, so that even these rows take several."""
    monkeypatch.setattr("purelm.models.paged_cache._MOST_KEYS", {"cpu": PAGE})
    monkeypatch.setattr("purelm.models.paged_cache._ROWS_TOGETHER", {"cpu": 2})


@pytest.mark.parametrize("changes", first_quick(2, VARIANTS), ids=str)
def test_paged_logits_equal_the_full_forward(changes):
    # Reddens with: a page taken for another, a position or a mask that does not count from the row's length, a first
    # page past the window's start, a running sum that is not scaled to the new maximum, a sink counted at each step.
    config = small(**changes)
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    found, cache = in_chunks(config, unstack_layers(params), tokens_BT, paged(config, 2), [6, *[1] * 8])
    np.testing.assert_allclose(found, full, rtol=1e-5, atol=1e-5)
    assert cache.lengths_B.tolist() == [14, 14]


def filled(config, params, rows, *, batch_size):
    """A cache of rows of these lengths, each read alone in one padded chunk through its own part of the table."""
    cache = paged(config, batch_size)
    tables_BP = cache.tables_BP
    for row, length in rows.items():
        # As the engine does: entries are 0 until they are needed.
        own_1P = jnp.where(jnp.arange(PAGES) * PAGE < length + 1, tables_BP[row], 0)[None]
        tables_BP = tables_BP.at[row].set(own_1P[0])
        part = PagedCache(cache.keys, cache.values, own_1P, jnp.zeros(1, jnp.int32))
        part = read(config, params, tokens(4, 15)[row:row + 1, :12], part, jnp.asarray([length]))[1]
        cache = cache._replace(keys=part.keys, values=part.values)
    keys, values = jax.tree.map(lambda leaf: leaf.at[0].set(float("nan")), (cache.keys, cache.values))
    unused = [row for row in range(batch_size) if row not in rows]
    tables_BP = tables_BP.at[jnp.asarray(unused, jnp.int32)].set(0)
    lengths_B = jnp.asarray([rows.get(row, 0) for row in range(batch_size)], jnp.int32)
    return PagedCache(keys, values, tables_BP, lengths_B)


@pytest.mark.parametrize("changes", first_quick(1, VARIANTS[1:]), ids=str)
def test_rows_of_different_lengths_are_those_alone(changes):
    # Reddens with: padding kept, a row that depends on how far the longest reads (bit for bit), values that are not
    # finite on pages of others or in the scratch page.
    config = small(**changes)
    params, tokens_BT = any_params(config), tokens(4, 15)
    lengths = {0: 2, 1: 11, 3: 7}
    together = filled(config, params, lengths, batch_size=4)
    next_B1 = jnp.stack([tokens_BT[row, lengths.get(row, 0)] for row in range(4)])[:, None]
    found, after = read(config, params, next_B1, together)
    full = logits(config, params, tokens_BT)
    assert after.lengths_B.tolist() == [3, 12, 1, 8]
    for row, length in lengths.items():
        np.testing.assert_allclose(found[row, 0], full[row, length], rtol=1e-5, atol=1e-5)
        alone = filled(config, params, {row: length}, batch_size=4)
        np.testing.assert_array_equal(found[row], read(config, params, next_B1, alone)[0][row])


def test_rows_share_the_pages_of_a_prefix():
    config = small(positions="rope", num_kv_heads=2)
    params, tokens_BT = any_params(config), tokens(2, 14)
    tokens_BT = tokens_BT.at[1, :8].set(tokens_BT[0, :8])
    full = logits(config, params, tokens_BT)
    tables_BP = jnp.asarray([[5, 2, 3, 1], [5, 2, 6, 4]], jnp.int32)
    cache = paged(config, 2, tables_BP=tables_BP)
    first = PagedCache(cache.keys, cache.values, tables_BP[:1], jnp.zeros(1, jnp.int32))
    first = read(config, params, tokens_BT[:1, :8], first)[1]
    cache = PagedCache(first.keys, first.values, tables_BP, jnp.asarray([8, 8], jnp.int32))
    found, _ = in_chunks(config, params, tokens_BT[:, 8:], cache, [1] * 6)
    # Reddens when a table is not read row by row.
    np.testing.assert_allclose(found, full[:, 8:], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["t5", "alibi"])
def test_a_prefix_read_both_ways_goes_into_pages(positions):
    config = small(prefix_attention=True, positions=positions, attention_window=5)
    params, tokens_BT = any_params(config), tokens()
    prefix_BT = jnp.arange(12)[None] < jnp.array([[5], [3]])
    call = jax.jit(lambda tokens_BT, cache, prefix_BT: Transformer(config).apply(
        {"params": params}, tokens_BT, cache=cache, prefix_BT=prefix_BT))
    first = call(tokens_BT[:, :6], paged(config, 2), prefix_BT[:, :6])
    second = call(tokens_BT[:, 6:], first.cache, None)
    found = jnp.concatenate([first.logits_BTV, second.logits_BTV], axis=1)
    np.testing.assert_allclose(found, call(tokens_BT, None, prefix_BT).logits_BTV, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_pages_are_as_near_as_a_plain_cache():
    config = small(positions="rope", num_kv_heads=2, compute_dtype="bfloat16")
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    plain, found = (in_chunks(config, params, tokens_BT, cache, [6, *[1] * 8])[0]
                    for cache in (init_cache(config, 2, 16), paged(config, 2)))
    assert np.abs(found - full).max() < max(2 * np.abs(plain - full).max(), 0.02 * np.abs(full).max())


def test_tokens_past_the_table_are_not_kept():
    config = small(positions="rope")
    params, tokens_BT = any_params(config), tokens(1, 20)
    full_cache = read(config, params, tokens_BT[:, :16], paged(config, 1, unwritten=0))[1]
    over = read(config, params, tokens_BT[:, 12:16], full_cache)[1]
    # Reddens when they overwrite the last page.
    for before, after in zip(full_cache.keys, over.keys):
        np.testing.assert_array_equal(before[1:], after[1:])
    assert np.any(over.keys[0][0] != full_cache.keys[0][0])


def test_int8_pages_are_near_and_small():
    config = small(positions="rope", num_kv_heads=2)
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    cache = paged(config, 2, int8=True)
    found, _ = in_chunks(config, params, tokens_BT, cache, [6, *[1] * 8])
    error = np.abs(found - full).max()
    assert 0 < error < 0.02 * np.abs(full).max()
    assert cache.keys[0].values.dtype == jnp.int8 and cache.keys[0].scales.shape == (9, 2, PAGE, 1)


def test_a_loop_copies_no_pages():
    config = small(positions="rope", num_kv_heads=2)
    params = any_params(config)

    def body(carry):
        cache, last_B1 = carry
        output = Transformer(config).apply({"params": params}, last_B1, cache=cache)
        return output.cache, jnp.argmax(output.logits_BTV, axis=-1)

    start = (paged(config, 2, unwritten=0), jnp.ones((2, 1), jnp.int32))
    loop = jax.jit(lambda start: jax.lax.while_loop(lambda carry: carry[0].lengths_B[0] < 6, body, start))
    text = loop.lower(start).compile().as_text()
    # Reddens when writing or the inner loop makes XLA copy the store at each token (4 into the loop are its due).
    assert text.count("= f32[9,2,4,4]{3,2,1,0} copy(") <= 4
    assert loop(start)[0].lengths_B.tolist() == [6, 6]


def test_what_cannot_be_is_refused():
    config = small()
    params = any_params(config)
    with pytest.raises(UserError, match="17 tokens do not fit a cache of 16"):
        read(config, params, tokens(1, 17), paged(config, 1))
    with pytest.raises(UserError, match="weights over pages are not collected"):
        Transformer(config).apply({"params": params}, tokens(1, 2), cache=paged(config, 1), collect=True)
    with pytest.raises(UserError, match="new_lengths says what a cache keeps"):
        Transformer(config).apply({"params": params}, tokens(1, 2), new_lengths=jnp.asarray(1))
    assert init_cache(config, 1, 4).length.ndim == 0
