"""Caches whose rows have lengths of their own, that forget what no query sees, or that round, against the full forward.

The plain one is in test_transformer.py, pages in test_paged_cache.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    SOURCE_SEGMENTS,
    any_params,
    encoder_decoder,
    first_quick,
    jit,
    logits,
    small,
    source,
    tokens,
    translation_logits,
)

from purelm.errors import UserError
from purelm.models import Transformer, cache_bytes, init_cache, init_pages, take_cache_rows, unstack_layers
from purelm.models.cache import Int8Rows, access, read, stored

VARIANTS = [
    {"positions": "rope", "num_kv_heads": 2, "qk_norm": True},
    {"positions": "alibi", "attention_window": 5, "num_kv_heads": 1},
    {"positions": "t5", "relative_buckets": 4, "relative_max_distance": 8, "attention_sink": True},
    {},
    {"positions": "none", "attention_softcap": 2.0, "attention_sink": True, "layer_sharing": 2},
    {"positions": "sinusoidal", "parallel_block": True, "attention_implementation": "xla"},
]
WINDOWED = [
    {"positions": "t5", "attention_window": 4, "relative_buckets": 4, "relative_max_distance": 8},
    {"positions": "rope", "attention_window": 3, "num_kv_heads": 2},
    {"positions": "alibi", "attention_window": 4, "attention_sink": True},
    {"attention_window": 1},
    {"positions": "sinusoidal", "attention_window": 5, "attention_implementation": "xla"},
]
LENGTHS = (2, 11, 5)


@jit
def call(config, params, tokens_BT, cache, new_lengths=None, prefix_BT=None):
    output = Transformer(config).apply(
        {"params": params}, tokens_BT, cache=cache, new_lengths=new_lengths, prefix_BT=prefix_BT)
    return output.logits_BTV, output.cache


def in_chunks(config, params, tokens_BT, cache, sizes):
    outputs, start = [], 0
    for size in sizes:
        chunk, cache = call(config, params, tokens_BT[:, start:start + size], cache)
        outputs.append(chunk)
        start += size
    return jnp.concatenate(outputs, axis=1)


def after_padding(config, params, cache, steps, *, told):
    """The logits of `steps` tokens a row after prompts of LENGTHS tokens, padded with other tokens and read at once.

    told: the call knows which are padding, or the lengths are set back after it."""
    tokens_BT, lengths_B = tokens(3, 16), jnp.asarray(LENGTHS)
    prompt_BT = jnp.where(jnp.arange(12) < lengths_B[:, None], tokens_BT[:, :12], 7)
    cache = call(config, params, prompt_BT, cache, lengths_B if told else None)[1]
    if not told:
        cache = cache._replace(length=lengths_B)
    found = []
    for number in range(steps):
        next_B1 = jnp.take_along_axis(tokens_BT, (lengths_B + number)[:, None], axis=1)
        new, cache = call(config, params, next_B1, cache)
        found.append(new)
    assert cache.length.tolist() == [length + steps for length in LENGTHS]
    return jnp.concatenate(found, axis=1)


def expected_after_padding(config, params, steps):
    full = logits(config, params, tokens(3, 16))
    return jnp.stack([full[row, length:length + steps] for row, length in enumerate(LENGTHS)])


@pytest.mark.parametrize("changes", first_quick(1, VARIANTS), ids=str)
def test_rows_of_their_own_lengths_equal_the_full_forward(changes):
    # Reddens with: a mask, a rotation or a bias that does not start at the row's length, padding that is seen or that
    # pushes out what was there.
    config = small(**changes)
    params = unstack_layers(any_params(config))
    expected = expected_after_padding(config, params, 4)
    cache = init_cache(config, 3, 16, per_row=True)
    for told in (False, True):
        found = after_padding(config, params, cache, 4, told=told)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_padding_past_the_end_is_dropped():
    config = small(positions="rope")
    params, tokens_BT = any_params(config), tokens(2, 16)
    full = logits(config, params, tokens_BT)
    cache = init_cache(config, 2, 13, per_row=True)
    cache = call(config, params, tokens_BT[:, :11], cache)[1]._replace(length=jnp.asarray([11, 5]))
    new_BT = jnp.stack([tokens_BT[0, 11:15], tokens_BT[1, 5:9]])
    found, cache = call(config, params, new_BT, cache)  # Two of the first row's four do not fit.
    # Reddens when they are written from an earlier row, as dynamic_update_slice does.
    np.testing.assert_allclose(found[0, :2], full[0, 11:13], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], full[1, 5:9], rtol=1e-5, atol=1e-5)
    cache = cache._replace(length=jnp.asarray([12, 9]))
    found, _ = call(config, params, jnp.stack([tokens_BT[0, 12:13], tokens_BT[1, 9:10]]), cache)
    np.testing.assert_allclose(found[:, 0], jnp.stack([full[0, 12], full[1, 9]]), rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_the_others():
    config = small(positions="alibi")
    params, tokens_BT = any_params(config), tokens(3, 16)
    cache = call(config, params, tokens_BT[:, :12], init_cache(config, 3, 16, per_row=True))[1]
    one = call(config, params, tokens_BT[:, :1], cache._replace(length=jnp.asarray([3, 1, 2])))[0]
    other = call(config, params, tokens_BT[:, :1], cache._replace(length=jnp.asarray([3, 12, 9])))[0]
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[1] - other[1]).max() > 1e-3


@pytest.mark.parametrize("changes", first_quick(1, WINDOWED), ids=str)
@pytest.mark.parametrize("more", first_quick(1, [0, 2]))
def test_a_ring_equals_the_full_forward(changes, more):
    # Reddens with: a key's position that is off by a round, rows overwritten before a query of the same call saw them,
    # the first of many tokens kept in place of the last.
    config = small(**changes)
    params, tokens_BT = unstack_layers(any_params(config)), tokens(2, 16)
    full, capacity = logits(config, params, tokens_BT), config.attention_window + more
    for per_row, sizes in ((False, [1] * 16), (False, [9, 1, 3, 1, 1, 1]), (True, [3, 8, 1, 1, 3])):
        cache = init_cache(config, 2, capacity, per_row=per_row, rolling=True)
        found = in_chunks(config, params, tokens_BT, cache, sizes)
        np.testing.assert_allclose(found, full, rtol=1e-5, atol=1e-5, err_msg=f"{sizes}")


def test_of_more_tokens_than_a_ring_holds_each_row_is_written_once():
    cache = init_cache(small(attention_window=3), 2, 4, rolling=True, per_row=True)
    cache = cache._replace(length=jnp.asarray([0, 3]))
    # Which of two writes to one row would last is not defined; 4 is past the end, where nothing is kept.
    assert access(cache, 7, 3, None).rows.tolist() == [[4, 4, 4, 3, 0, 1, 2], [4, 4, 4, 2, 3, 0, 1]]
    assert access(cache, 7, 3, jnp.asarray([2, 6])).rows.tolist() == [[0, 1, 4, 4, 4, 4, 4], [4, 4, 1, 2, 3, 0, 4]]


@pytest.mark.parametrize("changes", first_quick(1, WINDOWED), ids=str)
def test_a_ring_with_rows_of_their_own_lengths(changes):
    config = small(**changes)
    params, window = unstack_layers(any_params(config)), config.attention_window
    expected = expected_after_padding(config, params, 5)
    # Padding that the call knows of is never kept; one that it does not know of needs rows for itself.
    for capacity, told in ((window, True), (window + 11, False)):
        cache = init_cache(config, 3, capacity, per_row=True, rolling=True)
        found = after_padding(config, params, cache, 5, told=told)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=f"{capacity} {told}")


@pytest.mark.parametrize("kind", first_quick(1, [{"per_row": True, "rolling": True}, {"rolling": True}, {}]), ids=str)
def test_a_prefix_read_both_ways_goes_into_any_cache(kind):
    config = small(prefix_attention=True, positions="rope", attention_window=5)
    params, tokens_BT = any_params(config), tokens()
    prefix_BT = jnp.arange(12)[None] < jnp.array([[5], [3]])
    full = call(config, params, tokens_BT, None, None, prefix_BT)[0]
    for capacity in (5,) if "per_row" in kind else (16,):
        cache = init_cache(config, 2, capacity, **kind)
        first, cache = call(config, params, tokens_BT[:, :6], cache, None, prefix_BT[:, :6])
        second, cache = call(config, params, tokens_BT[:, 6:], cache)
        found = jnp.concatenate([first, second], axis=1)
        np.testing.assert_allclose(found, full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", first_quick(1, [{"rolling": True}, {"per_row": True}, {}]), ids=str)
def test_int8_is_near(kind):
    config = small(positions="rope", num_kv_heads=2, attention_window=5)
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    outputs = [in_chunks(config, params, tokens_BT, init_cache(config, 2, 16, int8=True, **kind), sizes)
               for sizes in ([5, *[1] * 9], [9, 5])]
    error = np.abs(outputs[0] - full).max()
    assert 0 < error < 0.02 * np.abs(full).max()
    # What a token reads of its own call is rounded too, so that it does not matter how a prompt is cut.
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=0.01 * np.abs(full).max())


def test_int8_is_off_by_half_a_step_at_most():
    rows = 3 * jax.random.normal(jax.random.key(0), (2, 3, 8)).at[0, 0].set(0)
    kept = stored(rows, Int8Rows(jnp.zeros((), jnp.int8), jnp.zeros(())))
    error = np.abs(read(kept, jnp.float32) - rows)
    assert np.all(error <= 0.5001 * kept.scales) and error.max() > 0.4 * kept.scales.max()
    assert np.all(np.abs(kept.values).max(-1).ravel()[1:] == 127) and not np.any(kept.values[0, 0])


@pytest.mark.parametrize("int8", [False, True])
def test_cache_bytes_are_those_held(int8):
    config = small(num_kv_heads=2, attention_window=5)
    ring = init_cache(config, 3, 7, rolling=True, int8=int8)
    pages = init_pages(config, 5, 4, int8=int8)
    held, paged = (sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) for arrays in ((ring.keys, ring.values), pages))
    assert cache_bytes(config, 3, 7, int8=int8) == held
    assert cache_bytes(config, 1, 5 * 4, int8=int8) == paged


@pytest.mark.parametrize("kind", [{}, {"per_row": True, "int8": True}], ids=str)
def test_taken_rows_are_those_rows(kind):
    config = small(positions="rope", num_kv_heads=2)
    params, tokens_BT = any_params(config), tokens(3, 12)
    cache = call(config, params, tokens_BT[:, :9], init_cache(config, 3, 12, **kind))[1]
    if "per_row" in kind:
        cache = cache._replace(length=jnp.asarray([9, 4, 6]))
    rows_B = jnp.asarray([2, 0, 0, 1, 2])
    taken = jax.jit(take_cache_rows)(cache, rows_B)
    expected, found = (call(config, params, tokens_BT[rows, 9:10], held)[0]
                       for rows, held in ((jnp.arange(3), cache), (rows_B, taken)))
    # Reddens when heads of one row go with another's, or lengths stay where they were.
    np.testing.assert_allclose(found, expected[rows_B], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", first_quick(1, [{"rolling": True, "per_row": True}, {"per_row": True}]), ids=str)
def test_an_encoder_decoder_writes_into_any_cache(kind):
    config = encoder_decoder(positions="sinusoidal", attention_window=4)
    params, tokens_BT = any_params(config), tokens(2, 12)
    full = translation_logits(config, params, source(), SOURCE_SEGMENTS, tokens_BT)

    @jax.jit
    def run(params, cache):
        model, variables = Transformer(config), {"params": params}
        encoded = model.apply(variables, source(), source_segments_BS=SOURCE_SEGMENTS, method="encode")
        found = []
        for part_BT in jnp.split(tokens_BT, (7, 8), axis=1):
            output = model.apply(variables, part_BT, encoded=encoded, cache=cache)
            found, cache = [*found, output.logits_BTV], output.cache
        return jnp.concatenate(found, axis=1)

    np.testing.assert_allclose(run(params, init_cache(config, 2, 13, **kind)), full, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="attention_window is none: set it"):
        init_cache(small(), 1, 8, rolling=True)
    with pytest.raises(UserError, match="8 tokens is less than config.model.attention_window=9"):
        init_cache(small(attention_window=9), 1, 8, rolling=True)
