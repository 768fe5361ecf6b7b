"""Windows of tokens, cut from one long array, and the batches they make.

Window w of an array of N tokens and context length T has inputs tokens[s : s+T] and targets tokens[s+1 : s+T+1],
where s = wT plus an offset. Nothing is copied or reordered when data is packed: a window is where it begins.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSplit:
    """The tokens of one split.

    Attributes:
        name: train, validation or test.
        tokens: [N] uint16 or uint32, memory-mapped: every document's tokens, each after the end-of-text token where
            there is one, and one end-of-text after the last document, so that every document's end is a target.
        document_starts: int64, where in `tokens` each document begins (at its end-of-text token).
        num_bytes: UTF-8 bytes of the documents after cleaning: divide a summed loss in bits by it for bits a byte.
        num_documents: their number.
    """

    name: str
    tokens: np.ndarray
    document_starts: np.ndarray
    num_bytes: int
    num_documents: int

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted: all but the first."""
        return max(len(self.tokens) - 1, 0)

    def num_windows(self, context_length: int) -> int:
        """Whole windows of an epoch of training; the same for every epoch, whatever its offset."""
        return self.num_targets // context_length

    def num_evaluation_windows(self, context_length: int) -> int:
        """Windows that hold every target once; the last may be padded."""
        return -(-self.num_targets // context_length)


def window_start(split: TokenSplit, context_length: int, window: int, offset: int) -> int:
    """Where a training window begins: wT + offset, or as far right as a whole window fits.

    So with an offset the first tokens of the split wait for another epoch, and the last windows may overlap.
    """
    return min(window * context_length + offset, split.num_targets - context_length)


def epoch_offset(seed: int, epoch: int, context_length: int, window_offset: str) -> int:
    """Where the windows of an epoch start, in [0, T): hashed from (seed, epoch) for "random", 0 for "fixed"."""
    if window_offset == "fixed":
        return 0
    digest = hashlib.blake2b(f"window offset {seed} {epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % context_length


def gather_windows(split: TokenSplit, starts: Any, context_length: int, packing: str) -> Batch:
    """The batch of whole windows that begin at `starts` [B]; all weights are 1."""
    starts_B = np.asarray(starts, np.int64)
    tokens_BX = split.tokens[starts_B[:, None] + np.arange(context_length + 1)].astype(np.int32)
    shape = (len(starts_B), context_length)
    batch = {"tokens": tokens_BX[:, :-1], "targets": tokens_BX[:, 1:], "weights": np.ones(shape, np.float32)}
    return {**batch, **_segments(split.document_starts, starts_B, context_length, packing)}


def _segments(document_starts: np.ndarray, starts_B: np.ndarray, context_length: int, packing: str) -> Batch:
    """segments [B, T] count the documents of a window from 1; positions [B, T] count from each document's start."""
    time_T = np.arange(context_length, dtype=np.int32)
    shape = (len(starts_B), context_length)
    if packing == "stream":
        return {"segments": np.ones(shape, np.int32), "positions": np.broadcast_to(time_T, shape).copy()}
    # Documents that begin strictly inside each window; one that begins at its first token opens segment 1 anyway.
    first_B = np.searchsorted(document_starts, starts_B, side="right")
    last_B = np.searchsorted(document_starts, starts_B + context_length, side="left")
    counts_B = last_B - first_B
    rows = np.repeat(np.arange(len(starts_B)), counts_B)
    before_B = np.cumsum(counts_B) - counts_B
    documents = np.arange(len(rows)) + np.repeat(first_B - before_B, counts_B)
    columns = (document_starts[documents] - starts_B[rows]).astype(np.int32)
    begins_BT = np.zeros(shape, np.int32)
    begins_BT[rows, columns] = 1
    begin_column_BT = np.zeros(shape, np.int32)
    begin_column_BT[rows, columns] = columns
    segments_BT = np.cumsum(begins_BT, axis=1, dtype=np.int32) + 1
    positions_BT = time_T - np.maximum.accumulate(begin_column_BT, axis=1)
    return {"segments": segments_BT, "positions": positions_BT}


def evaluation_windows(split: TokenSplit, windows: Any, context_length: int, packing: str) -> Batch:
    """The batch of evaluation windows with these numbers [B]: window w begins at wT.

    Positions past the last target, and whole rows for numbers past the last window, have weight, segment, token,
    target and position 0.
    """
    starts_B = np.asarray(windows, np.int64) * context_length
    index_BX = starts_B[:, None] + np.arange(context_length + 1)
    tokens_BX = split.tokens[np.minimum(index_BX, split.num_tokens - 1)].astype(np.int32)
    batch = {"tokens": tokens_BX[:, :-1], "targets": tokens_BX[:, 1:],
             **_segments(split.document_starts, starts_B, context_length, packing)}
    real_BT = index_BX[:, 1:] < split.num_tokens
    return {"weights": real_BT.astype(np.float32), **{key: value * real_BT for key, value in batch.items()}}
