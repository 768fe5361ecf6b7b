"""Prefix language modeling: the first tokens of a window are read both ways, the rest is predicted.

Raffel et al. 2020 (arXiv 1910.10683, section 3.2.1 and 3.3.1), after Liu et al. 2018 (arXiv 1801.10198).
"""

from __future__ import annotations

import numpy as np

from purelm.config import Config
from purelm.data import Batch, PreparedData, Tokenizer
from purelm.tasks.noised_windows import Draw, NoisedWindows

_PURPOSE = 13


def with_prefixes(inner: PreparedData) -> NoisedWindows:
    """The windows of `inner`, each with a prefix of a random length."""
    return NoisedWindows(inner, prefixed, num_specials=0, window_length=lambda config: config.model.context_length,
                         purpose=_PURPOSE)


def prefixed(config: Config, tokenizer: Tokenizer, batch: Batch, draw: Draw) -> Batch:
    """The batch with `prefix` [B, T], int32: 1 on a row's first n tokens, n drawn uniformly from 1 to T - 1 (or T where
    that is 1); targets inside the prefix, which its tokens see, get weight 0."""
    length = batch["tokens"].shape[1]
    sizes_B1 = 1 + (draw(1) * max(length - 1, 1)).astype(np.int64)
    time_T = np.arange(length)
    weights = np.where(time_T >= sizes_B1 - 1, batch["weights"], 0).astype(np.float32)
    return batch | {"prefix": (time_T < sizes_B1).astype(np.int32), "weights": weights}
