"""What changes the logits before any rule draws from them: penalties of what was said, biases, bans, forced tokens.

Every number is one a row, [B, 1], and every list of ids one a row, [B, J], padded with NO_ID.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Stands where a list of ids is shorter than its array: beyond every vocabulary, so that a scatter leaves it out.
NO_ID = (1 << 31) - 1


class History(NamedTuple):
    """The text before the token that is drawn, int32.

    ids_BX: the text, from position 0. lengths_B: how many of its tokens are known; what follows is not read.
    starts_B: position of the answer's first token. window_starts_B: of the first token that the model sees.
    """

    ids_BX: jax.Array
    lengths_B: jax.Array
    starts_B: jax.Array
    window_starts_B: jax.Array

    @property
    def numbers_B(self) -> jax.Array:
        """Number of the new token in the answer, from 0."""
        return self.lengths_B - self.starts_B


def penalize_repetition(logits_BV: jax.Array, history: History, penalty_B1: jax.Array,
                        inverse_penalty_B1: jax.Array) -> jax.Array:
    """Logits of the tokens in the window, prompt and answer, divided by the penalty, or times it where negative.

    Keskar et al. 2019, sec. 4.1, with the rule for negative logits of Hugging Face's processor.
    """
    seen_BV = _counts(history, history.window_starts_B, logits_BV.shape[-1]) > 0
    penalized_BV = logits_BV * jnp.where(logits_BV < 0, penalty_B1, inverse_penalty_B1)
    return jnp.where(seen_BV, penalized_BV, logits_BV)


def penalize_frequency(logits_BV: jax.Array, history: History, frequency_B1: jax.Array,
                       presence_B1: jax.Array) -> jax.Array:
    """Logits less count * frequency + (count > 0) * presence, the token's count in the answer (OpenAI's API)."""
    counts_BV = _counts(history, history.starts_B, logits_BV.shape[-1])
    return logits_BV - (counts_BV * frequency_B1 + jnp.where(counts_BV > 0, presence_B1, 0))


def add_biases(logits_BV: jax.Array, ids_BJ: jax.Array, values_BJ: jax.Array) -> jax.Array:
    """Logits plus each listed id's value."""
    return jax.vmap(lambda logits_V, ids_J, values_J: logits_V.at[ids_J].add(values_J, mode="drop"))(
        logits_BV, *_every_row(logits_BV, ids_BJ, values_BJ))


def ban(logits_BV: jax.Array, ids_BJ: jax.Array) -> jax.Array:
    """-inf for each listed id."""
    return jax.vmap(lambda logits_V, ids_J: logits_V.at[ids_J].set(-jnp.inf, mode="drop"))(
        logits_BV, *_every_row(logits_BV, ids_BJ))


def hold_stop(logits_BV: jax.Array, numbers_B: jax.Array, stop_ids_BS: jax.Array, min_new_tokens_B: jax.Array
              ) -> jax.Array:
    """-inf for the stop ids of every row whose new token is before its `min_new_tokens`; stop id -1 is none."""
    held_BS = (numbers_B < min_new_tokens_B)[:, None] & (stop_ids_BS >= 0)
    return ban(logits_BV, jnp.where(held_BS, stop_ids_BS, NO_ID))


def forced_ids(numbers_B: jax.Array, forced_numbers_BJ: jax.Array, forced_ids_BJ: jax.Array) -> jax.Array:
    """The id that a row's new token must be, int32 [B]; -1 where it is free. Padding has the number -1."""
    return jnp.max(jnp.where(forced_numbers_BJ == numbers_B[:, None], forced_ids_BJ, -1), axis=-1, initial=-1)


def _counts(history: History, starts_B: jax.Array, size: int) -> jax.Array:
    """How often each id comes at the positions from starts_B to the end of the known text, float32 [B, V]."""
    positions_X = jnp.arange(history.ids_BX.shape[1])
    counted_BX = (positions_X >= starts_B[:, None]) & (positions_X < history.lengths_B[:, None])
    # A negative id (a token that was none) would wrap around.
    ids_BX = jnp.where(counted_BX & (history.ids_BX >= 0), history.ids_BX, NO_ID)
    return jax.vmap(lambda ids_X: jnp.zeros(size, jnp.float32).at[ids_X].add(1, mode="drop"))(ids_BX)


def _every_row(logits_BV: jax.Array, *arrays_BJ: jax.Array) -> list[jax.Array]:
    return [jnp.broadcast_to(array, (logits_BV.shape[0], array.shape[1])) for array in arrays_BJ]
