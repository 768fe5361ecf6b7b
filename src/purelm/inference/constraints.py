"""Regular expressions and JSON schemas as byte automata; schemas by outlines_core (the extra `serve`)."""

from __future__ import annotations

import functools
import heapq
import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from purelm.errors import UserError
from purelm.inference.byte_automata import ByteAutomaton
from purelm.inference.regular_expressions import byte_automaton
from purelm.inference.schema_support import check_support

_WORKER = pathlib.Path(__file__).with_name("schema_worker.py")
_MAX_BYTES = 1 << 30
_MAX_SECONDS = 10
_EXIT_REFUSED = 3
# Longer than every path of states: a byte that no token holds is taken only where there is no other.
_MISSING_COST = 1 << 20


@functools.lru_cache(maxsize=4)
def of_regex(pattern: str) -> ByteAutomaton:
    """The automaton of all texts that match as a whole; UserError for what is wrong, too large or not supported."""
    _check_unicode("regex", pattern)
    return byte_automaton(pattern, "regex")


@functools.lru_cache(maxsize=4)
def of_schema(schema: str) -> ByteAutomaton:
    """The automaton of JSON that fulfills `schema`.

    UserError as `of_regex`, for what `check_support` refuses, and without outlines_core.
    """
    _check_unicode("json_schema", schema)
    try:
        check_support(json.loads(schema))
    except json.JSONDecodeError as error:
        raise UserError(f"json_schema is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # Brackets in brackets; a number with thousands of digits.
        raise UserError(f"json_schema cannot be read: {error}") from error
    return byte_automaton(_schema_pattern(schema), "json_schema")


def cannot_be_written(field: str, automaton: ByteAutomaton, token_bytes: Sequence[bytes]) -> UserError:
    """The error of a constraint that no tokens fulfill, with the text that comes nearest."""
    known_B = np.zeros(256, bool)
    known_B[np.frombuffer(b"".join(token_bytes), np.uint8)] = True
    example = _cheapest_text(automaton, np.where(known_B, 1, _MISSING_COST))
    if example is None:
        return UserError(f"{field} cannot be fulfilled: no text matches it")
    example = example.decode("utf-8")
    missing = [character for character in dict.fromkeys(example)
               if not any(character.encode() in text for text in token_bytes)]
    why = f"has no token for {', '.join(map(repr, missing[:5]))}" if missing else "has no tokens that spell it"
    return UserError(f"{field} cannot be fulfilled: the tokenizer {why}, as in {example[:60]!r}")


def _schema_pattern(schema: str) -> str:
    if importlib.util.find_spec("outlines_core") is None:
        raise UserError("json_schema needs outlines-core: pip install -e '.[serve]'")
    try:
        answer = subprocess.run([sys.executable, "-P", str(_WORKER), str(_MAX_BYTES)], input=schema.encode(),
                                capture_output=True, timeout=_MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"json_schema is too large: it takes more than {_MAX_SECONDS} seconds; make it "
                        "simpler") from error
    if answer.returncode == _EXIT_REFUSED:
        # The library's first line says what; the others ask for bug reports.
        reason = answer.stderr.decode(errors="replace").strip().splitlines()[0].strip()
        raise UserError(f"json_schema cannot be used: {reason[:300]}")
    if answer.returncode:
        raise UserError("json_schema is too large, or not one that outlines-core takes; make it simpler")
    return answer.stdout.decode()


def _cheapest_text(automaton: ByteAutomaton, costs_B: np.ndarray) -> bytes | None:
    """The text that leads to a final state for the least (Dijkstra); None where there is none."""
    queue, done = [(0, b"", 0)], set()
    while queue:
        cost, text, state = heapq.heappop(queue)
        if automaton.final_Q[state]:
            return text
        if state in done:
            continue
        done.add(state)
        for byte in np.flatnonzero(automaton.next_QB[state] >= 0).tolist():
            following = int(automaton.next_QB[state, byte])
            if following not in done:
                heapq.heappush(queue, (cost + int(costs_B[byte]), text + bytes([byte]), following))
    return None


def _check_unicode(field: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{field} has no valid Unicode at character {error.start}; give it in UTF-8") from error
