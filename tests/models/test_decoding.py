"""Decoding over a source: a step at a time is the full forward, and rows move as one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    QUICKLY,
    SOURCE_SEGMENTS,
    any_params,
    encoder_decoder,
    first_quick,
    jit,
    small,
    source,
    tokens,
    translation_logits,
)

from purelm.errors import UserError
from purelm.models import decoding, unstack_layers

start = jax.jit(decoding.start, static_argnums=(0, 4), compiler_options=QUICKLY)
step = jit(decoding.step)
take_rows = jax.jit(decoding.take_rows, static_argnames="same_source", compiler_options=QUICKLY)


def assert_close(actual, expected, tolerance=2e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


CASES = [{"positions": positions} for positions in ("learned", "sinusoidal", "alibi", "t5")] + [
    {"num_kv_heads": 2, "qk_norm": True, "positions": "rope", "encoder_layers": 1},
    {"attention_sink": True, "attention_softcap": 2.0, "norm_place": "post", "embedding_norm": True},
    {"layer_sharing": 2, "parallel_block": True, "scan_layers": True, "attention_window": 4},
    {"attention_implementation": "xla", "num_kv_heads": 1, "head_bias": True},
]


@pytest.mark.parametrize("changes", first_quick(4, reversed(CASES)), ids=str)
def test_steps_equal_the_full_forward_while_rows_move(changes):
    config = encoder_decoder(**changes)
    params = any_params(config)
    full = translation_logits(config, params, source(), SOURCE_SEGMENTS, tokens())
    unstacked = unstack_layers(params)
    state, rows_B = start(config, unstacked, source(), SOURCE_SEGMENTS, 12), jnp.arange(2)
    for place in range(12):
        logits_BV, state = step(config, unstacked, tokens()[rows_B, place: place + 1], state)
        assert_close(logits_BV, full[rows_B, place])  # reddens when a leaf of the state keeps its rows
        if place == 3:
            swapped = jnp.array([1, 0])
            state, rows_B = take_rows(state, swapped), rows_B[swapped]


def test_beams_of_one_source_leave_it_where_it_is():
    config = encoder_decoder()
    params = any_params(config)
    state = take_rows(start(config, params, source(), SOURCE_SEGMENTS, 4), jnp.array([0, 0, 1, 1]))
    _, state = step(config, params, jnp.array([[1], [2], [3], [4]]), state)
    within = jnp.array([1, 0, 3, 3])
    moved, quickly = (take_rows(state, within, same_source=same) for same in (False, True))
    jax.tree.map(np.testing.assert_array_equal, moved, quickly)
    assert not np.array_equal(moved.cache.keys[0], state.cache.keys[0])


def test_a_source_without_padding_needs_no_segments():
    config = encoder_decoder()
    params = any_params(config)
    ones = jnp.ones((2, 7), jnp.int32)
    one, other = (step(config, params, tokens()[:, :1], start(config, params, source(), segments, 4))[0]
                  for segments in (None, ones))
    assert_close(one, other)
    assert_close(one, translation_logits(config, params, source(), None, tokens()[:, :1])[:, 0])


def test_state_is_a_loop_carry():
    config = encoder_decoder(positions="rope")
    params = any_params(config)

    def body(carry):
        state, last_B1 = carry
        logits_BV, state = decoding.step(config, params, last_B1, state)
        return state, jnp.argmax(logits_BV, axis=-1, keepdims=True)

    carry = (start(config, params, source(), SOURCE_SEGMENTS, 6), jnp.ones((2, 1), jnp.int32))
    state, _ = jax.jit(lambda carry: jax.lax.while_loop(lambda carry: carry[0].cache.length < 5, body, carry))(carry)
    assert int(state.cache.length) == 5 and state.encoded.features_BSD is None


def test_architectures_that_read_no_source_are_refused():
    for architecture in ("decoder", "encoder"):
        with pytest.raises(UserError, match=f"architecture={architecture} reads no source"):
            decoding.start(small(architecture=architecture), {}, source(), None, 4)
    with pytest.raises(UserError, match="17 tokens do not fit"):
        decoding.start(encoder_decoder(), {}, source(), None, 17)
