"""What makes a step folder a good checkpoint: a manifest with the size and checksum of each of its files.

Orbax restores flipped bits without a word and takes an empty folder for the latest step, so nothing here trusts a
folder for its name. This module imports no JAX: which steps are good can be asked before anything heavy is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
BEST_METRIC = "loss"  # of the validation split
_UNFINISHED = re.compile(r"(\d+|writable)\.(orbax-checkpoint-tmp.*|deleted)")
_CHUNK_BYTES = 1 << 20


class DamageError(Exception):
    """A step folder cannot be trusted; the message is `file: what is wrong with it`."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything known of one checkpoint without reading its arrays.

    Attributes:
        step: updates done.
        metadata: what the caller gave to `Checkpoints.save`, and package versions.
        metrics: scores at this step; `BEST_METRIC` decides which checkpoint is the best (the lowest).
        arrays: item ("params", "ema", "optimizer") -> path of the array in it -> (dtype, shape).
        files: path in the step folder -> (bytes, CRC-32 in hexadecimal).
    """

    step: int
    metadata: dict[str, Any]
    metrics: dict[str, float]
    arrays: dict[str, dict[str, tuple[str, tuple[int, ...]]]]
    files: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)


def checksum(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Size in bytes and CRC-32 of a file; `sync` flushes it to the disk too."""
    crc = size = 0
    buffer = bytearray(_CHUNK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(memoryview(buffer)[:count], crc)
            size += count
        if sync:
            os.fsync(file.fileno())
    return size, f"{crc:08x}"


def _digest(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def write_manifest(step_folder: Path, manifest: Manifest) -> None:
    """Checksum every file of the items in `step_folder`, flush them, and write the manifest last, in one rename.

    Files beside the items belong to Orbax's own bookkeeping, which is written later and never read here.
    """
    files = {path.relative_to(step_folder).as_posix(): checksum(path, sync=True)
             for item in manifest.arrays for path in sorted((step_folder / item).rglob("*")) if path.is_file()}
    content = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(manifest, files=files))))
    partial = step_folder / f"{MANIFEST}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump({"checksum": _digest(content), "content": content}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, step_folder / MANIFEST)


def read_manifest(step_folder: Path) -> Manifest:
    """Raises DamageError where the manifest is missing or not what was written."""
    try:
        document = json.loads((step_folder / MANIFEST).read_bytes())
    except OSError as error:
        raise DamageError(f"{MANIFEST}: {error.strerror}") from error
    except ValueError as error:
        raise DamageError(f"{MANIFEST}: not JSON") from error
    if not isinstance(document, dict) or document.keys() != {"checksum", "content"}:
        raise DamageError(f"{MANIFEST}: not a manifest")
    content = document["content"]
    if _digest(content) != document["checksum"]:
        raise DamageError(f"{MANIFEST}: checksum differs")
    if str(content["step"]) != step_folder.name:
        raise DamageError(f"{MANIFEST}: written for step {content['step']}")
    arrays = {item: {path: (dtype, tuple(shape)) for path, (dtype, shape) in leaves.items()}
              for item, leaves in content["arrays"].items()}
    files = {path: (size, crc) for path, (size, crc) in content["files"].items()}
    return Manifest(content["step"], content["metadata"], content["metrics"], arrays, files)


def check_files(step_folder: Path, manifest: Manifest, *, deep: bool, items: Sequence[str] | None = None) -> None:
    """Compare files with the manifest: by presence and size, and where `deep` by checksum; `items` limits it to some.

    Raises:
        DamageError: for the first file that differs.
    """
    for name, (size, crc) in manifest.files.items():
        if items is not None and name.split("/")[0] not in items:
            continue
        try:
            found_size, found_crc = checksum(step_folder / name) if deep else (os.stat(step_folder / name).st_size, crc)
        except OSError as error:
            raise DamageError(f"{name}: {error.strerror}") from error
        if found_size != size:
            raise DamageError(f"{name}: {found_size} bytes where {size} were written")
        if found_crc != crc:
            raise DamageError(f"{name}: checksum differs")


def step_folders(folder: Path) -> dict[int, Path]:
    """Step -> its folder, good or not, oldest first."""
    if not folder.is_dir():
        return {}
    paths = (path for path in folder.iterdir() if re.fullmatch(r"0|[1-9]\d*", path.name) and path.is_dir())
    return dict(sorted((int(path.name), path) for path in paths))


def good_manifests(folder: Path) -> dict[int, Manifest]:
    """Manifests of the steps whose files are all there with their sizes, oldest first (checksums are not read)."""
    manifests = {}
    for step, path in step_folders(folder).items():
        try:
            manifest = read_manifest(path)
            check_files(path, manifest, deep=False)
        except DamageError:
            continue
        manifests[step] = manifest
    return manifests


def best_first(manifests: dict[int, Manifest]) -> list[int]:
    """Steps that carry a finite `BEST_METRIC`, lowest first; of equal ones the earlier."""
    scores = {step: manifest.metrics[BEST_METRIC] for step, manifest in manifests.items()
              if BEST_METRIC in manifest.metrics}
    return sorted((step for step in scores if math.isfinite(scores[step])), key=lambda step: (scores[step], step))


def all_steps(folder: str | os.PathLike[str]) -> list[int]:
    """Good checkpoints, oldest first."""
    return list(good_manifests(Path(folder)))


def latest_step(folder: str | os.PathLike[str]) -> int | None:
    """The newest good checkpoint."""
    return max(all_steps(folder), default=None)


def best_step(folder: str | os.PathLike[str]) -> int | None:
    """The good checkpoint of the lowest `BEST_METRIC`."""
    return next(iter(best_first(good_manifests(Path(folder)))), None)


def prune(folder: Path, *, keep_last: int, keep_best: bool, damaged: set[int]) -> None:
    """Delete every step but the newest `keep_last` good ones and the best; steps in `damaged` are not good."""
    good = {step: manifest for step, manifest in good_manifests(folder).items() if step not in damaged}
    keep = set(sorted(good)[-keep_last:]) | set(best_first(good)[:keep_best])
    for step, path in step_folders(folder).items():
        if step not in keep:
            delete(path)


def delete(step_folder: Path) -> None:
    """Renamed first, so that a kill in the middle leaves no half a step under its own name."""
    doomed = step_folder.with_name(f"{step_folder.name}.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(step_folder, doomed)
    shutil.rmtree(doomed)


def delete_unfinished(folder: Path) -> None:
    """Delete what killed or failed saves and deletions left; nobody else may be saving to `folder`."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path)


def check_writable(folder: Path) -> None:
    """Raises OSError where no file can be made in `folder`."""
    probe = folder / "writable.orbax-checkpoint-tmp"
    probe.mkdir()
    probe.rmdir()


def first_good(folder: Path, order: Sequence[int], *, items: Sequence[str] | None = None
                ) -> tuple[Manifest | None, dict[int, str]]:
    """The first of the steps in `order` whose files all match their checksums, and what is wrong with those before it.

    Args:
        folder: of the checkpoints.
        order: steps to try.
        items: where given, only files of these items count.
    """
    problems: dict[int, str] = {}
    for step in order:
        try:
            manifest = read_manifest(folder / str(step))
            check_files(folder / str(step), manifest, deep=True, items=items)
        except DamageError as error:
            problems[step] = str(error)
            continue
        return manifest, problems
    return None, problems
