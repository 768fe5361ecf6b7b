"""Word vectors in the text format of word2vec: a line "COUNT SIZE", then a line a word: the word and SIZE numbers."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import tempfile
import warnings
from collections.abc import Sequence

import numpy as np

from purelm.data.files import decode_utf8, numbered_lines
from purelm.errors import UserError


def write_vectors(path: str | os.PathLike[str], words: Sequence[str], vectors: np.ndarray) -> None:
    """Writes the file, whole or not at all; compressed where the path ends in .gz or .xz.

    Args:
      words: one a row; not empty, and without spaces and line ends, which the format has no way to write.
      vectors: [N, D], written to nine digits, which give back every float32 exactly.

    Raises:
      UserError: a word that cannot be written, a number that is not finite, or a file that cannot be written.
    """
    path, vectors = os.fspath(path), np.asarray(vectors, np.float32)
    if len(words) != len(vectors):
        raise ValueError(f"{len(words)} words with {len(vectors)} vectors")
    bad = [word for word in words if not word or any(c in word for c in " \n\r\t")]
    if bad:
        raise UserError(f"{path}: the word {bad[0]!r} cannot be written: in the word2vec format words have no spaces")
    if not np.isfinite(vectors).all():
        word = words[int(np.flatnonzero(~np.isfinite(vectors).all(-1))[0])]
        raise UserError(f"{path}: the vector of {word!r} is not finite, so nothing is written; train again with a "
                        "smaller config.optimizer.learning_rate")
    line = "%s" + " %.9g" * vectors.shape[1] + "\n"
    opener = gzip.open if path.endswith(".gz") else lzma.open if path.endswith(".xz") else open
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path) or ".", prefix=".vectors-", delete=False) as part:
            temporary = part.name
        with opener(temporary, "wt", encoding="utf-8", newline="\n") as file:
            file.write(f"{len(words)} {vectors.shape[1]}\n")
            file.writelines(line % (word, *row) for word, row in zip(words, vectors.tolist()))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: the vectors cannot be written ({error.strerror or error})") from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def read_vectors(path: str | os.PathLike[str]) -> tuple[list[str], np.ndarray]:
    """(words, float32 [N, D]) of a word2vec text file, plain, .gz or .xz; of a word that is there twice, the first.

    Raises:
      UserError: the file cannot be read, is binary, has no first line of counts, ends early or goes on after them, or
        has a line with other than SIZE finite numbers; the message names the line.
    """
    path = os.fspath(path)
    lines = numbered_lines(path)
    count, size = _header(path, next(lines, (1, 0, b""))[2])
    words: dict[str, int] = {}
    rows: list[np.ndarray] = []
    number, found = 1, 0
    for number, offset, data in lines:
        if found == count:
            if data.strip():
                raise UserError(f"{path}, line {number}: the first line says {count:,} words, and here is one more; "
                                "correct that number")
            continue
        word, row = _row(path, number, offset, data, size)
        found += 1
        if word not in words:
            words[word] = len(rows)
            rows.append(row)
    if found < count:
        raise UserError(f"{path}, line {number}: the file ends after {found:,} of {count:,} words; it was truncated, "
                        "so copy it again")
    return list(words), np.stack(rows)


def _header(path: str, line: bytes) -> tuple[int, int]:
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() and int(field) for field in fields):
        return int(fields[0]), int(fields[1])
    if b"\0" in line:
        raise UserError(f"{path}: a binary file; write the vectors in the text format (word2vec -binary 0)")
    hint = ("; GloVe's own files lack it, so add it" if len(fields) > 2 else "")
    raise UserError(f"{path}, line 1: wants the number of words and the size of a vector, such as '10000 100'{hint}")


def _row(path: str, number: int, offset: int, data: bytes, size: int) -> tuple[str, np.ndarray]:
    text = decode_utf8(data, path, line=number, offset=offset).rstrip()
    word, _, rest = text.partition(" ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, for text that is no number: found below
        try:
            row = np.fromstring(rest, np.float32, sep=" ")
        except ValueError:
            row = np.zeros(0, np.float32)
    if len(row) == size and len(rest.split()) == size and np.isfinite(row).all():
        return word, row
    fields = rest.split()
    if len(fields) != size:
        hint = "; words have no spaces in this format" if len(fields) > size else "; the file may be truncated"
        raise UserError(f"{path}, line {number}: {word!r} has {len(fields)} numbers, and the first line says {size}"
                        f"{hint}")
    wrong = next((field for field in fields if not _is_number(field)), fields[0])
    raise UserError(f"{path}, line {number}: {wrong!r} is no finite number (of the word {word!r})")


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(np.float32(text)))
    except ValueError:
        return False
