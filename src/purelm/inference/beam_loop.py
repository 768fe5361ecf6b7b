"""The loop of beam search: hypotheses in groups, those that finished, and when a row is done.

Axes: B rows, G groups, K hypotheses a group, C candidates of a step (2 K; with S stop ids (1 + S) K), N
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.inference.automata import TokenAutomaton, advance
from purelm.inference.beam_rules import Text, log_probabilities
from purelm.inference.largest import largest
from purelm.inference.sampling import Sampler
from purelm.inference.stops import is_stop

# (tokens_BX, state) -> (logits_BXV, state), X = G K hypotheses; and (state, parents_BX) -> state
Step = Callable[[jax.Array, Any], tuple[jax.Array, Any]]
Follow = Callable[[Any, jax.Array], Any]


class Found(NamedTuple):
    """The best hypotheses of each row, the best first: those that finished, then those that did not, each by score.

    ids_BNT: int32, their tokens, the end among them; padded with the first stop id (0 where there is none).
    lengths_BN: how many of them are their own. log_probability_BN: float32, nats, of the tokens together under the
    model itself. score_BN: what they were compared by; -inf where there are not so many hypotheses. finished_BN:
    whether it ended. finite: bool scalar, False where logits were not numbers.
    """

    ids_BNT: jax.Array
    lengths_BN: jax.Array
    log_probability_BN: jax.Array
    score_BN: jax.Array
    finished_BN: jax.Array
    finite: jax.Array

    @property
    def ids_BT(self) -> jax.Array:
        """Of the best hypothesis, as all that follow."""
        return self.ids_BNT[:, 0]

    @property
    def lengths_B(self) -> jax.Array:
        return self.lengths_BN[:, 0]

    @property
    def log_probability_B(self) -> jax.Array:
        return self.log_probability_BN[:, 0]

    @property
    def finished_B(self) -> jax.Array:
        return self.finished_BN[:, 0]


class Rules(NamedTuple):
    """What a search is asked for (see `beam_search.search`); a stop id of -1 is none."""

    num_best: int
    num_groups: int
    max_new_tokens: int
    vocabulary_size: int
    sampler: Sampler | None
    constraint: TokenAutomaton | None
    length_penalty: Any
    diversity_penalty: Any
    stop_ids_S: jax.Array

    def penalty(self, length: Any) -> jax.Array:
        """What a hypothesis of `length` tokens has its log-probability divided by."""
        return ((5 + jnp.asarray(length, jnp.float32)) / 6) ** self.length_penalty


class _Hypotheses(NamedTuple):
    """Leaves [B, G, X, ...]. compared: the sum of what tokens were chosen by. automaton: the constraint's states, or
    None."""

    ids: jax.Array
    compared: jax.Array
    log_probability: jax.Array
    automaton: jax.Array | None


class _Finished(NamedTuple):
    """The best finished hypotheses of each group, the best first, [B, G, N, ...], and how many have finished [B, G]."""

    ids: jax.Array
    lengths: jax.Array
    log_probability: jax.Array
    score: jax.Array
    count_BG: jax.Array


class _Beams(NamedTuple):
    """The loop's carry: `position` tokens of each hypothesis are chosen, and the state is before the last."""

    position: jax.Array
    last_BX: jax.Array
    alive: _Hypotheses
    finished: _Finished
    done_BG: jax.Array
    finite: jax.Array
    state: Any


def run(rules: Rules, step: Step, follow: Follow, state: Any, last_BK: jax.Array, prompt_BP: jax.Array) -> Found:
    """Searches from `state`, whose next tokens are last_BK, all of one row alike. prompt_BP: what the repetition
    penalty counts, -1 for padding."""
    beams = _first(rules, state, last_BK)
    prompt_XP = jnp.repeat(prompt_BP, last_BK.shape[1], axis=0)
    beams = jax.lax.while_loop(
        lambda beams: (beams.position < rules.max_new_tokens) & ~jnp.all(beams.done_BG),
        lambda beams: _extend(rules, step, follow, prompt_XP, beams), beams)
    return _answer(rules, beams)


