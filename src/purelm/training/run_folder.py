"""The run folder: all that is needed to resume, evaluate and generate, and a record of how it came about."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from purelm.config import Config, DecodingConfig, load_json, to_json, validate
from purelm.errors import UserError

# What may differ between a start and a resume without making it another experiment.
_MAY_CHANGE = frozenset({
    "config.data.cache_dir", "config.data.path", "config.data.tfds_dir",
    *(f"config.decoding.{field.name}" for field in dataclasses.fields(DecodingConfig)),
    "config.model.attention_implementation",
    "config.model.remat", "config.model.scan_layers", "config.optimizer.decay", "config.optimizer.warmup",
    "config.task.bleu_tokenizer", "config.task.longest_answer", "config.task.metrics",
    "config.parallel.data", "config.parallel.engine", "config.parallel.fsdp", "config.parallel.tensor",
    "config.training.checkpoint_every", "config.training.evaluate_batches", "config.training.evaluate_every",
    "config.training.keep_best", "config.training.keep_last", "config.training.log_every",
    "config.training.loss_chunk", "config.training.num_steps",
})
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "purelm")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder."""

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def record(self) -> pathlib.Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    @property
    def tokenizer(self) -> pathlib.Path:
        return self.path / "tokenizer.json"

    @property
    def labels(self) -> pathlib.Path:
        return self.path / "labels.json"

    @property
    def curves(self) -> pathlib.Path:
        return self.path / "curves.png"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"


def open_run(workdir: str, field: str = "--workdir") -> tuple[RunFolder, Config]:
    """A folder that a run was started in, and its config; `field` is what named it, for messages.

    Raises:
      UserError: there is no run there.
    """
    folder = RunFolder(pathlib.Path(workdir))
    if not folder.path.is_dir():
        raise UserError(f"{field}={workdir}: no such folder; train a model there first, or give another")
    if not folder.config.is_file():
        raise UserError(f"{field}={workdir}: no run was started here (no config.json); give the folder that "
                        "train.py wrote")
    return folder, validate(load_json(folder.config), recorded=True)


def read_labels(folder: RunFolder) -> tuple[str, ...] | None:
    """The run's classes or tags in the order of their numbers, or None where it has none.

    Raises:
      UserError: labels.json is missing or damaged, or not this run's: it would give the answers wrong names.
    """
    known = read_record(folder)["data"].get("labels")
    if known is None:
        return None
    try:
        labels = json.loads(folder.labels.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.labels}: cannot be read ({error}); train again, or put the file back") from error
    if labels != known:
        raise UserError(f"{folder.labels}: not the {len(known)} labels that this run was trained with (run.json knows "
                        "them); put the right file back")
    return tuple(labels)


def check_workdir(workdir: str) -> tuple[RunFolder, list[pathlib.Path]]:
    """The folder to train in, which can be written to, and the folders made just now for it, the innermost first.

    Raises:
      UserError: it cannot be made or written to.
    """
    folder = RunFolder(pathlib.Path(workdir))
    made = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        probe = folder.path / f".writable.{os.getpid()}"
        probe.write_bytes(b"x" * 65536)
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--workdir={workdir}: is a file, or lies under one; give a folder") from None
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written to ({error.strerror}); give another folder") from None
    return folder, made


@contextlib.contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Keeps other trainings out of the folder; the system lets go of it however this process ends.

    Raises:
      UserError: another training holds it.
    """
    try:
        import fcntl
    except ImportError:  # Not on this system.
        yield
        return
    descriptor = os.open(folder.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"--workdir={folder.path}: another training is writing there; wait for it or stop it, or give "
                        "another folder") from None
    except OSError:  # A file system without locks.
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def check_same_run(folder: RunFolder, config: Config) -> list[str]:
    """One line for each field that changed since the run began, all of which may.

    Both configs are finalized ones. A folder with no config has nothing to compare.

    Raises:
      UserError: a field differs that makes it another experiment, or it is no run that can go on.
    """
    if not folder.config.is_file():
        return []
    check_has_data(folder)
    before, now = (_flatten(dataclasses.asdict(c), "config") for c in (load_json(folder.config), config))
    changed = [name for name in now if before[name] != now[name]]
    for name in changed:
        if name not in _MAY_CHANGE:
            raise UserError(f"--workdir={folder.path}: holds a run with {name}={before[name]!r}, not {now[name]!r}; "
                            f"give another --workdir, or --{name}={before[name]} to resume it")
    return [f"{name}: {before[name]} -> {now[name]}" for name in changed]


def check_same_data(folder: RunFolder, data_fingerprint: dict[str, Any]) -> None:
    """Nothing, where no run was begun in the folder.

    Raises:
      UserError: the data is not the data that the run was begun with, or it was begun with none.
    """
    check_has_data(folder)
    if folder.record.is_file() and (before := read_record(folder)["data"]) != json.loads(json.dumps(data_fingerprint)):
        what = _difference(before, data_fingerprint)
        raise UserError(f"--workdir={folder.path}: its run was begun on other data ({what}); give the same files, "
                        "or another --workdir")


def check_has_data(folder: RunFolder) -> None:
    """UserError where the folder holds published weights that were taken over: there is no data, and no optimizer."""
    if folder.record.is_file() and "imported" in read_record(folder)["data"]:
        raise UserError(f"--workdir={folder.path}: holds weights that convert.py took over, with no data of their own; "
                        "to evaluate, give --data_path=FILE; to train, give another --workdir with "
                        f"--config={folder.config}, which begins from them")


def write_start(folder: RunFolder, config: Config, data_fingerprint: dict[str, Any], devices: list[Any], *,
                begun: bool) -> None:
    """Writes config.json and run.json; where the run was `begun` before, the start is added to run.json's list."""
    starts = read_record(folder)["starts"] if begun else []
    starts.append({
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": [sys.executable, *sys.argv],
        "git": _git_state(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": [str(device) for device in devices],
    })
    write_atomically(folder.config, to_json(config))
    write_atomically(folder.record, json.dumps({"starts": starts, "data": data_fingerprint}, indent=2,
                                               ensure_ascii=False) + "\n")


def read_record(folder: RunFolder) -> dict[str, Any]:
    """run.json: `starts`, a list of how each start came about, and `data`, the fingerprint of what is trained on.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        record = json.loads(folder.record.read_text(encoding="utf-8"))
        return {"starts": record["starts"], "data": record["data"]}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{folder.record}: missing or damaged; put back a copy, or train in another folder") from None


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes all of `text` or nothing.

    Raises:
      UserError: the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def _flatten(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}.{name}"))
        else:
            flat[f"{prefix}.{name}"] = value
    return flat


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    now_flat = _flatten(json.loads(json.dumps(now)), "")
    for name, value in _flatten(before, "").items():
        if now_flat.get(name) != value:
            return f"{name[1:]}: {str(value)[:60]} -> {str(now_flat.get(name))[:60]}"
    return "it holds more"


@functools.cache
def _git_state() -> dict[str, str] | None:
    """Commit and hash of what is not committed, of the checkout this file lies in; None outside of one."""
    here = pathlib.Path(__file__).parent

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, check=True, timeout=20).stdout

    try:
        commit, difference = git("rev-parse", "HEAD").decode().strip(), git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "difference": hashlib.sha256(difference).hexdigest() if difference else "none"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
