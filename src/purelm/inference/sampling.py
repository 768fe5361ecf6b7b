"""How the next token is drawn from the logits: penalties, biases, bans, temperature, top-k, nucleus and min-p."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from purelm.errors import UserError
from purelm.inference.logit_filters import greedy, mask_vocabulary
from purelm.inference.penalties import History
from purelm.inference.row_sampling import RowSamplers, draw_rows, scaled_and_filtered, stack_samplers
from purelm.inference.stops import StopIds, stop_array

__all__ = ["History", "Sampler", "check_ids", "draw", "filter_logits", "greedy", "mask_vocabulary", "sample"]

# Float32's largest, rounded down: a number beyond it would be infinite in the program.
_LARGEST = 3.4e38


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A rule for drawing tokens; frozen, hence a static argument to jit.

    Applied in this order (as Hugging Face's processors are):
    - `repetition_penalty` (Keskar et al. 2019): logits of the window's tokens, prompt and answer, are divided by it,
      or multiplied where negative; 1 is none.
    - `frequency_penalty`, `presence_penalty` (OpenAI's API): taken off the logit of each token of the answer, the
      first as often as the token was said, the second once; 0 is none.
    - `logit_bias`: (id, value) pairs, added to the logits.
    - `banned`: ids that are never drawn. `min_new_tokens`: no stop id is drawn before so many other tokens.
    - `forced`: (number, id) pairs; the new token of that number, from 0, is that id, whatever else is asked.
    - `temperature`: logits are divided by it; 0 is greedy (the most probable token, the lowest id of a tie).
    - `top_k`: the k most probable tokens stay (Fan et al. 2018); none keeps all.
    - `top_p`: of those, renormalized, the smallest set of most probable tokens that holds the probability `top_p`
      stays (nucleus sampling, Holtzman et al. 2020, eq. 2); none keeps all.
    - `min_p`: of those, the ones at least `min_p` times as probable as the most probable stay (Nguyen et al. 2024).
    Tokens of exactly equal probability stay or go together, so a tie at the border keeps more than k tokens.

    Raises UserError for a number out of its range, an id that is listed twice, or a forced token that is banned.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()
    forced: tuple[tuple[int, int], ...] = ()
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature is {self.temperature}; it must be 0 (greedy) or a positive number")
        if self.top_k is not None and (self.top_k < 1 or self.top_k != int(self.top_k)):
            raise UserError(f"top_k is {self.top_k}; it must be a whole number from 1, or none to keep every token")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; it must be above 0 and at most 1, or none to keep every token")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"min_p is {self.min_p}; it must be from 0 to 1, or none to keep every token")
        if not 1e-6 <= self.repetition_penalty <= 1e6:
            raise UserError(f"repetition_penalty is {self.repetition_penalty}; it must be a positive number, above 1 "
                            "against repetition, or 1 for none")
        for field in ("frequency_penalty", "presence_penalty"):
            if not abs(getattr(self, field)) <= 1e6:
                raise UserError(f"{field} is {getattr(self, field)}; it must be a number, above 0 against repetition, "
                                "or 0 for none")
        if self.min_new_tokens < 0 or self.min_new_tokens != int(self.min_new_tokens):
            raise UserError(f"min_new_tokens is {self.min_new_tokens}; it must be a whole number from 0")
        self._check_lists()

    def _check_lists(self) -> None:
        _check_unique("logit_bias", "id", [i for i, _ in self.logit_bias])
        for i, value in self.logit_bias:
            if not abs(value) <= _LARGEST:
                raise UserError(f"logit_bias of id {i} is {value}; it must be a number (to ban the id: banned)")
        _check_unique("banned", "id", self.banned)
        _check_unique("forced", "new token", [number for number, _ in self.forced])
        for _, i in self.forced:
            _check_whole("forced", "id", i)
            if i in self.banned:
                raise UserError(f"forced has the id {i}, which is banned; take it out of one of the two")

    @property
    def greedy(self) -> bool:
        """Whether the draw is the most probable token: temperature 0, or too small for a float32."""
        return self.temperature < float(jnp.finfo(jnp.float32).tiny)

    @property
    def plain(self) -> bool:
        """Whether a token can be drawn without a History: no penalties, forced tokens or min_new_tokens."""
        return (self.repetition_penalty == 1 and self.frequency_penalty == 0 and self.presence_penalty == 0
                and not self.forced and self.min_new_tokens == 0)


def check_ids(sampler: Sampler, vocabulary_size: int) -> None:
    """UserError for an id of logit_bias, banned or forced that is outside of the vocabulary, or a ban of all of it."""
    lists = {"logit_bias": [i for i, _ in sampler.logit_bias], "banned": sampler.banned,
             "forced": [i for _, i in sampler.forced]}
    for field, ids in lists.items():
        outside = [i for i in ids if i >= vocabulary_size]
        if outside:
            raise UserError(f"{field} has the id {outside[0]}, which is outside of the vocabulary (0 to "
                            f"{vocabulary_size - 1})")
    if len(sampler.banned) >= vocabulary_size:
        raise UserError(f"banned has all {vocabulary_size} ids of the vocabulary; leave at least one out")


def draw(sampler: Sampler, logits_BV: jax.Array, keys_B: jax.Array, history: History | None, *,
         allowed_BV: jax.Array | None = None, stop_id: StopIds | jax.Array = None) -> jax.Array:
    """Draws one id a row, int32 [B], all by one rule that is known while tracing.

    Args:
      logits_BV: the model's; -inf for what must never come out (`mask_vocabulary`).
      keys_B: one random key a row, unused where greedy.
      history: may be None where sampler.plain.
      allowed_BV: bool, the tokens a constraint allows. Where bans leave none of them, bans give way; a forced token
        does not.
      stop_id: what min_new_tokens holds back, ids for all rows or int32 [B or 1, S]; None or -1: none.

    Raises ValueError for a sampler that needs the history without one.
    """
    if history is None and not sampler.plain:
        raise ValueError("this sampler needs the history")
    stop_ids_BS = None
    if stop_id is not None:
        stop_ids_XS = jnp.atleast_2d(stop_id if hasattr(stop_id, "ndim") else stop_array(stop_id))
        stop_ids_BS = jnp.broadcast_to(stop_ids_XS, (logits_BV.shape[0], stop_ids_XS.shape[1]))
    return draw_rows(_single(sampler), logits_BV, keys_B, history, allowed_BV=allowed_BV, stop_ids_BS=stop_ids_BS)


def sample(sampler: Sampler, logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """`draw` without a history, for a sampler that is plain."""
    return draw(sampler, logits_BV, keys_B, None)


def filter_logits(sampler: Sampler, logits_BV: jax.Array) -> jax.Array:
    """Float32 logits [B, V] after temperature, top_k, top_p and min_p; -inf for the tokens they drop.

    Only for a sampler that is not greedy. Logits come back relative to the row's largest.
    """
    return scaled_and_filtered(_single(sampler), logits_BV)


def _single(sampler: Sampler) -> RowSamplers:
    widest = max(len(sampler.logit_bias), len(sampler.banned), len(sampler.forced))
    return stack_samplers([sampler], max_biases=widest)


def _check_unique(field: str, what: str, numbers: Sequence[int]) -> None:
    seen = set()
    for number in numbers:
        _check_whole(field, what, number)
        if number in seen:
            raise UserError(f"{field} has the {what} {number} twice; give it once")
        seen.add(number)


def _check_whole(field: str, what: str, number: int) -> None:
    if not 0 <= number < (1 << 31) - 1 or number != int(number):
        raise UserError(f"{field} has the {what} {number}; it must be a whole number from 0")