def _first(rules: Rules, state: Any, last_BK: jax.Array) -> _Beams:
    """One hypothesis a group, the empty one; its others have probability 0."""
    rows, groups = last_BK.shape[0], rules.num_groups
    size = last_BK.shape[1] // groups
    shape, kept = (rows, groups, size), (rows, groups, min(rules.num_best, size))
    padding = jnp.maximum(rules.stop_ids_S[0], 0)
    ids = jnp.full((*shape, rules.max_new_tokens), padding, jnp.int32)
    compared = jnp.where(jnp.arange(size) == 0, 0.0, jnp.full(shape, -jnp.inf))
    impossible = jnp.full(kept, -jnp.inf)
    return _Beams(
        position=jnp.zeros((), jnp.int32), last_BX=last_BK,
        alive=_Hypotheses(ids, compared, compared, None if rules.constraint is None else jnp.zeros(shape, jnp.int32)),
        finished=_Finished(ids[:, :, :kept[2]], jnp.zeros(kept, jnp.int32), impossible, impossible,
                           jnp.zeros((rows, groups), jnp.int32)),
        done_BG=jnp.zeros((rows, groups), bool), finite=jnp.ones((), bool), state=state)


def _extend(rules: Rules, step: Step, follow: Follow, prompt_XP: jax.Array, beams: _Beams) -> _Beams:
    rows, groups, size, max_new_tokens = beams.alive.ids.shape
    logits_BXV, state = step(beams.last_BX, beams.state)
    automaton = beams.alive.automaton
    text = Text(prompt_XP, beams.alive.ids.reshape(-1, max_new_tokens), beams.position,
                None if automaton is None else automaton.reshape(-1))
    compared_XV, own_XV = log_probabilities(
        logits_BXV.reshape(rows * groups * size, -1), rules.sampler, rules.constraint, text,
        stop_ids_S=rules.stop_ids_S, vocabulary_size=rules.vocabulary_size)

    shape = (rows, groups, size, -1)
    compared = compared_XV.reshape(shape) + beams.alive.compared[..., None]
    own = own_XV.reshape(shape)
    candidates, parents, tokens = _choose_groups(rules, compared, own, beams)
    ends = is_stop(tokens, rules.stop_ids_S)
    length = beams.position + 1
    in_beam = jnp.arange(ends.shape[2]) < size
    finished = _with_finished(rules, beams, candidates, ends & in_beam, length)

    # Stable: those that do not end first, in the order of their chances, of which there are K at least.
    chosen = jnp.argsort(ends, axis=2, stable=True)[:, :, :size]
    alive, parents, tokens, ended = _take((candidates, parents, tokens, ends), chosen)
    alive = alive._replace(compared=jnp.where(ended, -jnp.inf, alive.compared))
    if rules.constraint is not None:
        alive = alive._replace(automaton=advance(rules.constraint, alive.automaton, tokens))
    if groups * size > 1:
        offsets = jnp.arange(groups)[:, None] * size
        state = follow(state, (offsets + parents).reshape(rows, -1))
    # Log probabilities only fall, so dividing by the largest penalty bounds what a hypothesis can come to.
    bound_BG = jnp.max(alive.compared, axis=2) / rules.penalty(max_new_tokens)
    done_BG = beams.done_BG | (finished.count_BG >= size) | (bound_BG <= finished.score[:, :, -1])
    # One number that is none makes all of its row none.
    finite = beams.finite & ~jnp.any(jnp.isnan(own_XV[:, 0]))
    return _Beams(length, tokens.reshape(rows, -1), alive, finished, done_BG, finite, state)


