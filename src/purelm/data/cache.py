"""The folder where tokenized data is kept between runs.

    ROOT/records/KIND-KEY.json     what is remembered of source files (sizes, times, hashes)
    ROOT/tokenizers/KEY.json       trained tokenizers, by text and recipe
    ROOT/tokens/KEY/               one tokenized corpus: SPLIT.tokens.npy, SPLIT.documents.npy, meta.json

Every entry appears whole or not at all, by a rename, so that any number of processes may build the same one at once:
the first to finish wins and the others take its result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from purelm.data.tokenizers import Tokenizer, load_tokenizer
from purelm.errors import UserError
from purelm.runtime import cache_folder

_logger = logging.getLogger("purelm")
_BUILDING = "building-"
_BROKEN = "broken-"
_STALE_SECONDS = 24 * 3600


def cache_root(cache_dir: str | None) -> str:
    """`cache_dir`, else the process's (`runtime.cache_folder`)."""
    return os.path.expanduser(cache_dir) if cache_dir else str(cache_folder())


def hash_key(content: Any) -> str:
    """A stable name for JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


class Cache:
    """One cache folder; made when it is first written to."""

    def __init__(self, root: str):
        self.root = root

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns a full disk or a folder that cannot be written into a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(f"data cache {self.root}: cannot be written ({error.strerror or error}); make room there "
                            "or name another folder by --config.data.cache_dir") from error

    def read_record(self, kind: str, key: Any) -> Any | None:
        """What `write_record` kept under the key, or None; a damaged record counts as none."""
        try:
            with open(self._record_path(kind, key), encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return None

    def write_record(self, kind: str, key: Any, record: Any) -> None:
        path = self._record_path(kind, key)
        with self.writing():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False, suffix=".part") as file:
                json.dump(record, file)
            os.replace(file.name, path)

    def _record_path(self, kind: str, key: Any) -> str:
        return os.path.join(self.root, "records", f"{kind}-{hash_key(key)}.json")

    def tokenizer(self, key: str) -> Tokenizer | None:
        """The tokenizer kept under `key`, or None; a damaged one is announced and counts as none."""
        path = os.path.join(self.root, "tokenizers", f"{key}.json")
        if not os.path.exists(path):
            return None
        try:
            return load_tokenizer(path)
        except UserError as error:
            _logger.warning("the cached tokenizer is made again: %s", error)
            return None

    def keep_tokenizer(self, key: str, tokenizer: Tokenizer) -> None:
        folder = os.path.join(self.root, "tokenizers")
        with self.writing():
            os.makedirs(folder, exist_ok=True)
        tokenizer.save(os.path.join(folder, f"{key}.json"))

    def tokens_meta(self, key: str, *, warn: bool = True) -> dict[str, Any] | None:
        """meta.json of the tokens kept under `key`, or None; with a warning where files are missing or cut short."""
        folder = self.tokens_folder(key)
        if not os.path.isdir(folder):
            return None
        try:
            with open(os.path.join(folder, "meta.json"), encoding="utf-8") as file:
                meta = json.load(file)
            for name, size in meta["file_bytes"].items():
                found = os.path.getsize(os.path.join(folder, name))
                if found != size:
                    raise ValueError(f"{name} has {found} bytes, not {size}")
        except (OSError, ValueError, KeyError) as error:
            if warn:
                _logger.warning("the cached tokens in %s are damaged (%s); they are made again", folder, error)
            return None
        return meta

    def tokens_folder(self, key: str) -> str:
        return os.path.join(self.root, "tokens", key)

    @contextlib.contextmanager
    def building_tokens(self) -> Iterator[str]:
        """A temporary folder to build an entry in; removed at the end unless `publish_tokens` took it."""
        parent = os.path.join(self.root, "tokens")
        with self.writing():
            os.makedirs(parent, exist_ok=True)
            _remove_leftovers(parent)
            folder = tempfile.mkdtemp(dir=parent, prefix=f"{_BUILDING}{socket.gethostname()}-{os.getpid()}-")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish_tokens(self, folder: str, key: str, meta: dict[str, Any]) -> None:
        """Writes meta.json and moves the built folder to its name; a sound entry that is already there stays."""
        names = sorted(os.listdir(folder))
        meta = {**meta, "file_bytes": {name: os.path.getsize(os.path.join(folder, name)) for name in names}}
        target = self.tokens_folder(key)
        with self.writing():
            with open(os.path.join(folder, "meta.json"), "w", encoding="utf-8") as file:
                json.dump(meta, file, indent=1)
            os.chmod(folder, 0o755)
            for _ in range(10):
                if self.tokens_meta(key, warn=False) is not None:
                    return
                if os.path.isdir(target):
                    _discard(target)
                try:
                    os.rename(folder, target)
                    return
                except FileExistsError:
                    continue
                except OSError:
                    # Another process has put its folder there in the meantime (ENOTEMPTY): look at it again.
                    if not os.path.isdir(target):
                        raise


def _discard(folder: str) -> None:
    """Removes a damaged entry by a rename first, so that nobody sees a part of it."""
    aside = os.path.join(os.path.dirname(folder), f"{_BROKEN}{os.getpid()}-{os.path.basename(folder)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(parent: str) -> None:
    """Removes what killed processes of this machine left, and what is older than a day."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if name.startswith(_BUILDING):
            host, process, _ = name[len(_BUILDING):].rsplit("-", 2)
            dead = host == socket.gethostname() and not _is_running(int(process)) if process.isdigit() else False
        elif not name.startswith(_BROKEN):
            continue
        else:
            dead = False
        with contextlib.suppress(FileNotFoundError):
            if dead or time.time() - os.path.getmtime(path) > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
