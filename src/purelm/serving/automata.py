"""Stop strings and constraints of requests, compiled once each."""

from __future__ import annotations

import functools
import threading

from purelm.data import Tokenizer
from purelm.inference.automata import TokenAutomaton

_KEPT = 64


class Automata:
    """The automata of one tokenizer. token_bytes: what each id stands for, the marks of a dialogue as nothing."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int):
        marks = range(tokenizer.vocabulary_size, vocabulary_size)
        self.token_bytes: list[bytes] = [*tokenizer.token_bytes, *(b"" for _ in marks)]
        end = [tokenizer.end_of_text_id] if tokenizer.end_of_text else []
        self._options = {"special_ids": frozenset([*end, *marks]), "separator": tokenizer.separator}
        self._compiling = threading.Lock()  # One at a time: a constraint may take seconds and much memory.
        self._constraint = functools.lru_cache(maxsize=_KEPT)(self._compile)
        self._stop = functools.lru_cache(maxsize=_KEPT)(self._compile_stop)

    def stop(self, stops: tuple[str, ...]) -> TokenAutomaton:
        """Of stop strings."""
        return self._stop(stops)

    def constraint(self, kind: str, text: str) -> TokenAutomaton:
        """Of a "regex" or a "json_schema"; raises UserError for one that cannot be read."""
        with self._compiling:
            return self._constraint(kind, text)

    def _compile_stop(self, stops: tuple[str, ...]) -> TokenAutomaton:
        from purelm.inference.automata import stop_strings

        return stop_strings(self.token_bytes, stops, **self._options)

    def _compile(self, kind: str, text: str) -> TokenAutomaton:
        from purelm.inference.automata import json_schema, regex

        make = regex if kind == "regex" else json_schema
        return make(self.token_bytes, text, **self._options)
