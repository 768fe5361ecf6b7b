"""Stop strings and constraints of requests, compiled once each."""

from __future__ import annotations

import functools
import threading

from purelm.data import Tokenizer
from purelm.errors import UserError
from purelm.inference.automata import TokenAutomaton

_KEPT = 64


class Automata:
    """The automata of one tokenizer. token_bytes: what each id stands for, the marks of a dialogue as nothing."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int):
        missing = [b""] * (vocabulary_size - tokenizer.vocabulary_size)
        end = [tokenizer.end_of_text_id] if tokenizer.end_of_text else []
        plain = [b"" if i in end else content for i, content in enumerate(tokenizer.token_bytes)]
        self.token_bytes: list[bytes] = [*tokenizer.token_bytes, *missing]
        self._separator = tokenizer.separator
        self._read = [self._separator + content if content else b"" for content in plain] + missing
        self._compiling = threading.Lock()  # One at a time: a constraint may take seconds and much memory.
        self._constraint = functools.lru_cache(maxsize=_KEPT)(self._compile)
        self._stop = functools.lru_cache(maxsize=_KEPT)(self._compile_stop)

    def stop(self, stops: tuple[str, ...]) -> TokenAutomaton:
        """Of stop strings."""
        return self._stop(stops)

    def constraint(self, kind: str, text: str) -> TokenAutomaton:
        """Of a "regex" or a "json_schema"; raises UserError for one that cannot be read."""
        if self._separator:
            raise UserError(f"{kind} needs a tokenizer that loses nothing of a text; this run's is made of words")
        with self._compiling:
            return self._constraint(kind, text)

    def _compile_stop(self, stops: tuple[str, ...]) -> TokenAutomaton:
        from purelm.inference.automata import stop_strings

        return stop_strings(self._read, stops)

    def _compile(self, kind: str, text: str) -> TokenAutomaton:
        from purelm.inference.automata import json_schema, regex

        return regex(self._read, text) if kind == "regex" else json_schema(self._read, text)
