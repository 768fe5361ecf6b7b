"""Where documents come from: the interpreter's library, text and JSONL files, TFDS sets.

A source knows three things: `identity(index)`, JSON that changes whenever its text would; `files`, for the run's
record; and `documents()`, pairs (split or None, text), with held-out documents before those of training. For tasks
on examples there are `rows(data, format_name)` in place of documents, and `notes` on how files were chosen.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

from purelm.config import DataConfig
from purelm.data.cache import hash_key
from purelm.data.files import (
    decode_utf8,
    file_sha256,
    jsonl_documents,
    jsonl_rows,
    numbered_lines,
    text_documents,
    without_compression,
)
from purelm.data.split_files import choose_split_files
from purelm.errors import UserError

JSONL_ENDINGS = (".jsonl", ".ndjson")
_LISTED_FILES = 1000
_READ_ORDER = {"test": 0, "validation": 1, "train": 2, None: 2}
_STDLIB_EXCLUDED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "turtledemo"}


class FileIndex(Protocol):
    """What is remembered of files between starts (the cache implements it)."""

    def read_record(self, kind: str, key: Any) -> Any | None: ...

    def write_record(self, kind: str, key: Any, record: Any) -> None: ...


class SourceRow(NamedTuple):
    """One row of data: the split that its file stands for, or None; where it stands, in short ("train.jsonl, line 7",
    the same wherever the folder lies) and in full, for messages; and its fields."""

    split: str | None
    where: str
    place: str
    fields: dict[str, Any]


class Source(Protocol):
    """A set of documents, or of rows."""

    label: str
    notes: tuple[str, ...]

    def identity(self, index: FileIndex) -> dict[str, Any]: ...

    def documents(self) -> Iterator[tuple[str | None, str]]: ...

    def rows(self, data: DataConfig, format_name: str) -> Iterator[SourceRow]: ...


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """One file; `name` is its path without the folder or glob's common part."""

    path: str
    name: str
    split: str | None
    kind: Literal["text", "jsonl", "python"]


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Files of text, JSON lines or Python."""

    label: str
    files: tuple[SourceFile, ...]
    document: str
    text_field: str
    notes: tuple[str, ...] = ()

    def identity(self, index: FileIndex) -> dict[str, Any]:
        """Name, split, kind, size and SHA-256 of every file, in reading order.

        A file whose size and times are those of the last start is not read again: `index` remembers its hash.
        """
        paths = [os.path.abspath(file.path) for file in self.files]
        known = index.read_record("files", paths) or {}
        stamps: dict[str, list[Any]] = {}
        rows = []
        for file, path in zip(self.files, paths, strict=True):
            stat = _stat(path)
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            unchanged = path in known and known[path][:3] == stamp
            sha256 = known[path][3] if unchanged else file_sha256(path)
            stamps[path] = [*stamp, sha256]
            rows.append({"name": file.name, "split": file.split, "kind": file.kind, "bytes": stat.st_size,
                         "sha256": sha256})
        if stamps != known:
            index.write_record("files", paths, stamps)
        identity: dict[str, Any] = {"files": rows}
        if any(file.kind == "text" for file in self.files):
            identity["document"] = self.document
        if any(file.kind == "jsonl" for file in self.files):
            identity["text_field"] = self.text_field
        return identity

    def documents(self) -> Iterator[tuple[str | None, str]]:
        """(split or None, text); raises UserError for a file that holds no text where that file stands for a split."""
        for file in self.files:
            empty = True
            for text in self._file_documents(file):
                empty = empty and not text.strip()
                yield file.split, text
            if empty:
                self._check_needed(file)

    def rows(self, data: DataConfig, format_name: str) -> Iterator[SourceRow]:
        """JSON lines; of the format "text", also the lines of text files, and Python files whole."""
        for file in self.files:
            empty = True
            for place, fields in _file_rows(file, data, format_name):
                empty = False
                yield SourceRow(file.split, file.name + place, file.path + place, fields)
            if empty:
                self._check_needed(file)

    def _check_needed(self, file: SourceFile) -> None:
        """UserError where this file, which is empty, stands alone for a split."""
        if len(self.files) == 1 or (file.split and sum(other.split == file.split for other in self.files) == 1):
            raise UserError(f"{file.path}: an empty file; give one with text")

    def _file_documents(self, file: SourceFile) -> Iterable[str]:
        if file.kind == "python":
            return [_python_text(file.path)]
        if file.kind == "jsonl":
            return jsonl_documents(file.path, self.text_field)
        return text_documents(file.path, self.document)


def _file_rows(file: SourceFile, data: DataConfig, format_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(", line 7", fields)."""
    if file.kind == "jsonl":
        for number, row in jsonl_rows(file.path):
            yield f", line {number}", row
    elif format_name != "text":
        raise UserError(f"{file.path}: a {file.kind} file; the format '{format_name}' is read from JSON lines (.jsonl "
                        "or .ndjson; plain, .gz or .xz)")
    elif file.kind == "python":
        yield "", {data.text_field: _python_text(file.path)}
    else:
        for number, offset, line in numbered_lines(file.path):
            text = decode_utf8(line, file.path, line=number, offset=offset).removesuffix("\r")
            if text.strip():
                yield f", line {number}", {data.text_field: text}


