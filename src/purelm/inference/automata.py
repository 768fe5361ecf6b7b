"""What a text may or must not hold, token by token: stop strings and constraints as finite automata over tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from purelm.errors import UserError
from purelm.inference import constraints
from purelm.inference.byte_automata import ByteAutomaton, ending_states, lift, search, without_states


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

    stop_id: of the end of text, one for all, a tuple of those that end it, int [B] or [B, S]; None or -1: there is
    none. vocabulary_size: the model's; the ids beyond the tokenizer's are not allowed.
    """
    array_module = np if isinstance(states_B, np.ndarray) else jnp
    allowed_BV = allowed(automaton, states_B)
    missing = 0 if vocabulary_size is None else vocabulary_size - allowed_BV.shape[1]
    allowed_BV = array_module.pad(allowed_BV, ((0, 0), (0, missing)))
    if stop_id is None or isinstance(stop_id, tuple) and not stop_id:
        return allowed_BV
    stop_BS = array_module.asarray(stop_id)
    if stop_BS.ndim < 2:
        stop_BS = array_module.reshape(stop_BS, (1, -1) if isinstance(stop_id, tuple) else (-1, 1))
    final_B1 = _take(automaton.final_Q, states_B)[:, None]
    stops_BV = (array_module.arange(allowed_BV.shape[1])[:, None] == stop_BS[:, None]).any(axis=-1)
    return array_module.where(stops_BV, final_B1, allowed_BV)


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


def stop_strings(token_bytes: Sequence[bytes], stops: Sequence[str], *, special_ids: Collection[int] = (),
                 separator: bytes = b"") -> TokenAutomaton:
    """Final once the answer's text holds one of `stops`, wherever in a token it starts and ends.

    Args:
      token_bytes: UTF-8 of every id (`Tokenizer.token_bytes`).
      stops: strings, none of them empty.
      special_ids: ids that stand for no text, as the end of text does.
      separator: bytes between two tokens (`Tokenizer.separator`).

    Raises UserError for an empty stop string, or none, or more than a table can hold.
    """
    for stop in stops:
        check_stop(stop)
    if not stops:
        raise UserError("stop has no strings; give at least one")
    lifted = lift(search([stop.encode() for stop in stops]), token_bytes, special_ids=special_ids,
                  separator=separator, neutral=True, field="stop")
    return TokenAutomaton(*lifted)


def regex(token_bytes: Sequence[bytes], pattern: str, *, special_ids: Collection[int] = (), separator: bytes = b""
          ) -> TokenAutomaton:
    """What the whole answer must match, as `re.fullmatch` has it; arguments as `stop_strings`'.

    From every state tokens lead to a final one, so that an answer never gets stuck.

    Raises UserError for a wrong pattern, one with assertions or references inside, one that no tokens can match, or
    one too large.
    """
    return _constraint("regex", constraints.of_regex(pattern), token_bytes, special_ids, separator)


def json_schema(token_bytes: Sequence[bytes], schema: str | Mapping[str, Any], *, special_ids: Collection[int] = (),
                separator: bytes = b"") -> TokenAutomaton:
    """JSON that fulfills the schema, on one line, its properties in the schema's order; see `regex`.

    Raises UserError also for a schema that outlines_core does not support, and without it.
    """
    text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
    return _constraint("json_schema", constraints.of_schema(text), token_bytes, special_ids, separator)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The text before the stop string that is complete first, and that stop string; (text, None) without one.

    Of several that end at one character it is the longest. What comes after changes nothing, so that a text that grows
    is always cut at the same place.
    """
    ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if not ends:
        return text, None
    end, _, stop = min(ends)
    return text[:end - len(stop)], stop


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many of the text's last characters may be the start of a stop string, and are not to be shown yet."""
    longest = min(max(map(len, stops), default=1) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def check_stop(stop: str) -> None:
    """UserError for a stop string that is empty or no valid Unicode."""
    if not stop:
        raise UserError("stop has an empty string; leave it out")
    try:
        stop.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"stop has no valid Unicode at character {error.start}; give it in UTF-8") from error


def _constraint(field: str, automaton: ByteAutomaton, token_bytes: Sequence[bytes], special_ids: Collection[int],
                separator: bytes) -> TokenAutomaton:
    lifted = lift(automaton, token_bytes, special_ids=special_ids, separator=separator, neutral=False, field=field)
    ending_Q = ending_states(lifted)
    if not ending_Q[0]:
        texts = [token for i, token in enumerate(token_bytes) if i not in special_ids]
        raise constraints.cannot_be_written(field, automaton, [*texts, separator])
    return TokenAutomaton(*without_states(lifted, ending_Q))
