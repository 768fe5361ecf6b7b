"""Finite automata over bytes, and how they are lifted to a tokenizer's tokens.

A token's effect is that of its bytes, one after another. Bytes that do the same in every state are one letter, tokens
that spell the same letters one word, and words that share a beginning are walked together (a trie), so that 50,000
tokens cost about as much as the few hundred or thousand that differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from purelm.errors import UserError

# States times classes of a token automaton (64 MiB), and pairs of a state and a word that are walked.
MAX_ENTRIES = MAX_PAIRS = 1 << 24


class ByteAutomaton(NamedTuple):
    """next_QB: int32 [Q, 256], the state after a byte, -1 where there is none; final_Q: bool. State 0 starts."""

    next_QB: np.ndarray
    final_Q: np.ndarray


class Lifted(NamedTuple):
    """A TokenAutomaton's arrays (see there)."""

    classes_V: np.ndarray
    next_QC: np.ndarray
    final_Q: np.ndarray


class _Trie(NamedTuple):
    """Words as paths of letters: the children of a node have the numbers first_child_N to first_child_N + num_N - 1,
    and letters_N is the letter that leads to a node. Node 0 is the empty word. nodes_V: where each token ends."""

    first_child_N: np.ndarray
    num_children_N: np.ndarray
    letters_N: np.ndarray
    nodes_V: np.ndarray


def search(patterns: Sequence[bytes]) -> ByteAutomaton:
    """Final once one of the patterns (not empty) was read, whatever comes before and after (Aho & Corasick 1975)."""
    children: list[dict[int, int]] = [{}]
    ends = set()
    for pattern in patterns:
        state = 0
        for byte in pattern:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
            state = children[state][byte]
        ends.add(state)
    next_QB = np.zeros((len(children), 256), np.int32)
    final_Q = np.isin(np.arange(len(children)), list(ends))
    # Breadth first: a state's longest proper suffix is shorter, so that its row is ready.
    suffix, queue = [0] * len(children), deque([0])
    while queue:
        state = queue.popleft()
        if state:
            next_QB[state] = next_QB[suffix[state]]
            final_Q[state] |= final_Q[suffix[state]]
        for byte, child in children[state].items():
            suffix[child] = int(next_QB[suffix[state], byte]) if state else 0
            next_QB[state, byte] = child
            queue.append(child)
    next_QB[final_Q] = np.flatnonzero(final_Q)[:, None]
    return ByteAutomaton(next_QB, final_Q)


def lift(automaton: ByteAutomaton, token_bytes: Sequence[bytes], *, special_ids: Collection[int], separator: bytes,
         neutral: bool, field: str) -> Lifted:
    """The automaton over tokens, less the states that no tokens reach.

    special_ids: tokens that are no text. separator: bytes between two tokens. neutral: whether tokens without bytes,
    special ones among them, leave the state as it is; else they are not allowed. field: names it in an error.

    Raises UserError where the result would be too large.
    """
    if separator:
        automaton = _with_own_start(automaton)
    letters_B, next_QK = _letters(automaton.next_QB)
    trie = _trie(token_bytes, frozenset(special_ids), letters_B)
    starts_Q = np.arange(len(next_QK), dtype=np.int32)
    for byte in separator:
        starts_Q[1:] = np.where(starts_Q[1:] >= 0, next_QK[starts_Q[1:], letters_B[byte]], -1)
    nodes_P, origins_P, ends_P = _walk(trie, next_QK, starts_Q, field)
    classes_N, next_QC = _classes(trie, nodes_P, origins_P, ends_P, len(next_QK), neutral, field)
    classes_V = classes_N[trie.nodes_V]
    return without_states(Lifted(classes_V, next_QC, automaton.final_Q), _reached(next_QC, [0]))


def without_states(lifted: Lifted, keep_Q: np.ndarray) -> Lifted:
    """Only the states of keep_Q (bool), the start among them; of equal classes one, and none that no token has."""
    numbers_Q = np.where(keep_Q, np.cumsum(keep_Q) - 1, -1).astype(np.int32)
    used_C, classes_V = np.unique(lifted.classes_V, return_inverse=True)
    next_QC = lifted.next_QC[keep_Q][:, used_C]
    next_QC = np.where(next_QC >= 0, numbers_Q[next_QC], -1)
    next_QC, classes_C = np.unique(next_QC, axis=1, return_inverse=True)
    return Lifted(classes_C.reshape(-1).astype(np.int32)[classes_V.reshape(-1)], np.ascontiguousarray(next_QC),
                  lifted.final_Q[keep_Q])


def ending_states(lifted: Lifted) -> np.ndarray:
    """The states from which tokens lead to a final one, bool [Q]."""
    return _reached(lifted.next_QC, np.flatnonzero(lifted.final_Q), backward=True)


