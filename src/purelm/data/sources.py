"""Where documents come from: the interpreter's library, text and JSONL files, TFDS sets.

A source knows three things: `identity(index)`, JSON that changes whenever its text would; `files`, for the run's
record; and `documents()`, pairs (split or None, text), with held-out documents before those of training.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import platform
import re
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

from purelm.config import DataConfig
from purelm.data.files import file_sha256, jsonl_documents, text_documents, without_compression
from purelm.errors import UserError

JSONL_ENDINGS = (".jsonl", ".ndjson")
_SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
                "dev": "validation", "test": "test"}
# train.txt, train-00001-of-00004.jsonl.gz, valid.1.txt; not train_subset.txt.
_SPLIT_FILE = re.compile(r"(train|validation|valid|val|dev|test)([-_.]\d[\w-]*)?(\.[a-z]+)*")
_READ_ORDER = {"test": 0, "validation": 1, "train": 2, None: 2}
_STDLIB_EXCLUDED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "turtledemo"}


class FileIndex(Protocol):
    """What is remembered of files between starts (the cache implements it)."""

    def read_record(self, kind: str, key: Any) -> Any | None: ...

    def write_record(self, kind: str, key: Any, record: Any) -> None: ...


class Source(Protocol):
    """A set of documents."""

    label: str

    def identity(self, index: FileIndex) -> dict[str, Any]: ...

    def documents(self) -> Iterator[tuple[str | None, str]]: ...


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
        alone = {split for split in _SPLIT_NAMES.values() if sum(file.split == split for file in self.files) == 1}
        for file in self.files:
            empty = True
            for text in self._file_documents(file):
                empty = empty and not text.strip()
                yield file.split, text
            if empty and (file.split in alone or len(self.files) == 1):
                raise UserError(f"{file.path}: an empty file; give one with text")

    def _file_documents(self, file: SourceFile) -> Iterable[str]:
        if file.kind == "python":
            return [_python_text(file.path)]
        if file.kind == "jsonl":
            return jsonl_documents(file.path, self.text_field)
        return text_documents(file.path, self.document)


def make_source(config: DataConfig) -> Source:
    """The source that `config` names; UserError where its path or name cannot serve."""
    kind = config.source
    if kind == "auto":
        if config.path and config.tfds_name:
            raise UserError("config.data.path and config.data.tfds_name are both set; give one, or "
                            "say which by config.data.source")
        kind = "tfds" if config.tfds_name else "auto" if config.path else "python_stdlib"
    if kind == "tfds":
        if not config.tfds_name:
            raise UserError("config.data.source=tfds needs config.data.tfds_name, such as lm1b")
        from purelm.data.tfds_source import TfdsSource
        return TfdsSource(config.tfds_name, config.tfds_dir, config.text_field)
    if kind == "python_stdlib":
        if config.path:
            raise UserError(f"config.data.path={config.path} is set, but config.data.source is python_stdlib; "
                            "drop one of the two")
        files = standard_library_files()
        label = f"python_stdlib {platform.python_version()}"
    else:
        if not config.path:
            raise UserError(f"config.data.source={kind} needs config.data.path: a file, a glob or a folder")
        files = find_files(config.path, kind)
        label = config.path
    return FileSource(label, tuple(sorted(files, key=lambda file: (_READ_ORDER[file.split], file.name))),
                      config.document, config.text_field)


def find_files(path: str, kind: str) -> list[SourceFile]:
    """The files of a path, glob or folder; `kind` is "auto" (by ending), "text" or "jsonl".

    A folder's files named train, validation (valid, val, dev) or test, or inside folders of these names, are its
    splits, and other files are left aside; without any such file all its files, at any depth, are one set.
    Hidden files are never taken.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return _folder_files(path, kind)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"config.data.path={path}: neither a file nor a folder (a pipe or a device); write the text "
                        "to a file first, as it is read more than once")
    if os.path.exists(path):
        return [SourceFile(path, os.path.basename(path), None, _file_kind(path, kind))]
    if glob.has_magic(path):
        found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
        if not found:
            raise UserError(f"config.data.path={path}: the glob matches no file in {os.getcwd()}")
        root = os.path.commonpath([os.path.dirname(name) for name in found])
        return [SourceFile(name, os.path.relpath(name, root or "."), None, _file_kind(name, kind)) for name in found]
    folder = os.path.dirname(os.path.abspath(path))
    where = f"{folder} has {_some_names(folder)}" if os.path.isdir(folder) else f"there is no folder {folder}"
    raise UserError(f"config.data.path={path}: no such file or folder; {where}")


def _folder_files(folder: str, kind: str) -> list[SourceFile]:
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.relpath(os.path.join(parent, name), folder) for name in files if not name.startswith(".")]
    if not names:
        raise UserError(f"config.data.path={folder}: the folder holds no file")
    splits = {name: _split_of(name) for name in names}
    given = {split for split in splits.values() if split}
    if given and "train" not in given:
        raise UserError(f"config.data.path={folder}: the folder has {' and '.join(sorted(given))} files but none for "
                        "training; add train.txt or train.jsonl")
    if given:
        names = [name for name in names if splits[name]]
    return [SourceFile(os.path.join(folder, name), name.replace(os.sep, "/"), splits[name], _file_kind(name, kind))
            for name in sorted(names)]


def _split_of(name: str) -> str | None:
    first = name.split(os.sep)[0].lower()
    if first in _SPLIT_NAMES:
        return _SPLIT_NAMES[first]
    match = _SPLIT_FILE.fullmatch(first) if first == name.lower() else None
    return _SPLIT_NAMES[match.group(1)] if match else None


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
