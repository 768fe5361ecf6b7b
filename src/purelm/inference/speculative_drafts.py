"""What guesses the next tokens in speculative decoding: a small model, or the text itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.speculative_readers import Reader


class ModelDraft(NamedTuple):
    """A small language model with the target's tokenizer: a decoder or a recurrent network, and its parameters."""

    config: ModelConfig
    params: Any


@dataclasses.dataclass(frozen=True)
class LookUp:
    """The text so far: what followed the latest place that ends as the text does now (prompt look-up, Saxena 2023).

    longest, shortest: tokens that must agree, as many as possible; shorter matches propose nothing. Where a match
    overlaps the text's end, its repetition goes on.

    Raises UserError for shortest < 1 or longest < shortest.
    """

    longest: int
    shortest: int

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise UserError(f"LookUp(longest={self.longest}, shortest={self.shortest}): shortest must be 1 or "
                            "more, and longest no less")


class Drafter(NamedTuple):
    """Guesses, as functions of `memory`; positions_B are those of each row's next token.

    stale, fill: as of a Reader. propose: (ids_BX, positions_B, memory) -> Proposal. keep: (Proposal, advanced_B) -> the
    memory once advanced_B tokens from positions_B on are known, of which all but the last were as proposed; 0 is of
    rows that have ended. found: (ids_BX, positions_B) -> bool [B], whether there is anything to propose.
    """

    memory: Any
    stale: Callable[[jax.Array, Any], jax.Array]
    fill: Callable[[jax.Array, jax.Array, Any], Any]
    propose: Callable[[jax.Array, jax.Array, Any], Proposal]
    keep: Callable[[Proposal, jax.Array], Any]
    found: Callable[[jax.Array, jax.Array], jax.Array]


class Proposal(NamedTuple):
    """ids_BX: the text with the drafted tokens from positions_B on. logits_BGV: float32, of the distribution that each
    was drawn from; None where not asked for. memory: after them; states: the memory after each token read, [G + 1, ...]
    a leaf, of a model that cannot go back to an earlier one."""

    ids_BX: jax.Array
    logits_BGV: jax.Array | None
    memory: Any
    states: Any


# (logits_BTV, ids_BX known up to each, positions_B of the first) -> (ids_BT, logits_BTV drawn from, or None)
Draw = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]


def model_drafter(reader: Reader, draw: Draw, num_drafted: int) -> Drafter:
    """Guesses by a model, each drawn from its own logits."""

    def propose(ids_BX: jax.Array, positions_B: jax.Array, memory: Any) -> Proposal:
        def step(carry: tuple[jax.Array, Any], number: jax.Array) -> tuple[tuple[jax.Array, Any], tuple[Any, Any]]:
            ids_BX, memory = carry
            next_B = positions_B + number
            logits_B1V, memory = reader.read(slices(ids_BX, next_B - 1, 1), next_B - 1, memory)
            drafted_B1, drawn_from_B1V = draw(logits_B1V, ids_BX, next_B)
            drawn_from_BV = None if drawn_from_B1V is None else drawn_from_B1V[:, 0]
            state = None if reader.rewinds else memory
            return (with_slices(ids_BX, drafted_B1, next_B), memory), (drawn_from_BV, state)

        (ids_BX, memory), (logits_GBV, states) = jax.lax.scan(step, (ids_BX, memory), jnp.arange(num_drafted))
        # The last guess is read for the memory's sake; its logits go unused, so that XLA leaves them out.
        last_B = positions_B + num_drafted - 1
        _, memory = reader.read(slices(ids_BX, last_B, 1), last_B, memory)
        if not reader.rewinds:
            states = jax.tree.map(lambda before, last: jnp.concatenate([before, last[None]]), states, memory)
        logits_BGV = None if logits_GBV is None else jnp.swapaxes(logits_GBV, 0, 1)
        return Proposal(ids_BX, logits_BGV, memory, states)

    def keep(proposal: Proposal, advanced_B: jax.Array) -> Any:
        if reader.rewinds:
            return proposal.memory
        read_B = jnp.maximum(advanced_B - 1, 0)
        return jax.tree.map(lambda states: states[read_B, jnp.arange(read_B.shape[0])], proposal.states)

    def found(ids_BX: jax.Array, positions_B: jax.Array) -> jax.Array:
        return jnp.ones(positions_B.shape, bool)

    return Drafter(reader.memory, reader.stale, reader.fill, propose, keep, found)


def look_up_drafter(draft: LookUp, num_drafted: int) -> Drafter:
    """Guesses by `LookUp`; it has no memory."""

    def propose(ids_BX: jax.Array, positions_B: jax.Array, memory: None) -> Proposal:
        ends_B, _ = matches(draft, ids_BX, positions_B)
        periods_B1 = (positions_B - ends_B)[:, None]
        columns_BG = ends_B[:, None] + jnp.arange(num_drafted) % periods_B1
        drafted_BG = jnp.take_along_axis(ids_BX, columns_BG, axis=1)
        return Proposal(with_slices(ids_BX, drafted_BG, positions_B), None, None, None)

    def never(positions_B: jax.Array, memory: None) -> jax.Array:
        return jnp.zeros(positions_B.shape, bool)

    return Drafter(None, never, lambda ids_BX, positions_B, memory: None, propose, lambda proposal, advanced_B: None,
                   lambda ids_BX, positions_B: matches(draft, ids_BX, positions_B)[1])


def matches(draft: LookUp, ids_BX: jax.Array, positions_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the position after each row's best match, whether there is one): of those of most tokens up to draft.longest the
    latest; where there is none, the last known token."""
    columns_X = jnp.arange(ids_BX.shape[1])
    agree_BX, lengths_BX = True, 0
    for back in range(draft.longest):
        # Column x is compared as the end of a match: the tokens `back` before it and before the text's last one.
        known_B1 = (positions_B - 1 - back)[:, None]
        token_B1 = jnp.take_along_axis(ids_BX, jnp.maximum(known_B1, 0), axis=1)
        agree_BX &= (jnp.roll(ids_BX, back, axis=1) == token_B1) & (columns_X >= back) & (known_B1 >= 0)
        lengths_BX += agree_BX.astype(jnp.int32)
    counts_BX = (columns_X < (positions_B - 1)[:, None]) & (lengths_BX >= draft.shortest)
    best_B = jnp.max(jnp.where(counts_BX, lengths_BX * len(columns_X) + columns_X, -1), axis=1)
    found_B = best_B >= 0
    return jnp.where(found_B, best_B % len(columns_X) + 1, positions_B - 1), found_B


def slices(ids_BX: jax.Array, starts_B: jax.Array, size: int) -> jax.Array:
    """Columns starts_B to starts_B + size - 1 of each row."""
    return jnp.take_along_axis(ids_BX, starts_B[:, None] + jnp.arange(size), axis=1)


def with_slices(ids_BX: jax.Array, new_BT: jax.Array, starts_B: jax.Array) -> jax.Array:
    """The rows with new_BT from columns starts_B on."""
    columns_BT = starts_B[:, None] + jnp.arange(new_BT.shape[1])
    return ids_BX.at[jnp.arange(ids_BX.shape[0])[:, None], columns_BT].set(new_BT)
