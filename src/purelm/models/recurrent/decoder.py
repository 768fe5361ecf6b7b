"""A recurrent decoder with attention, as a pure function of arrays: one step, and a scan over them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.models.recurrent.attention import AttentionParameters, attend
from purelm.models.recurrent.cells import CellParameters, CellState
from purelm.models.recurrent.recurrence import cell_step


class DecoderCarry(NamedTuple):
    """A decoder's memory between steps, float32: the state of each layer, and what is fed to the next step's input
    (Luong's attentional vector; of Bahdanau None)."""

    cells: tuple[CellState, ...]
    feed_BD: jax.Array | None


class Source(NamedTuple):
    """What a decoder needs of its source besides the features: the keys, and the carry that it starts from."""

    keys_BSA: jax.Array
    carry: DecoderCarry | None


class DecoderParameters(NamedTuple):
    """cells: of each layer; the first one's matrix reads the embedding, then what is fed. readout: matrix and bias."""

    cells: tuple[CellParameters, ...]
    attention: AttentionParameters
    readout: tuple[jax.Array, jax.Array]


class Dropped(NamedTuple):
    """Dropout factors: of each layer's hidden state [B, H], and between layers [T, B, H]; None is no dropout."""

    state: tuple[jax.Array | None, ...]
    between: tuple[jax.Array | None, ...]


class Memory(NamedTuple):
    """The source as `attend` reads it."""

    keys_BSA: jax.Array
    features_BSD: jax.Array
    real_BS: jax.Array | None


def decode(
    cell: str, parameters: DecoderParameters, x_TBD: jax.Array, carry: DecoderCarry, memory: Memory, dropped: Dropped,
    real_TB1: jax.Array | None, *, collect: bool,
) -> tuple[jax.Array, DecoderCarry, jax.Array | None]:
    """(readout_TBD, the carry after the last token, weights_TBS or None); real_TB1 False changes no carry.

    Bahdanau et al. 2015 (arXiv 1409.0473): the context, by the state before, enters the cell beside the embedding, and
    the readout is tanh(W [h; c; x] + b) of state, context and embedding (a maxout there). Luong et al. 2015 (arXiv
    1508.04025, equation 5 and section 3.3): the context is by the new state, the readout is tanh(W [c; h] + b), and it
    enters the next step's cell beside the embedding (input feeding).
    """
    input_TBG = _embedding_products(parameters.cells[0], x_TBD)
    bahdanau = parameters.attention.vector_A is not None

    def step(carry: DecoderCarry, inputs: tuple) -> tuple[DecoderCarry, tuple]:
        input_BG, real_B1, between = inputs
        states, context_BD, weights_BS, feed_BD = _step(
            cell, parameters, input_BG, carry, memory, dropped.state, between, x_TBD.shape[-1])
        new = DecoderCarry(states, feed_BD)
        if real_B1 is not None:
            new = jax.tree.map(lambda one, other: jnp.where(real_B1, one, other), new, carry)
        shown = (states[-1].h_BH.astype(x_TBD.dtype), context_BD) if bahdanau else feed_BD.astype(x_TBD.dtype)
        return new, (shown, weights_BS if collect else None)

    carry, (shown, weights_TBS) = jax.lax.scan(step, carry, (input_TBG, real_TB1, dropped.between))
    readout_TBD = _readout(parameters, jnp.concatenate([*shown, x_TBD], axis=-1)) if bahdanau else shown
    return readout_TBD, carry, weights_TBS


def _embedding_products(first: CellParameters, x_TBD: jax.Array) -> jax.Array:
    """The part of the first layer's products that no step waits for."""
    T, B, D = x_TBD.shape
    return (x_TBD.reshape(T * B, D) @ first.input_DG[:D]).reshape(T, B, -1)


def _readout(parameters: DecoderParameters, x: jax.Array) -> jax.Array:
    kernel, bias = parameters.readout
    return jnp.tanh((x.reshape(-1, x.shape[-1]) @ kernel + bias).reshape(*x.shape[:-1], -1))


def _step(
    cell: str, parameters: DecoderParameters, input_BG: jax.Array, carry: DecoderCarry, memory: Memory,
    dropped_state: tuple, dropped_between: tuple, width: int,
) -> tuple[tuple[CellState, ...], jax.Array, jax.Array, jax.Array | None]:
    """(each layer's state, context_BD, weights_BS, the attentional vector or None)."""
    bahdanau = parameters.attention.vector_A is not None
    if bahdanau:
        context_BD, weights_BS = attend(parameters.attention, carry.cells[-1].h_BH, *memory)
    fed_BD = context_BD if bahdanau else carry.feed_BD
    states, x_BD = [], None
    for number, layer in enumerate(parameters.cells):
        if number == 0:
            gates_BG = input_BG.astype(jnp.float32) + _product(fed_BD, layer.input_DG[width:])
        else:
            gates_BG = _product(x_BD, layer.input_DG)
        bias_BH = layer.hidden_bias_H
        bias_BH = None if bias_BH is None else jnp.broadcast_to(bias_BH, carry.cells[number].h_BH.shape)
        state = cell_step(cell, gates_BG + layer.bias_G, layer.hidden_HG, bias_BH, carry.cells[number],
                          dropped_state[number])
        states.append(state)
        if number + 1 < len(parameters.cells):
            factor_BH = dropped_between[number]
            x_BD = state.h_BH if factor_BH is None else state.h_BH * factor_BH
    if bahdanau:
        return tuple(states), context_BD, weights_BS, None
    context_BD, weights_BS = attend(parameters.attention, states[-1].h_BH, *memory)
    h_BH = states[-1].h_BH.astype(context_BD.dtype)
    vector_BD = _readout(parameters, jnp.concatenate([context_BD, h_BH], axis=-1)).astype(jnp.float32)
    return tuple(states), context_BD, weights_BS, vector_BD


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
