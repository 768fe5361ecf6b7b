"""The engine's compiled programs: decode, some tokens of all rows, and prefill, a chunk of one row.

Their shapes are the engine's, whoever is in its rows, so that nothing is compiled while it runs, and a row's numbers
are the same in every company. What costs much is computed only while some row asks for it.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference.engine import memory_paged, memory_recurrent
from purelm.inference.engine.rows import MAX_ALTERNATIVES, Rows
from purelm.inference.largest import largest
from purelm.inference.penalties import History
from purelm.inference.row_sampling import draw_rows
from purelm.inference.sampling import mask_vocabulary
from purelm.inference.stops import is_stop
from purelm.models import make_model

# The most steps of one call of the decode program: rows of its results.
MAX_STEPS = 64
# In place of an id: the row drew nothing; its logits were not finite.
NOTHING, NOT_FINITE = -2, -1


class Plan(NamedTuple):
    """What the programs are compiled for, beside the shapes. vocabulary_size: the tokenizer's."""

    config: ModelConfig
    vocabulary_size: int


class Drawn(NamedTuple):
    """New tokens, [B, ...] of one step or [S, B, ...] of several: ids, their log-probabilities (0 where nobody asked),
    and the MAX_ALTERNATIVES likeliest ids with theirs."""

    ids: jax.Array
    log_probabilities: jax.Array
    alternative_ids: jax.Array
    alternatives: jax.Array


class _State(NamedTuple):
    """The loop's carry: rows with the tokens so far; `drawn` of the steps so far."""

    number: jax.Array
    rows: Rows
    memory: Any
    drawn: Drawn


def memory_of(config: ModelConfig) -> ModuleType:
    """The module that reads and keeps a row's text: memory_paged or memory_recurrent."""
    return memory_recurrent if config.architecture == "recurrent" else memory_paged


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def decode(plan: Plan, params: Any, memory: Any, rows: Rows, steps: jax.Array) -> tuple[Any, Drawn]:
    """(memory, Drawn [MAX_STEPS, B]) after at most `steps` tokens of each row that has a budget.

    A row ends at a stop id of its own, at its budget, or where its logits are not finite.
    """
    batch_size = rows.lengths_B.shape[0]
    drawn = _nothing(plan, MAX_STEPS, batch_size)

    def unfinished(state: _State) -> jax.Array:
        return (state.number < steps) & jnp.any(state.rows.budgets_B > 0)

    def step(state: _State) -> _State:
        rows, alive_B = state.rows, state.rows.budgets_B > 0
        last_B1 = jnp.maximum(rows.lengths_B - 1, 0)[:, None]
        tokens_B1 = jnp.where(alive_B[:, None], jnp.take_along_axis(rows.ids_BX, last_B1, axis=1), 0)
        logits_BV, memory = memory_of(plan.config).step(plan.config, params, tokens_B1, state.memory, rows, alive_B)
        new = _draw(plan, rows, logits_BV, alive_B)
        columns_B = jnp.where(alive_B, rows.lengths_B, rows.ids_BX.shape[1])
        ended_B = is_stop(new.ids, rows.stop_ids_BS) | (new.ids == NOT_FINITE)
        rows = rows._replace(
            ids_BX=rows.ids_BX.at[jnp.arange(batch_size), columns_B].set(new.ids, mode="drop"),
            lengths_B=rows.lengths_B + alive_B,
            budgets_B=jnp.where(ended_B, 0, jnp.maximum(rows.budgets_B - 1, 0)))
        drawn = jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_index_in_dim(whole, part, state.number, 0), state.drawn, new)
        return _State(state.number + 1, rows, memory, drawn)

    state = jax.lax.while_loop(unfinished, step, _State(jnp.zeros((), jnp.int32), rows, memory, drawn))
    return state.memory, state.drawn


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def prefill(plan: Plan, params: Any, memory: Any, row: Rows, tokens_1T: jax.Array, slot: jax.Array, start: jax.Array,
            count: jax.Array) -> tuple[Any, Drawn]:
    """(memory, Drawn [1, 1]) after `count` tokens of one row's window, from its token `start` on; the rest is padding.

    Where the row has a budget, the next token is drawn.
    """
    x_1TD, memory = memory_of(plan.config).read(plan.config, params, tokens_1T, memory, row, slot, start, count)

    def draw() -> Drawn:
        x_1D = jax.lax.dynamic_index_in_dim(x_1TD, count - 1, axis=1, keepdims=False)
        logits_1V = make_model(plan.config).apply({"params": params}, x_1D, method="logits")
        return jax.tree.map(lambda leaf: leaf[None], _draw(plan, row, logits_1V, jnp.ones(1, bool)))

    return memory, jax.lax.cond(row.budgets_B[0] > 0, draw, lambda: _nothing(plan, 1, 1))


