"""Decoding with recurrent networks: a state, one token a step, rows that move."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models.recurrent.decoder import DecoderCarry
from purelm.models.recurrent.encoder_decoder import RecurrentEncoderDecoder
from purelm.models.recurrent.network import Carry, Recurrent, init_carry
from purelm.models.transformer import Encoded

Params = Any


class RecurrentState(NamedTuple):
    """A decoder's memory, and the source that it reads; every leaf has rows first."""

    carry: DecoderCarry
    encoded: Encoded


def start(
    config: ModelConfig, params: Params, source_BS: jax.Array, source_segments_BS: jax.Array | None, length: int
) -> RecurrentState:
    """The state before the first target token. `length` is for Transformers, whose state has a size."""
    del length
    encoded = RecurrentEncoderDecoder(config).apply(
        {"params": params}, source_BS, source_segments_BS=source_segments_BS, method="encode")
    return RecurrentState(encoded.cross.carry, encoded._replace(cross=encoded.cross._replace(carry=None)))


def init_state(config: ModelConfig, batch_size: int) -> Carry:
    """A language model's state before the first token. Raises UserError for a network that reads both ways."""
    return init_carry(config, batch_size)


def step(config: ModelConfig, params: Params, tokens_B1: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """(float32 logits_BV of the token after tokens_B1, the state after them), of `start`'s state or `init_state`'s."""
    if isinstance(state, RecurrentState):
        output = RecurrentEncoderDecoder(config).apply(
            {"params": params}, tokens_B1, encoded=state.encoded, carry=state.carry)
        return output.logits_BTV[:, -1], state._replace(carry=output.cache)
    output = Recurrent(config).apply({"params": params}, tokens_B1, carry=state)
    return output.logits_BTV[:, -1], output.cache


def read(config: ModelConfig, params: Params, tokens_BT: jax.Array, lengths_B: jax.Array) -> Carry:
    """A language model's state after the first lengths_B tokens of each row, from 0."""
    # What comes after is padding, which changes no state.
    segments_BT = (jnp.arange(tokens_BT.shape[1]) < lengths_B[:, None]).astype(jnp.int32)
    return Recurrent(config).apply(
        {"params": params}, tokens_BT, carry=init_carry(config, len(lengths_B)), segments_BT=segments_BT,
        method="hidden").cache


def take_rows(state: Any, rows_B: jax.Array, *, same_source: bool = False) -> Any:
    """The state whose row i is the given one's row rows_B[i]; rows may be repeated, left out, more or fewer.

    same_source: each row goes where one of the same source was, as in a beam, so that what was read of it can stay.
    """
    if same_source and isinstance(state, RecurrentState):
        return state._replace(carry=take_rows(state.carry, rows_B))
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows_B, axis=0), state)
