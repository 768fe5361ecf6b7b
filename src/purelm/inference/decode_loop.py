"""The loop behind `generate`, one compiled program: windows of tokens, each drawn, written and judged.

What a call does not ask for is None in the carry and in the inputs, so that its program has nothing of it.
"""

from __future__ import annotations

import enum
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.inference import automata, sampling
from purelm.inference.automata import TokenAutomaton
from purelm.inference.sampling import History, Sampler, mask_vocabulary
from purelm.inference.steps import CacheKind, Source, Steps, make_steps
from purelm.inference.stops import is_stop

# Stands in the ids for a token whose logits were not numbers.
NOT_A_NUMBER = -1
# More tokens than any text has: the window of a recurrent network.
ENDLESS = 1 << 30


class Reason(enum.IntEnum):
    """Why a row ended: max_new_tokens, its stop_id, a stop string, or nothing more that its constraint allows."""

    LENGTH = 0
    STOP_ID = 1
    STOP_STRING = 2
    CONSTRAINT = 3


class Sizes(NamedTuple):
    """The shapes a program is compiled for: columns of ids, tokens of a prefill, rows of the cache."""

    buffer: int
    prefill: int
    cache: int


class Plan(NamedTuple):
    """All that a program is compiled for. num_samples: rows that share a prompt. alternatives: None, or how many of
    the likeliest tokens are kept beside each token's log-probability."""

    config: ModelConfig
    sampler: Sampler
    sizes: Sizes
    vocabulary_size: int
    num_samples: int
    alternatives: int | None
    cache: CacheKind


class Rows(NamedTuple):
    """Where each row's own prompt ends, and where its answer ends at the latest: positions, int32 [B]."""

    starts_B: jax.Array
    ends_B: jax.Array


class Inputs(NamedTuple):
    """What a program is given beside parameters. origin: the position in the text of column 0 of ids_BX. stop_ids_S: -1
    is none. stop, constraint: None, or automata whose arrays have padded sizes. ended_Q: of the constraint, the states
    in which nothing can be written, not even a stop id. source: of an encoder-decoder, B / num_samples rows."""

    ids_BX: jax.Array
    rows: Rows
    origin: jax.Array
    keys_B: jax.Array
    stop_ids_S: jax.Array
    stop: TokenAutomaton | None
    constraint: TokenAutomaton | None
    ended_Q: jax.Array | None
    source: Source | None


class Likely(NamedTuple):
    """By position: each token's log-probability [B, X], nats, under the model itself; and the likeliest ids and their
    log-probabilities [B, X, J], None where J is 0."""

    log_probabilities_BX: jax.Array
    ids_BXJ: jax.Array | None
    alternatives_BXJ: jax.Array | None


class State(NamedTuple):
    """The loop's carry: ids_BX are known up to `position`, the memory up to the token before the last of them."""

    ids_BX: jax.Array
    position: jax.Array
    lengths_B: jax.Array
    reasons_B: jax.Array
    log_probabilities_B: jax.Array
    memory: Any
    stop_B: jax.Array | None
    constraint_B: jax.Array | None
    likely: Likely | None


class Drawn(NamedTuple):
    """A step's tokens, their log-probabilities, and the likeliest [B, J] where asked for."""

    ids_B: jax.Array
    log_probabilities_B: jax.Array
    alternative_ids_BJ: jax.Array | None
    alternatives_BJ: jax.Array | None


def window_start(position: Any, context_length: int) -> Any:
    """Position of the first token seen by the token at `position` (an int or an integer array).

    0 up to context_length, then multiples of half of it: never more than context_length tokens are seen.
    """
    stride = context_length - context_length // 2
    over = position - context_length
    return (over + stride - 1) // stride * stride * (over > 0)


def window_of(config: ModelConfig) -> int:
    """The most tokens that one is drawn from. Of a target after a source, too, there is no second window."""
    return config.context_length if config.architecture == "decoder" else ENDLESS


