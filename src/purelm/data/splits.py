"""Which documents, or which part of the text, are for training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

SPLITS = ("train", "validation", "test")


class Piece(NamedTuple):
    """Characters [start, stop) of one document; stop None is its end."""

    document: int
    start: int
    stop: int | None


def hash_split(text: str, validation_fraction: float, test_fraction: float) -> str:
    """The split of a document by its text alone, so that neither its file, its place, nor its neighbors matter.

    A 64-bit BLAKE2b of the text, as a number in [0, 1): below test_fraction is test, then validation, then train.
    """
    point = hash_point(text)
    if point < test_fraction:
        return "test"
    return "validation" if point < test_fraction + validation_fraction else "train"


def hash_point(text: str) -> float:
    """A number in [0, 1) by the text alone."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, person=b"purelm-split").digest()
    return int.from_bytes(digest, "little") / 2**64


def contiguous_split(num_characters: Sequence[int], validation_fraction: float, test_fraction: float,
                     ) -> dict[str, list[Piece]]:
    """Cuts the documents, laid end to end, in three: the first part train, then validation, then test.

    `num_characters` are the documents' lengths. Train has the first int((1 - validation - test) x total) characters,
    as in nanoGPT's data/shakespeare_char; a document across a cut is divided there.
    """
    total = sum(num_characters)
    train_end = int(total * (1 - validation_fraction - test_fraction))
    validation_end = int(total * (1 - test_fraction)) if test_fraction else total
    if not validation_fraction:
        train_end = validation_end
    bounds = {"train": (0, train_end), "validation": (train_end, validation_end), "test": (validation_end, total)}
    pieces: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    begin = 0
    for document, length in enumerate(num_characters):
        for split, (first, last) in bounds.items():
            start, stop = max(begin, first), min(begin + length, last)
            if start < stop:
                pieces[split].append(Piece(document, start - begin, stop - begin))
        begin += length
    return pieces
