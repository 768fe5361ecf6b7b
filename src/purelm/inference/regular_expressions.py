"""Regular expressions, in Python's syntax and meaning, as automata over the bytes of UTF-8.

The standard library parses; its tree becomes a nondeterministic automaton over characters (Thompson 1968), whose
sets of states are the deterministic one's (Rabin & Scott 1959). A set of characters is itself a small automaton over
bytes. The work is bounded: a short expression can ask for an automaton of any size. (outlines_core's Index, which
would do this, takes exponential time for a bounded repetition of alternatives, as every maxLength is, and leaves out
texts that its leftmost-first search never prefers.)
"""

from __future__ import annotations

import functools
import re
import warnings
from re import _constants as operators  # what the standard library's parser answers has no public name
from re import _parser as parser
from typing import Any

import numpy as np

from purelm.errors import UserError
from purelm.inference.byte_automata import ByteAutomaton

_MAX_CHARACTERS = 100_000
_MAX_SETS = 256
_MAX_PARTS = 200_000
_MAX_STATES = 20_000
_MAX_STEPS = 4_000_000
# In a table of bytes: no character of the set goes on so, or one is whole.
_DEAD, _WHOLE = -1, -2
_BOUNDARIES = ({operators.AT_BEGINNING, operators.AT_BEGINNING_STRING}, {operators.AT_END, operators.AT_END_STRING})
_CATEGORIES = {
    operators.CATEGORY_DIGIT: r"\d", operators.CATEGORY_NOT_DIGIT: r"\D", operators.CATEGORY_SPACE: r"\s",
    operators.CATEGORY_NOT_SPACE: r"\S", operators.CATEGORY_WORD: r"\w", operators.CATEGORY_NOT_WORD: r"\W",
}
_UNSUPPORTED = {
    operators.AT: "an assertion (^, $ or \\b inside of it)", operators.ASSERT: "a lookahead or lookbehind",
    operators.ASSERT_NOT: "a lookahead or lookbehind", operators.GROUPREF: "a back reference",
    operators.GROUPREF_EXISTS: "a conditional", operators.ATOMIC_GROUP: "an atomic group",
    operators.POSSESSIVE_REPEAT: "a possessive repetition",
}


