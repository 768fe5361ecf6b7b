"""Rows that each draw by their own rule in one program: the rules are arrays, so that a new one compiles nothing."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.errors import UserError
from purelm.inference import logit_filters as filters
from purelm.inference import penalties
from purelm.inference.penalties import NO_ID, History

if TYPE_CHECKING:
    from purelm.inference.sampling import Sampler


class RowSamplers(NamedTuple):
    """The fields of one Sampler a row, as arrays.

    Float32 [B]: inverse_temperature_B (1 where greedy), top_k_B (inf keeps all), top_p_B (1 keeps all), log_min_p_B
    (-inf keeps all), repetition_penalty_B and its inverse, frequency_penalty_B, presence_penalty_B. Bool [B]:
    greedy_B. Int32 [B]: min_new_tokens_B. [B, J]: bias_ids_BJ with bias_values_BJ (float32), banned_ids_BJ, both
    padded with NO_ID; forced_numbers_BJ, padded with -1, with forced_ids_BJ.
    """

    greedy_B: Any
    inverse_temperature_B: Any
    top_k_B: Any
    top_p_B: Any
    log_min_p_B: Any
    repetition_penalty_B: Any
    inverse_repetition_penalty_B: Any
    frequency_penalty_B: Any
    presence_penalty_B: Any
    min_new_tokens_B: Any
    bias_ids_BJ: Any
    bias_values_BJ: Any
    banned_ids_BJ: Any
    forced_numbers_BJ: Any
    forced_ids_BJ: Any


def stack_samplers(samplers: Sequence[Sampler], *, max_biases: int) -> RowSamplers:
    """NumPy arrays of `samplers`, a row each; J is max_biases, for biases, bans and forced tokens alike.

    Raises UserError for a sampler with more of one of them.
    """
    rows = [_row(sampler, max_biases) for sampler in samplers]
    return RowSamplers(*(np.stack(values) for values in zip(*rows)))


def draw_rows(rows: RowSamplers, logits_BV: jax.Array, keys_B: jax.Array, history: History | None, *,
              allowed_BV: jax.Array | None = None, stop_ids_BS: jax.Array | None = None) -> jax.Array:
    """Draws one id a row, int32 [B], each row by its own rule: what `draw` gives for the row's Sampler, bit for bit.

    Args:
      rows: by `stack_samplers`. NumPy arrays (of B rows, or of one for all) decide while tracing what is computed;
        with JAX arrays what costs much is computed in steps where some row wants it.
      logits_BV: the model's; -inf for what must never come out.
      keys_B: one random key a row.
      history: None where no row has penalties, forced tokens or min_new_tokens.
      allowed_BV: bool, the tokens a constraint allows. Where bans leave none of them, bans give way; a forced token
        does not.
      stop_ids_BS: the ids that min_new_tokens holds back, -1 for none.
    """
    logits_BV = logits_BV.astype(jnp.float32)

    def by_every_rule() -> jax.Array:
        changed_BV = _penalize_and_bias(rows, logits_BV, history)
        return _choose(rows, _bar(rows, changed_BV, history, allowed_BV, stop_ids_BS), keys_B)

    def by_temperature() -> jax.Array:
        open_BV = logits_BV if allowed_BV is None else jnp.where(allowed_BV, logits_BV, -jnp.inf)
        return _choose(rows, open_BV, keys_B, filtered=False)

    wanted = _any_rule(rows, logits_BV.shape[-1])
    # Most rows want none of them, and each conditional copies the logits, wanted or not.
    ids_B = by_every_rule() if isinstance(wanted, bool) else jax.lax.cond(wanted, by_every_rule, by_temperature)
    if history is None:
        return ids_B
    return _where_wanted(_any(rows.forced_numbers_BJ >= 0), lambda ids: _force(rows, ids, history), ids_B)


def scaled_and_filtered(rows: RowSamplers, logits_BV: jax.Array) -> jax.Array:
    """Float32 logits [B, V] of the distribution that rows draw from: after temperature, top_k, top_p and min_p."""
    top_k, top_p, min_p = _any_filter(rows, logits_BV.shape[-1])

    def keep(logits_BV: jax.Array) -> jax.Array:
        logits_BV = _where_wanted(
            top_k, lambda logits: filters.keep_top_k(logits, _column(rows.top_k_B)), logits_BV)
        logits_BV = _where_wanted(
            top_p, lambda logits: filters.keep_top_p(logits, _column(rows.top_p_B)), logits_BV)
        return _where_wanted(
            min_p, lambda logits: filters.keep_min_p(logits, _column(rows.log_min_p_B)), logits_BV)

    return _where_wanted(top_k | top_p | min_p, keep, _scaled(rows, logits_BV))


def _scaled(rows: RowSamplers, logits_BV: jax.Array) -> jax.Array:
    scaled_BV = filters.scale(logits_BV.astype(jnp.float32), _column(rows.inverse_temperature_B))
    return jax.lax.optimization_barrier(scaled_BV)


def _any_rule(rows: RowSamplers, size: int) -> bool | jax.Array:
    """Whether some row wants more than a temperature and forced tokens."""
    rules = (*_any_change(rows), *_any_filter(rows, size), _any(rows.banned_ids_BJ != NO_ID),
             _any(rows.min_new_tokens_B > 0))
    return functools.reduce(operator.or_, rules)


def _any_change(rows: RowSamplers) -> tuple[bool | jax.Array, ...]:
    """Whether some row wants: a penalty of repetition, one of frequency or presence, a bias."""
    return (_any(rows.repetition_penalty_B != 1),
            _any((rows.frequency_penalty_B != 0) | (rows.presence_penalty_B != 0)), _any(rows.bias_ids_BJ != NO_ID))


def _any_filter(rows: RowSamplers, size: int) -> tuple[bool | jax.Array, ...]:
    """Whether some row that is not greedy wants: top_k, top_p, min_p."""
    drawn_B = ~rows.greedy_B
    return (_any(drawn_B & (rows.top_k_B < size)), _any(drawn_B & (rows.top_p_B < 1)),
            _any(drawn_B & (rows.log_min_p_B > -np.inf)))


def _penalize_and_bias(rows: RowSamplers, logits_BV: jax.Array, history: History | None) -> jax.Array:
    repetition, frequency, bias = _any_change(rows)

    def change(logits_BV: jax.Array) -> jax.Array:
        if history is not None:
            logits_BV = _where_wanted(repetition, lambda logits: penalties.penalize_repetition(
                logits, history, _column(rows.repetition_penalty_B), _column(rows.inverse_repetition_penalty_B)),
                logits_BV)
            logits_BV = _where_wanted(frequency, lambda logits: penalties.penalize_frequency(
                logits, history, _column(rows.frequency_penalty_B), _column(rows.presence_penalty_B)), logits_BV)
        return _where_wanted(bias, lambda logits: penalties.add_biases(
            logits, jnp.asarray(rows.bias_ids_BJ), jnp.asarray(rows.bias_values_BJ)), logits_BV)

    # One conditional around all: each copies the logits, wanted or not.
    return _where_wanted(repetition | frequency | bias, change, logits_BV)


def _bar(rows: RowSamplers, open_BV: jax.Array, history: History | None, allowed_BV: jax.Array | None,
         stop_ids_BS: jax.Array | None) -> jax.Array:
    """-inf for what is banned, held back, or not allowed."""
    barred = _any(rows.banned_ids_BJ != NO_ID)
    holds = history is not None and stop_ids_BS is not None
    if holds:
        barred = barred | _any(rows.min_new_tokens_B > 0)

    def bar(logits_BV: jax.Array) -> jax.Array:
        logits_BV = penalties.ban(logits_BV, jnp.asarray(rows.banned_ids_BJ))
        return penalties.hold_stop(logits_BV, history.numbers_B, stop_ids_BS,
                                   rows.min_new_tokens_B) if holds else logits_BV

    logits_BV = _where_wanted(barred, bar, open_BV)
    if allowed_BV is None:
        return logits_BV
    logits_BV = jnp.where(allowed_BV, logits_BV, -jnp.inf)

    def give_way(logits_BV: jax.Array) -> jax.Array:
        none_left_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) == -jnp.inf
        return jnp.where(none_left_B1 & allowed_BV, open_BV, logits_BV)

    return _where_wanted(barred, give_way, logits_BV)


def _choose(rows: RowSamplers, logits_BV: jax.Array, keys_B: jax.Array, filtered: bool = True) -> jax.Array:
    """The most probable token of greedy rows, a random one of the others."""

    def random(ids_B: jax.Array) -> jax.Array:
        left_BV = (scaled_and_filtered if filtered else _scaled)(rows, logits_BV)
        drawn_B = filters.categorical(keys_B, jax.lax.optimization_barrier(left_BV))
        return jnp.where(rows.greedy_B, ids_B, drawn_B)

    return _where_wanted(_any(~rows.greedy_B), random, filters.greedy(logits_BV))


def _force(rows: RowSamplers, ids_B: jax.Array, history: History) -> jax.Array:
    forced_B = penalties.forced_ids(history.numbers_B, rows.forced_numbers_BJ, rows.forced_ids_BJ)
    return jnp.where(forced_B >= 0, forced_B, ids_B)


def _where_wanted(wanted: bool | jax.Array, function: Callable[[jax.Array], jax.Array], value: jax.Array) -> jax.Array:
    """function(value) where some row wants it; rows that do not are left as they are by `function` itself."""
    if isinstance(wanted, bool):
        # Without the barrier the compiler may contract a product and a sum of two stages into one rounding here, but
        # not across the conditional.
        return jax.lax.optimization_barrier(function(value)) if wanted else value
    return jax.lax.cond(wanted, function, lambda value: value, value)


def _any(wanted: np.ndarray | jax.Array) -> bool | jax.Array:
    return bool(wanted.any()) if isinstance(wanted, np.ndarray) else jnp.any(wanted)


def _column(values_B: Any) -> jax.Array:
    return jnp.asarray(values_B)[:, None]


def _row(sampler: Sampler, width: int) -> RowSamplers:
    """One sampler's fields, rounded to float32 once, here, for every way of drawing."""
    one, tiny = np.float32(1), np.finfo(np.float32).tiny
    with np.errstate(over="ignore", under="ignore"):
        temperature = one if sampler.greedy else np.float32(sampler.temperature)
        min_p = 0.0 if sampler.min_p is None else sampler.min_p
        repetition_penalty = np.float32(sampler.repetition_penalty)
        return RowSamplers(
            greedy_B=np.bool_(sampler.greedy),
            inverse_temperature_B=max(one / temperature, tiny),
            top_k_B=np.float32(np.inf if sampler.top_k is None else sampler.top_k),
            top_p_B=np.float32(1 if sampler.top_p is None else sampler.top_p),
            log_min_p_B=np.float32(np.log(min_p) if min_p > 0 else -np.inf),
            repetition_penalty_B=repetition_penalty,
            inverse_repetition_penalty_B=one / repetition_penalty,
            frequency_penalty_B=np.float32(sampler.frequency_penalty),
            presence_penalty_B=np.float32(sampler.presence_penalty),
            min_new_tokens_B=np.int32(sampler.min_new_tokens),
            bias_ids_BJ=_padded("logit_bias", [i for i, _ in sampler.logit_bias], width, NO_ID, np.int32),
            bias_values_BJ=_padded("logit_bias", [value for _, value in sampler.logit_bias], width, 0, np.float32),
            banned_ids_BJ=_padded("banned", sampler.banned, width, NO_ID, np.int32),
            forced_numbers_BJ=_padded("forced", [number for number, _ in sampler.forced], width, -1, np.int32),
            forced_ids_BJ=_padded("forced", [i for _, i in sampler.forced], width, -1, np.int32),
        )


def _padded(field: str, values: Sequence[float], width: int, padding: int, dtype: Any) -> np.ndarray:
    if len(values) > width:
        raise UserError(f"{field} has {len(values)} tokens; at most {width} are taken")
    return np.array([*values, *[padding] * (width - len(values))], dtype)