def _alternatives(plan: Plan) -> int:
    return min(MAX_ALTERNATIVES, plan.config.vocabulary_size)


def _nothing(plan: Plan, steps: int, rows: int) -> Drawn:
    shape = (steps, rows)
    wide = (*shape, _alternatives(plan))
    return Drawn(jnp.full(shape, NOTHING, jnp.int32), jnp.zeros(shape, jnp.float32), jnp.zeros(wide, jnp.int32),
                 jnp.zeros(wide, jnp.float32))


def _draw(plan: Plan, rows: Rows, logits_BV: jax.Array, alive_B: jax.Array) -> Drawn:
    """Each row's next token."""
    logits_BV = mask_vocabulary(logits_BV.astype(jnp.float32), plan.vocabulary_size)
    keys_B = jax.random.wrap_key_data(rows.key_data_BW)
    keys_B = jax.vmap(jax.random.fold_in)(keys_B, rows.origins_B + rows.lengths_B)
    history = History(rows.ids_BX, rows.lengths_B, rows.starts_B, rows.window_starts_B)
    ids_B = draw_rows(rows.samplers, logits_BV, keys_B, history, allowed_BV=_allowed(rows, logits_BV.shape[1]),
                      stop_ids_BS=rows.stop_ids_BS)
    finite_B = jnp.isfinite(jnp.max(logits_BV, axis=-1))
    wanted_B = jnp.where(alive_B, rows.alternatives_B, -1)
    total_B = jax.lax.cond(jnp.any(wanted_B >= 0), lambda: jax.nn.logsumexp(logits_BV, axis=-1),
                           lambda: jnp.zeros(len(wanted_B)))
    chosen_B = jnp.take_along_axis(logits_BV, ids_B[:, None], axis=-1)[:, 0] - total_B

    def likeliest() -> tuple[jax.Array, jax.Array]:
        values_BJ, ids_BJ = largest(logits_BV, _alternatives(plan))
        return values_BJ - total_B[:, None], ids_BJ

    def nothing() -> tuple[jax.Array, jax.Array]:
        none = _nothing(plan, 1, len(wanted_B))
        return none.alternatives[0], none.alternative_ids[0]

    alternatives_BJ, alternative_ids_BJ = jax.lax.cond(jnp.any(wanted_B > 0), likeliest, nothing)
    ids_B = jnp.where(alive_B, jnp.where(finite_B, ids_B, NOT_FINITE), NOTHING)
    return Drawn(ids_B, chosen_B, alternative_ids_BJ, alternatives_BJ)


def _allowed(rows: Rows, size: int) -> jax.Array:
    """Bool [B, size]: what rows may draw."""
    batch_size = rows.constrained_B.shape[0]

    def unpacked() -> jax.Array:
        bits_BVX = rows.allowed_BV8[..., None] >> jnp.arange(8, dtype=jnp.uint8) & 1
        return (bits_BVX.reshape(batch_size, -1)[:, :size] > 0) | ~rows.constrained_B[:, None]

    return jax.lax.cond(jnp.any(rows.constrained_B), unpacked, lambda: jnp.ones((batch_size, size), bool))
