"""Texts with gaps: "[MASK]" stands for what is to be found."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from purelm.data.tokenizers import TRAINED_KINDS, Tokenizer

MARK = "[MASK]"
_MARK = re.compile(re.escape(MARK), re.IGNORECASE)  # Cleaning may have put it in lower case.


def count_marks(text: str) -> int:
    return len(_MARK.findall(text))


def encode_marked(tokenizer: Tokenizer, text: str, mark_ids: Sequence[int]) -> np.ndarray:
    """int32 ids of the text, with `mark_ids` in turn for its marks.

    Special tokens of the tokenizer itself are written into the text, so that it has them as it would anyone's. Tokens
    of trained tokenizers begin with the space before a word, so there a mark of ours takes that space with it.
    """
    parts = _MARK.split(text)
    if mark_ids and mark_ids[0] < tokenizer.vocabulary_size:
        marks = [tokenizer.decode([mark]) for mark in mark_ids]
        return tokenizer.encode_with_specials("".join([parts[0], *map("".join, zip(marks, parts[1:], strict=True))]))
    if tokenizer.kind in TRAINED_KINDS:
        parts = [*(part.removesuffix(" ") for part in parts[:-1]), parts[-1]]
    pieces = [tokenizer.encode_batch([part])[0] for part in parts]
    joined = [pieces[0]]
    for mark, piece in zip(mark_ids, pieces[1:], strict=True):
        joined += [np.array([mark], np.int32), piece]
    return np.concatenate(joined).astype(np.int32)
