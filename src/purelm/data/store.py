"""Cleaned documents on disk while they are tokenized, so that a corpus need not fit in memory."""

from __future__ import annotations

import array
import os
from collections.abc import Iterator

from purelm.data.splits import SPLITS, Piece, contiguous_split, hash_split


class DocumentStore:
    """One file of texts, end to end; appended once, then read by number.

    Attributes:
        num_characters: characters of each document.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._file = open(path, "w+b")  # noqa: SIM115 (closed by close)
        self._ends = array.array("q", [0])
        self.num_characters = array.array("q")

    def append(self, text: str) -> None:
        data = text.encode("utf-8")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self.num_characters.append(len(text))

    def text(self, piece: Piece) -> str:
        """The characters of one piece."""
        begin, end = self._ends[piece.document], self._ends[piece.document + 1]
        self._file.seek(begin)
        return self._file.read(end - begin).decode("utf-8")[piece.start:piece.stop]

    def texts(self, pieces: list[Piece]) -> Iterator[str]:
        return (self.text(piece) for piece in pieces)

    def __len__(self) -> int:
        return len(self.num_characters)

    def close(self) -> None:
        self._file.close()


def assign_pieces(store: DocumentStore, given: list[str | None], split: str, validation_fraction: float,
                  test_fraction: float) -> dict[str, list[Piece]]:
    """The pieces of every split; `given[i]` is the split that document i's file stands for, or None.

    Documents of validation and test files stay there. Where there is no validation file, the documents of the
    training files are divided by `split` ("hash", "contiguous", or "auto": contiguous where there is one document
    to divide), and test is cut from them too unless files split the data.
    """
    pieces: dict[str, list[Piece]] = {name: [] for name in SPLITS}
    pool = []
    divide = "validation" not in given
    for document, name in enumerate(given):
        if name in ("validation", "test") or (name == "train" and not divide):
            pieces[name].append(Piece(document, 0, None))
        else:
            pool.append(document)
    test_fraction = test_fraction if not any(given) else 0.0
    if split == "contiguous" or (split == "auto" and len(pool) == 1):
        parts = contiguous_split([store.num_characters[i] for i in pool], validation_fraction, test_fraction)
        for name, found in parts.items():
            pieces[name] += [piece._replace(document=pool[piece.document]) for piece in found]
    else:
        for document in pool:
            piece = Piece(document, 0, None)
            pieces[hash_split(store.text(piece), validation_fraction, test_fraction)].append(piece)
    return pieces
