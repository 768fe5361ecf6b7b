"""Reading text files, plain, gzip or xz, so that whatever is wrong with one comes out as a UserError."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from purelm.errors import UserError, did_you_mean

COMPRESSED_ENDINGS = (".gz", ".xz")
_UTF8_BOM = b"\xef\xbb\xbf"


def without_compression(name: str) -> str:
    """`train.jsonl.gz` -> `train.jsonl`."""
    for ending in COMPRESSED_ENDINGS:
        if name.endswith(ending):
            return name[: -len(ending)]
    return name


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """The decompressed bytes of `path`; raises UserError for what cannot be opened or is cut short."""
    opener = gzip.open if path.endswith(".gz") else lzma.open if path.endswith(".xz") else open
    try:
        with opener(path, "rb") as file:
            yield file
    except EOFError as error:
        raise UserError(f"{path}: the compressed file ends too early; it was truncated, so copy it again") from error
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        kind = path.rsplit(".", 1)[1]
        raise UserError(f"{path}: damaged, or not a .{kind} file ({error}); copy it again or rename it") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def file_sha256(path: str) -> str:
    """Hash of the file as it lies on the disk (still compressed)."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def decode_utf8(data: bytes, path: str, *, line: int, offset: int) -> str:
    """Text of `data`, which begins at byte `offset` and line `line` (from 1) of `path`.

    Raises UserError, with byte offset and line, for a NUL byte (a binary file) or bytes that are not UTF-8.
    """
    if offset == 0 and data.startswith(_UTF8_BOM):
        data, offset = data[len(_UTF8_BOM):], len(_UTF8_BOM)
    if b"\0" in data:
        at = data.index(b"\0")
        line += data.count(b"\n", 0, at)
        raise UserError(f"{path}: a binary file (NUL at byte {offset + at}, line {line}); "
                        "give text in UTF-8, plain, .gz or .xz")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}: not UTF-8 at byte {offset + error.start}, line {line} "
            f"(byte 0x{data[error.start]:02x}); convert it, as with iconv -f latin1 -t utf-8") from error


def numbered_lines(path: str) -> Iterator[tuple[int, int, bytes]]:
    r"""(line number from 1, byte offset, line without its "\n"); split at "\n" and nothing else."""
    offset = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            yield number, offset, line[:-1] if line.endswith(b"\n") else line
            offset += len(line)


def text_documents(path: str, document: str) -> Iterator[str]:
    """Documents of a text file: `document` "file" is all of it, "line" each line, "blank_line" each paragraph.

    Lines that are empty or only white space part documents in the last two and are no document themselves.
    """
    if document == "file":
        with open_bytes(path) as file:
            data = file.read()
        yield decode_utf8(data, path, line=1, offset=0)
        return
    paragraph: list[str] = []
    for number, offset, line in numbered_lines(path):
        text = decode_utf8(line, path, line=number, offset=offset).removesuffix("\r")
        if document == "line":
            if text.strip():
                yield text
        elif text.strip():
            paragraph.append(text)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph)


def jsonl_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each JSON line; blank lines are skipped; UserError names file and line."""
    for number, offset, line in numbered_lines(path):
        text = decode_utf8(line, path, line=number, offset=offset)
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}); "
                            "give one JSON object a line") from error
        except ValueError as error:  # More digits than Python takes for a number.
            raise UserError(f"{path}, line {number}: a number of too many digits; give it as a string") from error
        except RecursionError as error:
            raise UserError(f"{path}, line {number}: JSON nested too deep; give one flat object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a JSON {type(row).__name__}; give one JSON object a line")
        yield number, row


def jsonl_documents(path: str, field: str) -> Iterator[str]:
    """The string `field` of each JSON line; blank lines are skipped; UserError names file and line."""
    for number, row in jsonl_rows(path):
        if field not in row:
            raise UserError(f"{path}, line {number}: no field '{field}' (config.data.text_field)"
                            f"{did_you_mean(field, row)}")
        value = row[field]
        if not isinstance(value, str):
            raise UserError(f"{path}, line {number}: field '{field}' is a {type(value).__name__}; it must be a string")
        check_unicode(value, f"{path}, line {number}, field '{field}'")
        yield value


def check_unicode(text: str, where: str) -> None:
    r"""UserError for half a surrogate pair (JSON's "\ud83d" alone), which no encoding can write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: half a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}; "
                        "the text must be valid Unicode") from error
