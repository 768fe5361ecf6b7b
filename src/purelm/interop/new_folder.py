"""A folder that appears under its name when it is whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from purelm.errors import UserError

_QUIET_SECONDS = 0.2


def check_free(target: pathlib.Path, flag: str) -> None:
    """UserError where `target`, which `flag` gives, holds something already or is no folder."""
    try:
        taken = os.path.lexists(target) and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise UserError(f"{flag}: cannot be read ({error.strerror}); give a new folder") from error
    if taken:
        raise UserError(f"{flag}: holds something already; give a new folder")


@contextlib.contextmanager
def new_folder(target: pathlib.Path, flag: str, least_bytes: int = 0) -> Iterator[pathlib.Path]:
    """A folder to write into, which becomes `target` at the end of the block.

    Until then it lies beside `target` under a name of its own. It is removed where the block raises, and where the
    process is interrupted or ended (SIGINT, SIGTERM; which exits with 128 + the signal's number). What one that was
    killed has left is removed by the next.

    Raises:
      UserError: `target`, which `flag` gives, holds something; another process is writing it; there is no room for
        `least_bytes`; or a file cannot be read or written, as on a disk that is full.
    """
    check_free(target, flag)
    parent, name = os.path.split(os.path.abspath(target))
    partial = pathlib.Path(parent, f".{name}.unfinished")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial, flag), _removed_on_signal(partial):
            try:
                _clear(partial)
                _check_room(partial, flag, least_bytes)
                yield partial
                partial.replace(target)
            except BaseException:
                _remove(partial)
                raise
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        raise UserError(f"{flag}: cannot be written ({error.strerror or error}{where})") from error


def _check_room(folder: pathlib.Path, flag: str, least_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < least_bytes:
        raise UserError(f"{flag}: cannot be written (it takes {least_bytes / 1e6:,.0f} MB, and the disk has "
                        f"{free / 1e6:,.0f} MB left)")


def _remove(folder: pathlib.Path) -> None:
    """Again while something is there: of a save that has failed, some is still written in the background."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_QUIET_SECONDS)
        if not folder.exists():
            return


def _clear(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _locked(folder: pathlib.Path, flag: str) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{flag}: another process is writing it; wait for that, or give another folder") from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _removed_on_signal(folder: pathlib.Path) -> Iterator[None]:
    """At once: a KeyboardInterrupt may be lost in a library's callback."""
    def end(number: int, _: Any) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.write(2, b"error: interrupted\n")
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # No other may set what signals do.
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
