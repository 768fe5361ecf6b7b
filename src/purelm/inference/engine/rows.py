"""The rows of the engine's programs: one request's numbers each, as arrays of fixed shapes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.inference.row_sampling import RowSamplers, stack_samplers
from purelm.inference.sampling import Sampler

# Ids of logit_bias, of banned and of forced tokens that a request may have (OpenAI's API allows 300 biases).
MAX_BIASES = 300
# The likeliest tokens that a request may ask for beside each token.
MAX_ALTERNATIVES = 20
# Ids that end a request's answer.
MAX_STOPS = 8


class Rows(NamedTuple):
    """What the programs read, B rows.

    tables_BP: each row's pages (see models.paged_cache). ids_BX: the text from position origins_B on. lengths_B: how
    much of it is known. starts_B: where the answer begins, window_starts_B: the window, both from the same origin.
    budgets_B: tokens that a row may draw now; 0 leaves it as it is. key_data_BW: of each row's random key. stop_ids_BS:
    -1 is none. alternatives_B: -1 wants no log-probabilities, 0 the drawn token's, more those of the likeliest too.
    constrained_B: whether allowed_BV8, a bit a token, is to be read.
    """

    tables_BP: Any
    ids_BX: Any
    lengths_B: Any
    starts_B: Any
    window_starts_B: Any
    origins_B: Any
    budgets_B: Any
    key_data_BW: Any
    stop_ids_BS: Any
    alternatives_B: Any
    constrained_B: Any
    allowed_BV8: Any
    samplers: RowSamplers


def empty_rows(slots: int, *, pages: int, tokens: int, vocabulary_size: int, key_words: int) -> Rows:
    """Rows in no use, as NumPy arrays to be written."""

    def zeros(*shape: int, dtype: Any = np.int32) -> np.ndarray:
        return np.zeros((slots, *shape), dtype)

    samplers = stack_samplers([Sampler(temperature=0.0)] * slots, max_biases=MAX_BIASES)
    return Rows(
        tables_BP=zeros(pages), ids_BX=zeros(tokens), lengths_B=zeros(), starts_B=zeros(), window_starts_B=zeros(),
        origins_B=zeros(), budgets_B=zeros(), key_data_BW=zeros(key_words, dtype=np.uint32),
        stop_ids_BS=np.full((slots, MAX_STOPS), -1, np.int32), alternatives_B=np.full(slots, -1, np.int32),
        constrained_B=zeros(dtype=bool), allowed_BV8=zeros(-(-vocabulary_size // 8), dtype=np.uint8),
        samplers=samplers)


def write_row(rows: Rows, slot: int, values: Rows) -> None:
    """Writes `values`, of one row [1, ...], in place."""
    for array, value in zip(jax.tree.leaves(rows), jax.tree.leaves(values), strict=True):
        array[slot] = value[0]


def taken(rows: Rows, slots: slice) -> Rows:
    """A copy of some rows, which may be given to a program while the arrays themselves are written."""
    return jax.tree.map(lambda array: array[slots].copy(), rows)
