"""Tensors in a folder of published weights, read one at a time: safetensors, whole or in parts, or PyTorch's .bin."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from purelm.errors import UserError

_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


_POINTER = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor lies: `count` bytes from `offset` of `file` on, in C order, or in a .bin's own strides."""

    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of its numbers."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def numpy_type(name: str) -> np.dtype:
    """The numpy type of one of NumPy's names, or of bfloat16."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def open_weights(folder: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of the folder by name, in the order of its files.

    Raises:
      UserError: there are no weights, a part is missing, or a file is cut short, damaged or foreign.
    """
    for whole, index, reader in (("model.safetensors", "model.safetensors.index.json", _safetensors),
                                 ("pytorch_model.bin", "pytorch_model.bin.index.json", _pytorch)):
        if (folder / whole).is_file():
            return reader(folder / whole)
        if (folder / index).is_file():
            return _parts(folder / index, reader)
    raise UserError(f"{folder}: no weights are there (model.safetensors or pytorch_model.bin, whole or in parts with "
                    "an index); give the folder that save_pretrained wrote")


def read_file(path: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of one safetensors file by name; raises as `open_weights`."""
    return _safetensors(path)


def read_tensor(stored: Stored) -> np.ndarray:
    """The tensor on the host; UserError where the file ends before it."""
    if stored.strides is not None:
        from purelm.interop.pytorch_files import read_strided

        return read_strided(stored)
    array = np.empty(stored.shape, stored.dtype)
    read_exactly(stored.file, stored.offset, memoryview(array.reshape(-1).view(np.uint8)))
    return array


def read_exactly(file: pathlib.Path, offset: int, buffer: memoryview) -> None:
    """Fills the buffer; not by mapping the file, whose pages would count as this process's memory."""
    try:
        with open(file, "rb", buffering=0) as opened:
            opened.seek(offset)
            done = 0
            while done < len(buffer):
                count = opened.readinto(buffer[done: done + (64 << 20)])
                if not count:
                    raise UserError(f"{file}: ends in the middle of a tensor; it was cut short, so take it again")
                done += count
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error


def _parts(index: pathlib.Path, reader: Any) -> dict[str, Stored]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UserError(f"{index}: has no weight_map; take the file again")
    found: dict[str, Stored] = {}
    beside = {path.name for path in index.parent.iterdir() if path.is_file()}
    for part in dict.fromkeys(map(str, weight_map.values())):
        path = index.parent / part
        if path.parent != index.parent:
            raise UserError(f"{index}: names {part[:200]!r}, which is no file beside it")
        if part not in beside:
            raise UserError(f"{path}: is missing, but {index.name} names it; take it again")
        found |= reader(path)
    for name, part in weight_map.items():
        if name not in found or found[name].file.name != part:
            raise UserError(f"{index}: says that {part} holds {name}, which it does not; the files are not of one "
                            "checkpoint")
    return found


def _safetensors(path: pathlib.Path) -> dict[str, Stored]:
    _check_safetensors(path)
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _NAMES:
            raise UserError(f"{path}: tensor {name} is of type {entry['dtype']}, which cannot be taken over; of "
                            f"{', '.join(_NAMES)} it could")
        found[name] = Stored(path, numpy_type(_NAMES[entry["dtype"]]), tuple(entry["shape"]),
                             8 + size + entry["data_offsets"][0])
    return dict(sorted(found.items(), key=lambda item: item[1].offset))


def _check_safetensors(path: pathlib.Path) -> None:
    """The library's own check of a file: its header, and that the tensors fill it."""
    safetensors = need("safetensors")
    check_no_pointer(path)
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        size = os.path.getsize(path)
        raise UserError(f"{path}: not a whole safetensors file of {size:,} bytes ({error}); it was cut short or "
                        "damaged, so take it again") from error


def check_no_pointer(path: pathlib.Path) -> None:
    """UserError where Git LFS has left a pointer in place of the file."""
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(f"{path}: is a pointer of Git LFS, not the weights; run git lfs pull in its folder")


def _pytorch(path: pathlib.Path) -> dict[str, Stored]:
    from purelm.interop.pytorch_files import open_pytorch

    return open_pytorch(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """An object; UserError where the file is missing or is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the folder that save_pretrained wrote"
                        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; take the file again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not whole JSON ({str(error)[:200]}); take the file again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; take the file again")
    return value


def need(module: str) -> Any:
    """An optional library; UserError where it is missing."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"this needs the package {module}: pip install -e '.[interop]'") from error


class Writer:
    """One safetensors file whose tensors are written in any order, each when it is there.

    Its size is known before, so that no more than one tensor is in memory; the library's own writer wants all of them.
    """

    def __init__(self, path: pathlib.Path, entries: Mapping[str, tuple[np.dtype, tuple[int, ...]]]):
        names = {numpy_type(name): code for code, name in _NAMES.items()}
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, (dtype, shape) in entries.items():
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.path, self._start, self._header = path, 8 + len(text), header
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by close)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._start + offset)

    def write(self, name: str, array: np.ndarray) -> None:
        """Puts a tensor where the header says; OSError where the disk is full."""
        begin, end = self._header[name]["data_offsets"]
        data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        assert len(data) == end - begin, f"{name}: {len(data)} bytes, not {end - begin}"
        self._file.seek(self._start + begin)
        done = 0
        while done < len(data):
            done += self._file.write(data[done: done + (64 << 20)])

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
