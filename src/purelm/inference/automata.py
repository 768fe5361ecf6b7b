"""What a text may or must not hold, token by token: stop strings and constraints as finite automata over tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class TokenAutomaton(NamedTuple):
    """A deterministic automaton that reads tokens; state 0 is the start.

    classes_V: int32, each token's class: tokens of one class do the same in every state. next_QC: int32, the state
    after a token of the class; -1 where it is not allowed. final_Q: bool, a constraint may end here; a stop string was
    found.
    """

    classes_V: Any
    next_QC: Any
    final_Q: Any


def allowed(automaton: TokenAutomaton, states_B: Any) -> Any:
    """The tokens that each row may take next, bool [B, V]; NumPy in, NumPy out."""
    next_BC = _take(automaton.next_QC, states_B)
    return (next_BC >= 0)[:, _as_of(automaton.classes_V, states_B)]


def allowed_with_end(automaton: TokenAutomaton, states_B: Any, stop_id: Any, vocabulary_size: int | None = None) -> Any:
    """`allowed`, and the end of text exactly in final states: bool [B, V] of a constraint.

    stop_id: of the end of text, one for all or int [B]; None or -1: there is none. vocabulary_size: the model's; the
    ids beyond the tokenizer's are not allowed.
    """
    array_module = np if isinstance(states_B, np.ndarray) else jnp
    allowed_BV = allowed(automaton, states_B)
    missing = 0 if vocabulary_size is None else vocabulary_size - allowed_BV.shape[1]
    allowed_BV = array_module.pad(allowed_BV, ((0, 0), (0, missing)))
    if stop_id is None:
        return allowed_BV
    stop_B1 = array_module.reshape(array_module.asarray(stop_id), (-1, 1))
    final_B1 = _take(automaton.final_Q, states_B)[:, None]
    return array_module.where(array_module.arange(allowed_BV.shape[1]) == stop_B1, final_B1, allowed_BV)


def advance(automaton: TokenAutomaton, states_B: Any, ids_B: Any) -> Any:
    """The states after one more token each, int32 [B].

    A token that is not allowed, or that the automaton does not know (the end of text), changes nothing.
    """
    array_module = np if isinstance(states_B, np.ndarray) and isinstance(ids_B, np.ndarray) else jnp
    classes_V = array_module.asarray(automaton.classes_V)
    known_B = (ids_B >= 0) & (ids_B < len(classes_V))
    classes_B = classes_V[array_module.where(known_B, ids_B, 0)]
    next_B = array_module.asarray(automaton.next_QC)[states_B, classes_B]
    return array_module.where(known_B & (next_B >= 0), next_B, states_B)


def found(automaton: TokenAutomaton, states_B: Any) -> Any:
    """Whether each row is in a final state, bool [B]."""
    return _take(automaton.final_Q, states_B)


def exhausted(automaton: TokenAutomaton, states_B: Any) -> Any:
    """Whether a constraint allows nothing but the end, bool [B]: without a stop id the answer is to be ended here."""
    return (_take(automaton.next_QC, states_B) < 0).all(axis=-1)


def _take(table: Any, states_B: Any) -> Any:
    return _as_of(table, states_B)[states_B]


def _as_of(table: Any, states_B: Any) -> Any:
    return np.asarray(table) if isinstance(states_B, np.ndarray) else jnp.asarray(table)
