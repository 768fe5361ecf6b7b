"""PyTorch's .bin files without PyTorch: a zip of raw storages and a pickle, of which only tensors are let through.

A pickle can call any function. This reader knows the two that build a state dictionary of plain tensors, by name, and
refuses every other, so that nothing in a file is ever run.
"""

from __future__ import annotations

import collections
import functools
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

from purelm.errors import UserError
from purelm.interop.checkpoint_files import Stored, numpy_type, read_exactly

_STORAGES = {"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
             "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
             "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"}
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


class _Storage(NamedTuple):
    dtype: str
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    tensor = _Tensor(storage, offset, tuple(shape), tuple(strides))
    numbers = (offset, *tensor.shape, *tensor.strides)
    if len(tensor.shape) != len(tensor.strides) or not all(type(number) is int and number >= 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor's place is no whole numbers")
    return tensor


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


class _Unpickler(pickle._Unpickler):
    """The one in Python: that in C takes as much memory as a damaged file's numbers say."""

    _KNOWN = {("torch._utils", "_rebuild_tensor_v2"): _tensor,
              ("torch._utils", "_rebuild_parameter"): _parameter,
              ("collections", "OrderedDict"): collections.OrderedDict,
              **{("torch", name): dtype for name, dtype in _STORAGES.items()}}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a state dictionary"[-200:])
        return self._KNOWN[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, dtype, key = identifier[:3]
        if kind != "storage" or dtype not in _STORAGES.values():
            raise pickle.UnpicklingError("what it refers to is no storage")
        return _Storage(dtype, str(key))


def open_pytorch(path: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of the file by name.

    Raises:
      UserError: the file is damaged, of the format before PyTorch 1.6, or holds anything but tensors by name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            pickles = [name for name in members if name.endswith("/data.pkl")]
            if len(pickles) != 1 or members[pickles[0]].compress_type != zipfile.ZIP_STORED:
                raise UserError(f"{path}: no PyTorch file of weights (no data.pkl in it); give another")
            with archive.open(pickles[0]) as file:
                state = _Unpickler(file).load()
    except (zipfile.BadZipFile, NotImplementedError) as error:  # The latter for flags and versions that it lacks.
        raise UserError(f"{path}: not a PyTorch file as written since 1.6, or cut short ({error}); take it again, or "
                        "save it as safetensors") from error
    except (pickle.UnpicklingError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError, EOFError,
            AssertionError, RuntimeError, MemoryError, struct.error) as error:
        raise UserError(f"{path}: holds more than tensors, and nothing in it is run ({str(error)[:200]}); save the "
                        "weights as safetensors") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    root = pickles[0].removesuffix("data.pkl")
    locate = functools.cache(lambda key: _data_offset(path, members, f"{root}data/{key}"))
    found = {}
    for name, tensor in _tensors(path, state):
        dtype = numpy_type(tensor.storage.dtype)
        start, size = locate(tensor.storage.key)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides))
        # One that says its numbers again and again, with strides of 0, may be of any size.
        if max(last + 1, math.prod(tensor.shape)) * dtype.itemsize > size and 0 not in tensor.shape:
            raise UserError(f"{path}: tensor {name} does not lie in the file; it is damaged, so take it again")
        found[name] = Stored(path, dtype, tensor.shape, start + tensor.offset * dtype.itemsize, tensor.strides)
    return found


def _tensors(path: pathlib.Path, state: Any) -> list[tuple[str, _Tensor]]:
    if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(value, _Tensor) and isinstance(value.storage, _Storage)
            for name, value in state.items()):
        raise UserError(f"{path}: is no state dictionary (tensors by name); save the weights as safetensors")
    return list(state.items())


def _data_offset(path: pathlib.Path, members: dict[str, zipfile.ZipInfo], name: str) -> tuple[int, int]:
    """(first byte, number of bytes) of a storage, which PyTorch never compresses."""
    member = members.get(name)
    if member is None or member.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{path}: its storage {name} is missing or compressed; take the file again")
    header = bytearray(_LOCAL_HEADER.size)
    read_exactly(path, member.header_offset, memoryview(header))
    fields = _LOCAL_HEADER.unpack(header)
    start = member.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1]
    return start, min(member.file_size, path.stat().st_size - start)


def read_strided(stored: Stored) -> np.ndarray:
    """The tensor on the host, in the order that its strides say."""
    if 0 in stored.shape:
        return np.empty(stored.shape, stored.dtype)
    count = 1 + sum((n - 1) * s for n, s in zip(stored.shape, stored.strides))
    flat = np.empty(count, stored.dtype)
    read_exactly(stored.file, stored.offset, memoryview(flat.view(np.uint8)))
    strides = [stride * stored.dtype.itemsize for stride in stored.strides]
    return np.lib.stride_tricks.as_strided(flat, stored.shape, strides, writeable=False)
