"""What is asked of the engine, and what it answers, token by token."""

from __future__ import annotations

import dataclasses
from typing import Literal

from purelm.inference.automata import TokenAutomaton
from purelm.inference.sampling import Sampler
from purelm.inference.stops import StopIds

# stop: a stop id, a stop string, or the end of what a constraint allows. length: max_new_tokens. error: the logits
# were not finite.
Reason = Literal["stop", "length", "cancelled", "deadline", "shutdown", "error"]


@dataclasses.dataclass(frozen=True)
class Request:
    """One continuation of one prompt.

    prompt_ids: at least one. sampler, seed, index: the token at position t is drawn with
    fold_in(fold_in(key(seed), index), t), so that index i is `generate`'s row i for key(seed). stop_id: ends it; of
    several, in a tuple, each does. stop: strings that end it. constraint: what may be written. alternatives: None
    gives no log-probabilities, 0 the drawn token's, n those of the n likeliest too. seconds: within which it
    must be finished, waiting included; None has no limit.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampler: Sampler
    seed: int = 0
    index: int = 0
    stop_id: StopIds = None
    stop: TokenAutomaton | None = None
    constraint: TokenAutomaton | None = None
    alternatives: int | None = None
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Token:
    """A new token; log-probabilities are in nats, under the model itself (temperature 1, nothing dropped)."""

    id: int
    log_probability: float | None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The next tokens of a request, in order; a stop id is among them, and so are those of a stop string."""

    tokens: tuple[Token, ...]


@dataclasses.dataclass(frozen=True)
class Finished:
    """The last event of a request. cached_tokens: of the prompt, those whose prefill was spared by prefix reuse."""

    reason: Reason
    cached_tokens: int = 0


Event = Tokens | Finished


class Busy(Exception):
    """The queue is full: ask again later."""