@functools.partial(jax.jit, static_argnums=0)
def run(plan: Plan, params: Any, inputs: Inputs) -> State:
    """The compiled program: the state when every row has ended, without its memory."""
    config, ids_BX, samples = plan.config, inputs.ids_BX, plan.num_samples
    batch_size = ids_BX.shape[0]
    # A target is read token by token from its first.
    first = jnp.min(inputs.rows.starts_B) if inputs.source is None else jnp.ones((), jnp.int32)
    steps = make_steps(config, params, rows=batch_size // samples, cache=plan.sizes.cache, prefill=plan.sizes.prefill,
                       prompt_end=first, kind=plan.cache, source=inputs.source)
    memory = steps.memory
    if samples > 1:
        if steps.prefill is not None:
            memory = steps.prefill(ids_BX[::samples], window_start(first, window_of(config)), first, memory)
        memory = steps.take_rows(memory, jnp.repeat(jnp.arange(batch_size // samples), samples))
    state = first_state(inputs, first, memory, plan.alternatives)
    return _decode(plan, steps, inputs, state)._replace(memory=None)


def first_state(inputs: Inputs, position: jax.Array, memory: Any, alternatives: int | None) -> State:
    """Before the token at `position` is drawn."""
    rows, columns = inputs.ids_BX.shape
    nothing_B = jnp.zeros(rows, jnp.int32)
    reasons_B = nothing_B
    if inputs.ended_Q is not None:
        reasons_B = jnp.where(inputs.ended_Q[0], jnp.int32(Reason.CONSTRAINT), reasons_B)
    return State(
        ids_BX=inputs.ids_BX, position=position, lengths_B=nothing_B, reasons_B=reasons_B,
        log_probabilities_B=jnp.zeros(rows, jnp.float32), memory=memory,
        stop_B=None if inputs.stop is None else nothing_B,
        constraint_B=None if inputs.constraint is None else nothing_B,
        likely=None if alternatives is None else _no_likely(rows, columns, alternatives))


def _no_likely(rows: int, columns: int, alternatives: int) -> Likely:
    ids = values = None
    if alternatives:
        ids = jnp.zeros((rows, columns, alternatives), jnp.int32)
        values = jnp.zeros((rows, columns, alternatives), jnp.float32)
    return Likely(jnp.zeros((rows, columns), jnp.float32), ids, values)


def _decode(plan: Plan, steps: Steps, inputs: Inputs, state: State) -> State:
    """Draws tokens from state.position until all rows have ended; window after window."""
    window, first = window_of(plan.config), state.position

    def unfinished(state: State) -> jax.Array:
        return ~jnp.all(finished(inputs, state))

    def next_window(state: State) -> State:
        start = window_start(state.position, window)

        def prefill(memory: Any) -> Any:
            return steps.prefill(state.ids_BX, start, state.position, memory)

        if plan.num_samples > 1:  # The first window's is there already.
            memory = jax.lax.cond(state.position == first, lambda memory: memory, prefill, state.memory)
        else:
            memory = prefill(state.memory)
        last = start + window + 1
        return jax.lax.while_loop(lambda state: unfinished(state) & (state.position < last), next_token,
                                  state._replace(memory=memory))

    def next_token(state: State) -> State:
        tokens_B1 = jax.lax.dynamic_slice_in_dim(state.ids_BX, state.position - 1, 1, axis=1)
        logits_BV, memory = steps.step(tokens_B1, state.memory)
        return write(inputs, state._replace(memory=memory), _draw(plan, inputs, state, logits_BV))

    if steps.prefill is None:
        return jax.lax.while_loop(unfinished, next_token, state)
    return jax.lax.while_loop(unfinished, next_window, state)


def finished(inputs: Inputs, state: State) -> jax.Array:
    """Whether each row has ended."""
    return (state.reasons_B > 0) | (state.position >= inputs.rows.ends_B)


def given(inputs: Inputs, state: State) -> tuple[jax.Array, jax.Array]:
    """(whether the token at state.position is of the prompt, that token): bool and int32 [B]."""
    given_B = jax.lax.dynamic_slice_in_dim(state.ids_BX, state.position, 1, axis=1)[:, 0]
    return state.position < inputs.rows.starts_B, given_B


def _draw(plan: Plan, inputs: Inputs, state: State, logits_BV: jax.Array) -> Drawn:
    """The token at state.position of each row, were it not given."""
    keys_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(inputs.keys_B, inputs.origin + state.position)
    logits_BV = mask_vocabulary(logits_BV.astype(jnp.float32), plan.vocabulary_size)
    allowed_BV = None
    if inputs.constraint is not None:
        allowed_BV = automata.allowed_with_end(inputs.constraint, state.constraint_B, inputs.stop_ids_S[None],
                                               logits_BV.shape[-1])
    everywhere_B = jnp.zeros_like(inputs.rows.starts_B)
    history = History(
        ids_BX=state.ids_BX, lengths_B=everywhere_B + state.position, starts_B=inputs.rows.starts_B,
        window_starts_B=everywhere_B + window_start(state.position, window_of(plan.config)))
    ids_B = sampling.draw(plan.sampler, logits_BV, keys_B, history, allowed_BV=allowed_BV,
                          stop_id=inputs.stop_ids_S[None])
    return judged(logits_BV, ids_B, plan.alternatives)


def judged(logits_BV: jax.Array, ids_B: jax.Array, alternatives: int | None) -> Drawn:
    """The drawn ids with their log-probabilities and the likeliest beside them; NOT_A_NUMBER for no numbers."""
    total_B = jax.nn.logsumexp(logits_BV, axis=-1)
    log_probabilities_B = jnp.take_along_axis(logits_BV, ids_B[:, None], axis=-1)[:, 0] - total_B
    likely_ids_BJ = likely_BJ = None
    if alternatives:
        likely_BJ, likely_ids_BJ = jax.lax.top_k(logits_BV, alternatives)
        likely_BJ = likely_BJ - total_B[:, None]
    ids_B = jnp.where(jnp.isfinite(jnp.max(logits_BV, axis=-1)), ids_B, NOT_A_NUMBER)
    return Drawn(ids_B, log_probabilities_B, likely_ids_BJ, likely_BJ)


def write(inputs: Inputs, state: State, drawn: Drawn) -> State:
    """The state with a step's tokens: the drawn ones, or a prompt's own, which do not count."""
    in_prompt_B, given_B = given(inputs, state)
    drawn = drawn._replace(ids_B=jnp.where(in_prompt_B, given_B, drawn.ids_B))
    written_B = ~in_prompt_B & ~finished(inputs, state)
    ids_B, reasons_B = drawn.ids_B, state.reasons_B
    stop_B, constraint_B, likely = state.stop_B, state.constraint_B, state.likely
    if inputs.constraint is not None:
        constraint_B = jnp.where(written_B, automata.advance(inputs.constraint, constraint_B, ids_B), constraint_B)
        reasons_B = jnp.where(written_B & inputs.ended_Q[constraint_B], Reason.CONSTRAINT, reasons_B)
    if inputs.stop is not None:
        stop_B = jnp.where(written_B, automata.advance(inputs.stop, stop_B, ids_B), stop_B)
        reasons_B = jnp.where(written_B & automata.found(inputs.stop, stop_B), Reason.STOP_STRING, reasons_B)
    reasons_B = jnp.where(written_B & is_stop(ids_B, inputs.stop_ids_S), Reason.STOP_ID, reasons_B)
    if likely is not None:
        columns = Likely(drawn.log_probabilities_B, drawn.alternative_ids_BJ, drawn.alternatives_BJ)
        likely = jax.tree.map(lambda all_BX, new_B: _write_column(all_BX, new_B, state.position), likely, columns)
    return State(
        ids_BX=_write_column(state.ids_BX, ids_B, state.position),
        position=state.position + 1,
        lengths_B=state.lengths_B + written_B,
        reasons_B=reasons_B,
        log_probabilities_B=state.log_probabilities_B + jnp.where(written_B, drawn.log_probabilities_B, 0),
        memory=state.memory, stop_B=stop_B, constraint_B=constraint_B, likely=likely)


def _write_column(all_BX: jax.Array, new_B: jax.Array, position: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(all_BX, new_B[:, None], position, axis=1)
