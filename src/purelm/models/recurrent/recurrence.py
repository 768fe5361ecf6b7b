"""A cell run over time: one lax.scan, whose weights' gradients are single products after it.

Arrays are time-major, [T, B, ...], so that a step's slice lies in one piece.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.models.recurrent.cells import CellParameters, CellState, advance


class Masks(NamedTuple):
    """What happens to the state; None is nothing.

    real_TB1: False at padding, which leaves the state as it was. first_TB1: True where a segment begins, in the
    direction of reading, whose state starts from zero. dropout_BH: factor on the hidden state that the matrix reads.
    """

    real_TB1: jax.Array | None = None
    first_TB1: jax.Array | None = None
    dropout_BH: jax.Array | None = None


def masks_of_segments(segments_BT: jax.Array | None, *, reverse: bool) -> Masks:
    """Masks of rows that hold several segments, and padding (0) anywhere.

    The first token of all continues the state that is given, whatever its segment.
    """
    if segments_BT is None:
        return Masks()
    segments_TB = segments_BT.T[::-1] if reverse else segments_BT.T
    real_TB = segments_TB > 0
    time_TB = jnp.where(real_TB, jnp.arange(segments_TB.shape[0])[:, None], -1)
    # The index of the last real token before each; -1 where there is none.
    before_TB = jnp.concatenate([jnp.full_like(time_TB[:1], -1), jax.lax.cummax(time_TB, axis=0)[:-1]])
    other_TB = jnp.take_along_axis(segments_TB, jnp.maximum(before_TB, 0), axis=0) != segments_TB
    first_TB = real_TB & (before_TB >= 0) & other_TB
    real_TB, first_TB = (mask[::-1] if reverse else mask for mask in (real_TB, first_TB))
    return Masks(real_TB[..., None], first_TB[..., None])


def run_cell(cell: str, parameters: CellParameters, x_TBD: jax.Array, state: CellState, masks: Masks, *,
             reverse: bool) -> tuple[jax.Array, CellState]:
    """(h_TBH in x's type, the state after the last token read); reverse reads from the end.

    The input's products of all steps are one matrix product, before the scan.
    """
    T, B, D = x_TBD.shape
    input_TBG = (x_TBD.reshape(T * B, D) @ parameters.input_DG).reshape(T, B, -1)
    return _recurrence(cell, reverse, input_TBG, parameters.hidden_HG, parameters.bias_G, parameters.hidden_bias_H,
                       state, masks)


def cell_step(cell: str, input_BG: jax.Array, hidden_HG: jax.Array, hidden_bias_BH: jax.Array | None,
              state: CellState, dropout_BH: jax.Array | None) -> CellState:
    """One step: `advance` with the hidden state's product made here; dropout falls on what the product reads."""
    read_BH = state.h_BH if dropout_BH is None else state.h_BH * dropout_BH
    hidden_BG = jnp.matmul(read_BH.astype(hidden_HG.dtype), hidden_HG, preferred_element_type=jnp.float32)
    return advance(cell, input_BG, hidden_BG, hidden_bias_BH, state)


def select(mask_B1: jax.Array | None, one: CellState, other: CellState) -> CellState:
    """`one` in the rows where the mask is True (or there is none), else `other`."""
    return one if mask_B1 is None else jax.tree.map(partial(jnp.where, mask_B1), one, other)


def _scan(cell, reverse, input_TBG, hidden_HG, bias_G, hidden_bias_TBH, state, masks):
    def step(state: CellState, inputs: tuple) -> tuple[CellState, jax.Array]:
        input_BG, hidden_bias_BH, real_B1, first_B1 = inputs
        if first_B1 is not None:
            state = jax.tree.map(lambda leaf: jnp.where(first_B1, 0, leaf), state)
        new = cell_step(cell, input_BG.astype(jnp.float32) + bias_G, hidden_HG, hidden_bias_BH, state, masks.dropout_BH)
        new = select(real_B1, new, state)
        return new, new.h_BH.astype(input_TBG.dtype)

    inputs = (input_TBG, hidden_bias_TBH, masks.real_TB1, masks.first_TB1)
    state, h_TBH = jax.lax.scan(step, state, inputs, reverse=reverse)
    return h_TBH, state


def _over_time(hidden_bias_H, input_TBG, state):
    """The GRU's hidden bias, one a token, so that its gradient tells what the candidate's part of the matrix gets."""
    if hidden_bias_H is None:
        return None
    return jnp.broadcast_to(hidden_bias_H, (*input_TBG.shape[:2], state.h_BH.shape[-1]))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(cell, reverse, input_TBG, hidden_HG, bias_G, hidden_bias_H, state, masks):
    """The scan. By autodiff alone every step would add to the matrix's gradient; here the gates' gradients are kept,
    and the matrix's is one product (Appleyard et al. 2016, arXiv 1604.01946, section 3)."""
    hidden_bias_TBH = _over_time(hidden_bias_H, input_TBG, state)
    return _scan(cell, reverse, input_TBG, hidden_HG, bias_G, hidden_bias_TBH, state, masks)


def _forward(cell, reverse, input_TBG, hidden_HG, bias_G, hidden_bias_H, state, masks):
    def by_step(input_TBG, hidden_bias_TBH, state):
        return _scan(cell, reverse, input_TBG, hidden_HG, bias_G, hidden_bias_TBH, state, masks)

    (h_TBH, last), pull_back = jax.vjp(by_step, input_TBG, _over_time(hidden_bias_H, input_TBG, state), state)
    return (h_TBH, last), (pull_back, h_TBH, hidden_HG, state, masks)


def _backward(cell, reverse, saved, cotangents):
    pull_back, h_TBH, hidden_HG, state, masks = saved
    dinput_TBG, dhidden_bias_TBH, dstate = pull_back(cotangents)
    dgates_TBG = dinput_TBG
    if dhidden_bias_TBH is not None:
        gates = 2 * h_TBH.shape[-1]
        dgates_TBG = jnp.concatenate([dinput_TBG[..., :gates], dhidden_bias_TBH.astype(dinput_TBG.dtype)], axis=-1)
    start_1BH = state.h_BH[None].astype(h_TBH.dtype)
    read_TBH = jnp.concatenate([h_TBH[1:], start_1BH] if reverse else [start_1BH, h_TBH[:-1]])
    if masks.first_TB1 is not None:
        read_TBH = jnp.where(masks.first_TB1, 0, read_TBH)
    if masks.dropout_BH is not None:
        read_TBH = read_TBH * masks.dropout_BH.astype(read_TBH.dtype)
    size, num_gates = hidden_HG.shape
    dhidden_HG = read_TBH.reshape(-1, size).T @ dgates_TBG.reshape(-1, num_gates)
    dbias_G = jnp.sum(dinput_TBG, axis=(0, 1), dtype=jnp.float32)
    dhidden_bias_H = None if dhidden_bias_TBH is None else jnp.sum(dhidden_bias_TBH, axis=(0, 1))
    return dinput_TBG, dhidden_HG.astype(hidden_HG.dtype), dbias_G, dhidden_bias_H, dstate, None


_recurrence.defvjp(_forward, _backward)
