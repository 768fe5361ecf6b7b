"""LSTM and GRU cells: one step of each, with derivatives in closed form, and their initial values.

All gates of a step are one array and one tanh, since sigmoid(x) = (1 + tanh(x / 2)) / 2: on CPU this is several times
faster than an activation for each slice, and the derivative by autodiff would compute the slices again.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers

NUM_GATES = {"lstm": 4, "gru": 3}


class CellState(NamedTuple):
    """What a cell remembers, float32 [B, H]: the hidden state, and the memory of an LSTM (of a GRU None)."""

    h_BH: jax.Array
    c_BH: jax.Array | None


class CellParameters(NamedTuple):
    """Matrices [D, G] and [H, G] in the compute type, biases [G] and (GRU alone, else None) [H] in float32.

    G: the gates beside each other in PyTorch's order, input, forget, candidate, output (LSTM) or reset, update,
    candidate (GRU). PyTorch's two biases are added up here where only their sum counts.
    """

    input_DG: jax.Array
    hidden_HG: jax.Array
    bias_G: jax.Array
    hidden_bias_H: jax.Array | None


def zero_state(cell: str, batch_size: int, hidden_size: int) -> CellState:
    """The state before the first token."""
    zeros_BH = jnp.zeros((batch_size, hidden_size), jnp.float32)
    return CellState(zeros_BH, zeros_BH if cell == "lstm" else None)


def advance(cell: str, input_BG: jax.Array, hidden_BG: jax.Array, hidden_bias_BH: jax.Array | None,
            state: CellState) -> CellState:
    """The next state, from the products of input (bias included) and hidden state with their matrices, in float32."""
    if cell == "lstm":
        return CellState(*lstm(input_BG + hidden_BG, state.c_BH))
    return CellState(gru(input_BG, hidden_BG, hidden_bias_BH, state.h_BH), None)


def _lstm_scale(hidden_size: int) -> np.ndarray:
    return np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), hidden_size)


@jax.custom_vjp
def lstm(gates_BG: jax.Array, c_BH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(h_BH, c_BH): c' = f c + i g, h' = o tanh(c'), with i, f, o sigmoids and g a tanh of their part of the gates.

    Hochreiter & Schmidhuber 1997 (Neural Computation 9), with forget gates (Gers et al. 2000) and no peepholes.
    """
    return _lstm_forward(gates_BG, c_BH)[0]


def _lstm_forward(gates_BG: jax.Array, c_BH: jax.Array) -> tuple[tuple, tuple]:
    scale_G = _lstm_scale(c_BH.shape[-1])
    i, f, g, o = jnp.split(jnp.tanh(gates_BG * scale_G) * scale_G + (1 - scale_G), 4, axis=-1)
    new_c_BH = f * c_BH + i * g
    tanh_BH = jnp.tanh(new_c_BH)
    return (o * tanh_BH, new_c_BH), (i, f, g, o, c_BH, tanh_BH)


def _lstm_backward(saved: tuple, cotangents: tuple) -> tuple[jax.Array, jax.Array]:
    i, f, g, o, c_BH, tanh_BH = saved
    dh_BH, dc_BH = cotangents
    dc_BH = dc_BH + dh_BH * o * (1 - tanh_BH * tanh_BH)
    parts = [dc_BH * g * i * (1 - i), dc_BH * c_BH * f * (1 - f), dc_BH * i * (1 - g * g),
             dh_BH * tanh_BH * o * (1 - o)]
    return jnp.concatenate(parts, axis=-1), dc_BH * f


lstm.defvjp(_lstm_forward, _lstm_backward)


@jax.custom_vjp
def gru(input_BG: jax.Array, hidden_BG: jax.Array, hidden_bias_BH: jax.Array, h_BH: jax.Array) -> jax.Array:
    """h' = (1 - z) n + z h, n = tanh(x_n + r (u_n + b_n)), r and z sigmoids of x + u: x of the input, u of the state.

    Cho et al. 2014 (arXiv 1406.1078), the reset gate after the product, as in cuDNN and PyTorch.
    """
    return _gru_forward(input_BG, hidden_BG, hidden_bias_BH, h_BH)[0]


def _gru_forward(input_BG, hidden_BG, hidden_bias_BH, h_BH) -> tuple[jax.Array, tuple]:
    two = 2 * h_BH.shape[-1]
    r, z = jnp.split(0.5 * jnp.tanh(0.5 * (input_BG[:, :two] + hidden_BG[:, :two])) + 0.5, 2, axis=-1)
    read_BH = hidden_BG[:, two:] + hidden_bias_BH
    n = jnp.tanh(input_BG[:, two:] + r * read_BH)
    return n + z * (h_BH - n), (r, z, n, read_BH, h_BH)


def _gru_backward(saved: tuple, dh_BH: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    r, z, n, read_BH, h_BH = saved
    dn_BH = dh_BH * (1 - z) * (1 - n * n)
    dgates = [dn_BH * read_BH * r * (1 - r), dh_BH * (h_BH - n) * z * (1 - z)]
    dread_BH = dn_BH * r
    dinput_BG, dhidden_BG = (jnp.concatenate([*dgates, last], axis=-1) for last in (dn_BH, dread_BH))
    return dinput_BG, dhidden_BG, dread_BH, dh_BH * z


gru.defvjp(_gru_forward, _gru_backward)


def _by_gate(initializer, key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype, *, num_gates: int) -> jax.Array:
    """A matrix for each gate, beside each other; in float32 first, since QR has no bfloat16."""
    part = (shape[0], shape[1] // num_gates)
    gates = jax.vmap(lambda gate_key: initializer(gate_key, part, jnp.float32))(jax.random.split(key, num_gates))
    return jnp.moveaxis(gates, 0, 1).reshape(shape).astype(dtype)


def input_initializer(cell: str) -> initializers.Initializer:
    """Xavier uniform for each gate (Glorot & Bengio 2010)."""
    return partial(_by_gate, initializers.xavier_uniform(), num_gates=NUM_GATES[cell])


def hidden_initializer(cell: str) -> initializers.Initializer:
    """Orthogonal for each gate (Saxe et al. 2014, arXiv 1312.6120)."""
    return partial(_by_gate, initializers.orthogonal(), num_gates=NUM_GATES[cell])


def bias_initializer(cell: str) -> initializers.Initializer:
    """Zero, but 1 for an LSTM's forget gates, which so remember at the start (Jozefowicz et al. 2015, section 2.2)."""
    ones = [0.0, 1.0, 0.0, 0.0] if cell == "lstm" else [0.0] * 3
    return lambda key, shape, dtype: jnp.repeat(jnp.asarray(ones, dtype), shape[0] // len(ones))