def _choose_groups(rules: Rules, compared: jax.Array, own: jax.Array, beams: _Beams
                   ) -> tuple[_Hypotheses, jax.Array, jax.Array]:
    """(the C best extensions of each group as hypotheses, their parents in the group, their tokens)."""
    groups, size = compared.shape[1:3]
    chosen = []
    said_BV = jnp.zeros((compared.shape[0], compared.shape[3]), jnp.float32)
    for group in range(groups):
        scores_BKV = compared[:, group]
        if group:
            scores_BKV = scores_BKV - rules.diversity_penalty * said_BV[:, None]
        values, parents, tokens = _best_extensions(scores_BKV, 1 + len(rules.stop_ids_S))
        chosen.append((values, parents, tokens))
        if group + 1 < groups:
            counted = (values > -jnp.inf) & ~is_stop(tokens, rules.stop_ids_S) & ~beams.done_BG[:, group, None]
            counted &= jnp.cumsum(counted, axis=1) <= size
            said_BV = jax.vmap(lambda said_V, ids, weights: said_V.at[ids].add(weights))(
                said_BV, tokens, counted.astype(jnp.float32))
    values, parents, tokens = (jnp.stack(parts, axis=1) for parts in zip(*chosen))
    alive = _take(beams.alive, parents)
    ids = jax.lax.dynamic_update_slice_in_dim(alive.ids, tokens[..., None], beams.position, axis=3)
    own_of_tokens = own.reshape(*own.shape[:2], -1)
    own_of_tokens = jnp.take_along_axis(own_of_tokens, parents * own.shape[3] + tokens, axis=2)
    return alive._replace(
        ids=ids, compared=values, log_probability=alive.log_probability + own_of_tokens), parents, tokens


def _best_extensions(scores_BKV: jax.Array, each: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(values, parents, tokens), each [B, `each` K], the best first."""
    rows, size, vocabulary = scores_BKV.shape
    values, indices = largest(scores_BKV.reshape(rows, -1), min(each, vocabulary) * size)
    return values, indices // vocabulary, (indices % vocabulary).astype(jnp.int32)


def _with_finished(rules: Rules, beams: _Beams, candidates: _Hypotheses, finish: jax.Array, length: jax.Array
                   ) -> _Finished:
    """beams.finished and those candidates that finish in this step, in groups that are not done: the N best of them."""
    kept = beams.finished.score.shape[2]
    score = jnp.where(finish & ~beams.done_BG[..., None], candidates.compared / rules.penalty(length), -jnp.inf)
    new = _Finished(candidates.ids, jnp.broadcast_to(length, score.shape), candidates.log_probability, score, None)
    both = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new], axis=2), beams.finished._replace(count_BG=None), new)
    best = jnp.argsort(-both.score, axis=2, stable=True)[:, :, :kept]
    count_BG = beams.finished.count_BG + jnp.sum(score > -jnp.inf, axis=2, dtype=jnp.int32)
    return _take(both, best)._replace(count_BG=count_BG)


def _take(tree: Any, indices_BGX: jax.Array) -> Any:
    """Of leaves [B, G, Y, ...], the elements `indices_BGX` along Y."""
    def take(leaf: jax.Array) -> jax.Array:
        indices = indices_BGX.reshape(*indices_BGX.shape, *[1] * (leaf.ndim - 3))
        return jnp.take_along_axis(leaf, indices, axis=2)

    return jax.tree.map(take, tree)


def _answer(rules: Rules, beams: _Beams) -> Found:
    """The N best of all groups: the finished, then the others, of groups that are not done."""
    finished, alive = beams.finished, beams.alive
    score = jnp.where(beams.done_BG[..., None], -jnp.inf, alive.compared / rules.penalty(beams.position))
    ended = jnp.concatenate([jnp.ones(finished.score.shape, bool), jnp.zeros(score.shape, bool)], axis=2)
    score = jnp.concatenate([finished.score, score], axis=2)
    lengths = jnp.concatenate([finished.lengths, jnp.broadcast_to(beams.position, alive.compared.shape)], axis=2)
    ids, log_probability = (jnp.concatenate(pair, axis=2) for pair in (
        (finished.ids, alive.ids), (finished.log_probability, alive.log_probability)))
    rows = score.shape[0]
    ids, lengths, log_probability, score, ended = (
        leaf.reshape(rows, 1, -1, *leaf.shape[3:]) for leaf in (ids, lengths, log_probability, score, ended))
    there = score > -jnp.inf
    # Sorted by the last key first: whether there is one, whether it finished, its score.
    order = jnp.lexsort((-score, ~ended, ~there), axis=-1)[..., :rules.num_best]
    ids, lengths, log_probability, score, ended, there = (
        leaf[:, 0] for leaf in _take((ids, lengths, log_probability, score, ended, there), order))
    return Found(
        ids_BNT=ids, lengths_BN=jnp.where(there, lengths, 0),
        log_probability_BN=jnp.where(there, log_probability, -jnp.inf), score_BN=score, finished_BN=ended & there,
        finite=beams.finite)