def make_source(config: DataConfig, *, need_train: bool = True) -> Source:
    """The source that `config` names; UserError where its path or name cannot serve.

    With `need_train` false, a folder may have held-out files alone.
    """
    kind = config.source
    if kind == "auto":
        kind = "auto" if config.path else "tfds" if config.tfds_name else "python_stdlib"
    if kind == "tfds":
        if not config.tfds_name:
            raise UserError("config.data.source=tfds needs config.data.tfds_name, such as lm1b")
        from purelm.data.tfds_source import TfdsSource
        return TfdsSource(config.tfds_name, config.tfds_dir, config.text_field, need_train)
    if kind == "python_stdlib":
        if config.path:
            raise UserError(f"config.data.path={config.path} is set, but config.data.source is python_stdlib; "
                            "drop one of the two")
        files, notes = standard_library_files(), []
        label = f"python_stdlib {platform.python_version()}"
    else:
        if not config.path:
            raise UserError(f"config.data.source={kind} needs config.data.path: a file, a glob or a folder")
        files, notes = find_files(config.path, kind, need_train=need_train)
        label = config.path
    return FileSource(label, tuple(sorted(files, key=lambda file: (_READ_ORDER[file.split], file.name))),
                      config.document, config.text_field, tuple(notes))


def source_summary(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity for a run's record: with the number of files, their bytes and one hash; over 1,000 are not listed."""
    files = identity["files"]
    summary = {**identity, "num_files": len(files), "bytes": sum(file["bytes"] for file in files),
               "sha256": hash_key(files)}
    return summary if len(files) <= _LISTED_FILES else {**summary, "files": f"{len(files)} files, not listed"}


def find_files(path: str, kind: str, *, need_train: bool = True) -> tuple[list[SourceFile], list[str]]:
    """The files of a path, glob or folder, and what to say of the choice; `kind` is "auto" (by ending), "text" or
    "jsonl".

    A folder's files named train, validation (valid, val, dev) or test, or inside folders of these names, are its
    splits, and other files are left aside, but for two rules that are said (split_files.choose_split_files); without
    any such file all its files, at any depth, are one set. Hidden files are never taken.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return _folder_files(path, kind, need_train)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"config.data.path={path}: neither a file nor a folder (a pipe or a device); write the text "
                        "to a file first, as it is read more than once")
    if os.path.exists(path):
        return [SourceFile(path, os.path.basename(path), None, _file_kind(path, kind))], []
    if glob.has_magic(path):
        found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
        if not found:
            raise UserError(f"config.data.path={path}: the glob matches no file in {os.getcwd()}")
        root = os.path.commonpath([os.path.dirname(name) for name in found])
        return [SourceFile(name, os.path.relpath(name, root or "."), None, _file_kind(name, kind))
                for name in found], []
    folder = os.path.dirname(os.path.abspath(path))
    where = f"{folder} has {_some_names(folder)}" if os.path.isdir(folder) else f"there is no folder {folder}"
    raise UserError(f"config.data.path={path}: no such file or folder; {where}")


def _folder_files(folder: str, kind: str, need_train: bool) -> tuple[list[SourceFile], list[str]]:
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.relpath(os.path.join(parent, name), folder) for name in files if not name.startswith(".")]
    if not names:
        raise UserError(f"config.data.path={folder}: the folder holds no file")
    splits, notes = choose_split_files(names, folder)
    given = {split for split in splits.values() if split}
    if given and "train" not in given and need_train:
        raise UserError(f"config.data.path={folder}: the folder has {' and '.join(sorted(given))} files but none for "
                        "training; add train.txt or train.jsonl")
    if given:
        names = [name for name in names if splits[name]]
    return [SourceFile(os.path.join(folder, name), name.replace(os.sep, "/"), splits[name], _file_kind(name, kind))
            for name in sorted(names)], notes


def _file_kind(name: str, kind: str) -> Literal["text", "jsonl"]:
    if kind == "auto":
        return "jsonl" if without_compression(name.lower()).endswith(JSONL_ENDINGS) else "text"
    return "jsonl" if kind == "jsonl" else "text"


def standard_library_files() -> list[SourceFile]:
    """The running interpreter's own library sources, without installed packages, tests and demonstrations."""
    root = sysconfig.get_paths()["stdlib"]
    names = []
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _STDLIB_EXCLUDED_FOLDERS)
        names += [os.path.relpath(os.path.join(parent, name), root) for name in files if name.endswith(".py")]
    if not names:
        raise UserError(f"{root}: this Python has no library sources there; give config.data.path")
    return [SourceFile(os.path.join(root, name), name.replace(os.sep, "/"), None, "python") for name in names]


def _python_text(path: str) -> str:
    """A Python file in the encoding that it declares (PEP 263)."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not decodable in the encoding it declares ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _some_names(folder: str, limit: int = 6) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") if names else "no files"