def byte_automaton(pattern: str, field: str) -> ByteAutomaton:
    """The automaton of the texts for which `re.fullmatch(pattern, text)` holds. field: names it in an error.

    Raises UserError for a wrong pattern, one with assertions or references inside, or one too large.
    """
    if len(pattern) > _MAX_CHARACTERS:
        raise _too_large(field)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern)
        parts = _Parts(field)
        end = parts.sequence(_without_boundaries(list(tree)), parts.new(), tree.state.flags)
    except (re.error, OverflowError) as error:
        raise UserError(f"{field} is not a regular expression: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise UserError(f"{field} is nested too deeply; make it simpler") from error
    return _deterministic(parts, end, field)


class _Parts:
    """The nondeterministic automaton, while it is built: state s goes on to every one of skips[s] without reading, or
    to targets[s] with a character of the set numbered reads[s]. A state is entered before it has a way on."""

    def __init__(self, field: str):
        self.field, self.steps = field, 0
        self.skips: list[list[int]] = []
        self.reads: list[int] = []
        self.targets: list[int] = []
        self.sets: dict[str | int, int] = {}
        self.tables: list[np.ndarray] = []

    def new(self) -> int:
        self.skips.append([])
        self.reads.append(-1)
        self.targets.append(-1)
        return len(self.skips) - 1

    def sequence(self, items: Any, state: int, flags: int) -> int:
        """The state after `items`, read from `state` on."""
        for operator, argument in items:
            state = self.item(operator, argument, state, flags)
        return state

    def item(self, operator: Any, argument: Any, state: int, flags: int) -> int:
        self._count()
        if operator is operators.SUBPATTERN:
            _, added, removed, items = argument
            return self.sequence(items, state, (flags | added) & ~removed)
        if operator is operators.BRANCH:
            end = self.new()
            for items in argument[1]:
                self.skips[self.sequence(items, self._skip_to_new(state), flags)].append(end)
            return end
        if operator in (operators.MAX_REPEAT, operators.MIN_REPEAT):
            return self._repeat(*argument, state, flags)
        if operator in _UNSUPPORTED:
            raise UserError(f"{self.field} has {_UNSUPPORTED[operator]}, which cannot be used; the whole text must "
                            "match anyway")
        self.reads[state] = self._set(operator, argument, flags)
        self.targets[state] = self.new()
        return self.targets[state]

    def _repeat(self, least: int, most: int, items: Any, state: int, flags: int) -> int:
        for _ in range(least):
            self._count()
            state = self.sequence(items, state, flags)
        end = self.new()
        self.skips[state].append(end)
        if most is operators.MAXREPEAT:
            self.skips[self.sequence(items, self._skip_to_new(state), flags)].append(state)
            return end
        for _ in range(most - least):
            self._count()
            state = self.sequence(items, self._skip_to_new(state), flags)
            self.skips[state].append(end)
        return end

    def _skip_to_new(self, state: int) -> int:
        new = self.new()
        self.skips[state].append(new)
        return new

    def _count(self) -> None:
        self.steps += 1
        if max(self.steps, len(self.skips)) > _MAX_PARTS:
            raise _too_large(self.field)

    def _set(self, operator: Any, argument: Any, flags: int) -> int:
        """The number of a set of characters; equal sets, equally written, have one."""
        if operator is operators.LITERAL and not flags & re.IGNORECASE:
            key, table = argument, _literal_table
        else:
            key = _written(operator, argument, flags)
            table = _set_table
        if key not in self.sets:
            if len(self.sets) >= _MAX_SETS and table is _set_table:
                raise _too_large(self.field)
            self.sets[key] = len(self.tables)
            self.tables.append(table(key))
        return self.sets[key]


def _without_boundaries(items: list[Any]) -> list[Any]:
    """Less ^ at the start and $ at the end, which say what holds anyway."""
    if items and items[0][0] is operators.AT and items[0][1] in _BOUNDARIES[0]:
        items = items[1:]
    if items and items[-1][0] is operators.AT and items[-1][1] in _BOUNDARIES[1]:
        items = items[:-1]
    if len(items) == 1 and items[0][0] is operators.SUBPATTERN:
        group, added, removed, inner = items[0][1]
        return [(operators.SUBPATTERN, (group, added, removed, _without_boundaries(list(inner))))]
    if len(items) == 1 and items[0][0] is operators.BRANCH:
        return [(operators.BRANCH, (None, [_without_boundaries(list(inner)) for inner in items[0][1][1]]))]
    return items


def _written(operator: Any, argument: Any, flags: int) -> str:
    """A set of characters as a regular expression of its own."""
    letters = "".join(letter for letter, flag in (("i", re.I), ("s", re.S), ("a", re.A)) if flags & flag)
    if operator is operators.ANY:
        return f"(?{letters}:.)" if letters else "."
    parts = {operators.LITERAL: [(operators.LITERAL, argument)],
             operators.NOT_LITERAL: [(operators.NEGATE, None), (operators.LITERAL, argument)],
             operators.IN: argument}[operator]
    inside = "".join(_written_part(*part) for part in parts)
    return f"(?{letters}:[{inside}])" if letters else f"[{inside}]"


def _written_part(operator: Any, argument: Any) -> str:
    if operator is operators.NEGATE:
        return "^"
    if operator is operators.CATEGORY:
        return _CATEGORIES[argument]
    first, last = argument if operator is operators.RANGE else (argument, argument)
    return f"\\U{first:08x}-\\U{last:08x}"


@functools.cache
def _all_characters() -> str:
    """Every code point in order, half surrogate pairs too."""
    return np.arange(0x110000, dtype=np.uint32).tobytes().decode("utf-32-le", errors="surrogatepass")


def _literal_table(code_point: int) -> np.ndarray:
    if 0xD800 <= code_point < 0xE000:
        return np.full((1, 256), _DEAD)
    text = chr(code_point).encode()
    table = np.full((len(text), 256), _DEAD)
    for node, byte in enumerate(text):
        table[node, byte] = node + 1 if node + 1 < len(text) else _WHOLE
    return table


@functools.lru_cache(maxsize=256)
def _set_table(written: str) -> np.ndarray:
    """The automaton of the UTF-8 of a set of characters: [nodes, 256], node 0 first."""
    member = np.zeros(5 << 18, bool)
    for match in re.finditer(f"{written}+", _all_characters()):
        member[match.start():match.end()] = True
    member[0xD800:0xE000] = False
    nodes: list[np.ndarray] = [np.full(256, _DEAD)]
    nodes[0][:0x80] = np.where(member[:0x80], _WHOLE, _DEAD)
    for lead, continuations, first, end in ((0xC0, 1, 0x80, 0x800), (0xE0, 2, 0x800, 0x10000),
                                            (0xF0, 3, 0x10000, 5 << 18)):
        ids = np.where(member[:end], _WHOLE, _DEAD)
        ids[:first] = _DEAD
        # The last six bits are the last byte: rows of 64 that are equal are one node.
        for _ in range(continuations):
            rows, inverse = _unique_rows(ids.reshape(-1, 64))
            numbers = np.full(len(rows), _DEAD)
            for i in np.flatnonzero((rows != _DEAD).any(axis=1)):
                numbers[i] = len(nodes)
                nodes.append(np.full(256, _DEAD))
                nodes[-1][0x80:0xC0] = rows[i]
            ids = numbers[inverse]
        nodes[0][lead:lead + len(ids)] = ids
    return np.stack(nodes)


def _unique_rows(ids_R64: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows, and for each row which of them it is."""
    if ids_R64.max() == _DEAD:
        # Of two values: 64 bits a row, as one number, sort a hundred times faster.
        keys_R = np.packbits(ids_R64 == _DEAD, axis=1).view(np.uint64).reshape(-1)
        _, first, inverse = np.unique(keys_R, return_index=True, return_inverse=True)
        return ids_R64[first], inverse
    rows, inverse = np.unique(ids_R64, axis=0, return_inverse=True)
    return rows, inverse.reshape(-1)


def _deterministic(parts: _Parts, end: int, field: str) -> ByteAutomaton:
    """The sets of states: each state with the node of its set of characters that was reached."""
    tables = [np.zeros((0, 256), int), *parts.tables]
    roots = np.cumsum([len(table) for table in tables]).tolist()
    table_NB = np.concatenate([np.where(table >= 0, table + root, table) for table, root in zip(parts.tables, roots)]
                              or tables)
    table_NK, letters_B = np.unique(table_NB, axis=1, return_inverse=True)
    work = 0
    steps_N = [[(letter, node) for letter, node in enumerate(row) if node != _DEAD] for row in table_NK.tolist()]

    @functools.cache
    def entered(state: int) -> frozenset[tuple[int, int]]:
        """Where `state` leads without reading; (end, -1) stands for the end."""
        nonlocal work
        seen, waiting = {state}, [state]
        while waiting:
            new = set(parts.skips[waiting.pop()]) - seen
            seen |= new
            waiting += new
        work += len(seen)
        return frozenset((s, roots[parts.reads[s]] if parts.reads[s] >= 0 else -1)
                         for s in seen if parts.reads[s] >= 0 or s == end)

    numbers = {entered(0): 0}
    sets, rows = [entered(0)], []
    for current in sets:
        following: dict[int, set[tuple[int, int]]] = {}
        work += len(current)
        for state, node in current:
            for letter, next_node in steps_N[node] if node >= 0 else ():
                reached = entered(parts.targets[state]) if next_node == _WHOLE else ((state, next_node),)
                following.setdefault(letter, set()).update(reached)
                work += len(reached)
        row = np.full(table_NK.shape[1], _DEAD, np.int32)
        for letter, members in following.items():
            key = frozenset(members)
            if key not in numbers:
                numbers[key] = len(sets)
                sets.append(key)
            row[letter] = numbers[key]
        rows.append(row)
        if len(sets) > _MAX_STATES or work > _MAX_STEPS:
            raise _too_large(field)
    final_Q = np.array([(end, -1) in members for members in sets])
    return ByteAutomaton(np.stack(rows)[:, letters_B.reshape(-1)], final_Q)


def _too_large(field: str) -> UserError:
    return UserError(f"{field} is too large: its automaton has more than {_MAX_STATES} states or takes too long to "
                     "make; make it shorter, or its repetitions ({m,n}, maxLength) fewer or without a bound")