def _reached(next_QC: np.ndarray, sources: Sequence[int], backward: bool = False) -> np.ndarray:
    """The states reached from `sources`, bool [Q]."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    states = len(next_QC)
    origins, classes = np.nonzero(next_QC >= 0)
    edges = np.unique(origins.astype(np.int64) * states + next_QC[origins, classes])
    origins, ends = np.divmod(edges, states)
    if backward:
        origins, ends = ends, origins
    # One more state, that leads to all sources.
    origins = np.concatenate([origins, np.full(len(sources), states)])
    ends = np.concatenate([ends, np.asarray(sources, np.int64)])
    graph = csr_array((np.ones(len(ends), np.int8), (origins, ends)), shape=(states + 1, states + 1))
    reached = np.zeros(states + 1, bool)
    reached[breadth_first_order(graph, states, return_predecessors=False)] = True
    return reached[:states]


def _with_own_start(automaton: ByteAutomaton) -> ByteAutomaton:
    """The same with a start that nothing leads back to."""
    next_QB = np.where(automaton.next_QB >= 0, automaton.next_QB + 1, -1).astype(np.int32)
    return ByteAutomaton(np.concatenate([next_QB[:1], next_QB]),
                         np.concatenate([automaton.final_Q[:1], automaton.final_Q]))


def _letters(next_QB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The letter of each byte, and the state after each letter, [Q, K]."""
    next_QK, letters_B = np.unique(next_QB, axis=1, return_inverse=True)
    return letters_B.reshape(-1).astype(np.int32), np.ascontiguousarray(next_QK)


def _trie(token_bytes: Sequence[bytes], special_ids: frozenset[int], letters_B: np.ndarray) -> _Trie:
    texts = [b"" if i in special_ids else text for i, text in enumerate(token_bytes)]
    lengths_V = np.fromiter(map(len, texts), np.int64, len(texts))
    starts_V = np.cumsum(lengths_V) - lengths_V
    spelled = letters_B[np.frombuffer(b"".join(texts), np.uint8)]
    nodes_V = np.zeros(len(texts), np.int64)
    num_letters, num_nodes = int(letters_B.max()) + 1, 1
    parents, letters = [], [np.zeros(1, np.int64)]
    for depth in range(int(lengths_V.max(initial=0))):
        longer = np.flatnonzero(lengths_V > depth)
        paths, new = np.unique(nodes_V[longer] * num_letters + spelled[starts_V[longer] + depth], return_inverse=True)
        nodes_V[longer] = num_nodes + new
        parents.append(paths // num_letters)
        letters.append(paths % num_letters)
        num_nodes += len(paths)
    parents = np.concatenate(parents) if parents else np.zeros(0, np.int64)
    num_children_N = np.bincount(parents, minlength=num_nodes)
    return _Trie(1 + np.cumsum(num_children_N) - num_children_N, num_children_N, np.concatenate(letters), nodes_V)


def _walk(trie: _Trie, next_QK: np.ndarray, starts_Q: np.ndarray, field: str
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of a state and a token's word that can be read there: the word's node, the state, and the one after.

    Sorted by node, then by state.
    """
    ends_here_N = np.zeros(len(trie.num_children_N), bool)
    ends_here_N[trie.nodes_V] = True
    origins = np.flatnonzero(starts_Q >= 0).astype(np.int32)
    nodes, states = np.zeros(len(origins), np.int64), starts_Q[origins]
    empty = np.zeros(0, np.int32)
    found, total = [(empty, empty, empty)], 0
    while len(nodes):
        counts = trie.num_children_N[nodes]
        total += int(counts.sum())
        if total > MAX_PAIRS:
            raise _too_large(field)
        before = np.cumsum(counts) - counts
        nodes = np.repeat(trie.first_child_N[nodes] - before, counts) + np.arange(counts.sum())
        origins, states = np.repeat(origins, counts), np.repeat(states, counts)
        states = next_QK[states, trie.letters_N[nodes]]
        read = states >= 0
        nodes, origins, states = nodes[read], origins[read], states[read]
        # The children of one level are all before those of the next: sorting level by level sorts all.
        order = np.argsort(nodes, kind="stable")
        order = order[ends_here_N[nodes[order]]]
        found.append((nodes[order], origins[order], states[order]))
    return tuple(np.concatenate(parts) for parts in zip(*found))


def _classes(trie: _Trie, nodes_P: np.ndarray, origins_P: np.ndarray, ends_P: np.ndarray, num_states: int,
             neutral: bool, field: str) -> tuple[np.ndarray, np.ndarray]:
    """The class of each node, and the state after each class: nodes with the same pairs are of one class."""
    # Class 0 can be read nowhere, class 1 changes nothing.
    classes_N = np.zeros(len(trie.num_children_N), np.int64)
    classes_N[0] = int(neutral)
    effects_P2 = np.stack([origins_P, ends_P], axis=1).astype(np.int32)
    starts = np.flatnonzero(np.diff(nodes_P, prepend=-1))
    class_of: dict[bytes, int] = {}
    samples = []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(nodes_P)]):
        effect = effects_P2[start:end]
        number = class_of.setdefault(effect.tobytes(), len(class_of) + 2)
        if number == len(samples) + 2:
            samples.append(effect)
            if num_states * (number + 1) > MAX_ENTRIES:
                raise _too_large(field)
        classes_N[nodes_P[start]] = number
    next_QC = np.full((num_states, len(samples) + 2), -1, np.int32)
    next_QC[:, 1] = np.arange(num_states)
    for number, effect in enumerate(samples):
        next_QC[effect[:, 0], number + 2] = effect[:, 1]
    return classes_N, next_QC


def _too_large(field: str) -> UserError:
    return UserError(f"{field} is too large for this vocabulary: its automaton would have more than {MAX_ENTRIES} "
                     "entries; make it shorter, or its repetitions ({m,n}, maxLength) fewer or without a bound")
