"""Stop strings and constraints of requests, compiled once each."""

from __future__ import annotations

import collections
import threading
from typing import Literal

from purelm.data import Tokenizer
from purelm.inference.automata import TokenAutomaton

Kind = Literal["stop", "regex", "json_schema"]
_MOST_KEPT, _MOST_BYTES = 64, 2**28


class Automata:
    """The automata of one tokenizer. token_bytes: what each id stands for, the marks of a dialogue as nothing."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int):
        marks = range(tokenizer.vocabulary_size, vocabulary_size)
        self.token_bytes: list[bytes] = [*tokenizer.token_bytes, *(b"" for _ in marks)]
        self._options = {"special_ids": frozenset([*tokenizer.special_ids, *marks]), "separator": tokenizer.separator}
        self._lock = threading.Lock()
        self._found: collections.OrderedDict[tuple[Kind, str | tuple[str, ...]], TokenAutomaton] = (
            collections.OrderedDict())

    def kept(self, kind: Kind, wanted: str | tuple[str, ...]) -> TokenAutomaton | None:
        """As `get`, but None where it would have to be compiled."""
        with self._lock:
            if (kind, wanted) not in self._found:
                return None
            self._found.move_to_end((kind, wanted))
            return self._found[kind, wanted]

    def get(self, kind: Kind, wanted: str | tuple[str, ...]) -> TokenAutomaton:
        """Of stop strings, a regular expression or a JSON schema's text; UserError for one that cannot be read.

        A constraint may take seconds and much memory.
        """
        found = self.kept(kind, wanted)
        if found is None:
            found = self._compile(kind, wanted)
            with self._lock:
                self._found[kind, wanted] = found
                while len(self._found) > 1 and (len(self._found) > _MOST_KEPT or self._bytes() > _MOST_BYTES):
                    self._found.popitem(last=False)
        return found

    def _bytes(self) -> int:
        return sum(found.next_QC.nbytes + found.classes_V.nbytes for found in self._found.values())

    def _compile(self, kind: Kind, wanted: str | tuple[str, ...]) -> TokenAutomaton:
        from purelm.inference.automata import json_schema, regex, stop_strings

        make = {"stop": stop_strings, "regex": regex, "json_schema": json_schema}[kind]
        return make(self.token_bytes, wanted, **self._options)
