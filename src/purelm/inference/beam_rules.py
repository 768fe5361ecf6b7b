"""What hypotheses are compared by: the model's log-probabilities, changed and barred by a Sampler and a constraint."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.errors import UserError
from purelm.inference import penalties
from purelm.inference.automata import TokenAutomaton, allowed_with_end
from purelm.inference.logit_filters import mask_vocabulary
from purelm.inference.penalties import History
from purelm.inference.sampling import Sampler


class Text(NamedTuple):
    """What a step's rules read of X hypotheses.

    prompt_XP: int32 ids, -1 past a prompt's end. ids_XT: the new tokens, `position` of them known. states_X: the
    constraint's; None without one.
    """

    prompt_XP: jax.Array
    ids_XT: jax.Array
    position: jax.Array
    states_X: jax.Array | None


def check_sampler(sampler: Sampler | None) -> None:
    """UserError for what a beam has no use for: it draws nothing."""
    if sampler is None:
        return
    if sampler.temperature not in (0, 1):
        raise UserError(f"temperature is {sampler.temperature}: beam search draws nothing; leave it out")
    for field in ("top_k", "top_p", "min_p"):
        value = getattr(sampler, field)
        if value is not None:
            raise UserError(f"{field} is {value}: beam search draws nothing; set it to none")


def log_probabilities(logits_XV: jax.Array, sampler: Sampler | None, constraint: TokenAutomaton | None, text: Text, *,
                      stop_ids_S: jax.Array, vocabulary_size: int) -> tuple[jax.Array, jax.Array]:
    """(what next tokens are compared by, the model's own log-probabilities), float32 [X, V], nats.

    Penalties and biases change the distribution. What is banned, held back, not allowed or not forced is -inf in it,
    and what is left is not made likelier by that.
    """
    logits_XV = mask_vocabulary(logits_XV.astype(jnp.float32), vocabulary_size)
    own_XV = jax.nn.log_softmax(logits_XV)
    if sampler is None and constraint is None:
        return own_XV, own_XV
    compared_XV = own_XV
    prompt_size = text.prompt_XP.shape[1]
    history = History(
        jnp.concatenate([text.prompt_XP, text.ids_XT], axis=1), *(
            jnp.full(len(text.ids_XT), value, jnp.int32)
            for value in (prompt_size + text.position, prompt_size, 0)))
    if sampler is not None:
        edited_XV = _edit(sampler, logits_XV, history)
        if edited_XV is not logits_XV:
            compared_XV = jax.nn.log_softmax(edited_XV)
        compared_XV = _bar(sampler, compared_XV, history, stop_ids_S)
    if constraint is not None:
        allowed_XV = allowed_with_end(constraint, text.states_X, stop_ids_S[None], logits_XV.shape[1])
        compared_XV = jnp.where(allowed_XV, compared_XV, -jnp.inf)
    return compared_XV, own_XV


def _edit(sampler: Sampler, logits_XV: jax.Array, history: History) -> jax.Array:
    def row(value: float) -> jax.Array:
        return jnp.full((1, 1), value, jnp.float32)

    if sampler.repetition_penalty != 1:
        penalty = sampler.repetition_penalty
        logits_XV = penalties.penalize_repetition(logits_XV, history, row(penalty), row(1 / penalty))
    if sampler.frequency_penalty != 0 or sampler.presence_penalty != 0:
        logits_XV = penalties.penalize_frequency(
            logits_XV, history, row(sampler.frequency_penalty), row(sampler.presence_penalty))
    if sampler.logit_bias:
        ids, values = zip(*sampler.logit_bias)
        logits_XV = penalties.add_biases(logits_XV, jnp.array([ids], jnp.int32), jnp.array([values], jnp.float32))
    return logits_XV


def _bar(sampler: Sampler, compared_XV: jax.Array, history: History, stop_ids_S: jax.Array) -> jax.Array:
    if sampler.banned:
        compared_XV = penalties.ban(compared_XV, jnp.array([sampler.banned], jnp.int32))
    if sampler.min_new_tokens:
        held = jnp.full(1, sampler.min_new_tokens, jnp.int32)
        compared_XV = penalties.hold_stop(compared_XV, history.numbers_B, stop_ids_S[None], held)
    if sampler.forced:
        numbers, ids = (jnp.array([column], jnp.int32) for column in zip(*sampler.forced))
        forced_X1 = penalties.forced_ids(history.numbers_B, numbers, ids)[:, None]
        ids_V = jnp.arange(compared_XV.shape[1])
        compared_XV = jnp.where((forced_X1 < 0) | (ids_V == forced_X1), compared_XV, -jnp.inf)
    return compared_XV
