"""PyTorch's .bin files without PyTorch: raw storages and a pickle, of which only tensors are let through.

Since PyTorch 1.6 they are a zip; before, as the first files of many families are, pickles and storages in a row.
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
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from purelm.errors import UserError
from purelm.interop.checkpoint_files import Stored, check_no_pointer, numpy_type, read_exactly

_STORAGES = {"FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
             "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
             "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool"}
# The first number of a file of before 1.6.
_LEGACY = 0x1950A86A20F9469CFC6C
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

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.dtypes: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a state dictionary"[-200:])
        return self._KNOWN[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, dtype, key = identifier[:3]
        if kind != "storage" or dtype not in _STORAGES.values() or (len(identifier) > 5 and identifier[5] is not None):
            raise pickle.UnpicklingError("what it refers to is no storage")
        self.dtypes[str(key)] = dtype
        return _Storage(dtype, str(key))


# A storage's key -> (its first byte, its number of bytes).
_Locate = Callable[[str], tuple[int, int]]


def open_pytorch(path: pathlib.Path) -> dict[str, Stored]:
    """Every tensor of the file by name.

    Raises:
      UserError: the file is damaged, or holds anything but tensors by name.
    """
    try:
        check_no_pointer(path)
        state, locate = _zipped(path) if zipfile.is_zipfile(path) else _in_a_row(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:  # The latter for flags and versions that it lacks.
        raise UserError(f"{path}: damaged, or cut short ({error}); take it again") from error
    except (pickle.UnpicklingError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError, EOFError,
            AssertionError, RuntimeError, MemoryError, struct.error) as error:
        raise UserError(f"{path}: damaged, or holds more than tensors, and nothing in it is run ({str(error)[:200]}); "
                        "take it again, or save the weights as safetensors") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
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


def _zipped(path: pathlib.Path) -> tuple[Any, _Locate]:
    """(what is pickled, where storages are) of a file since 1.6."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1 or members[pickles[0]].compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: no PyTorch file of weights (no data.pkl in it); give another")
        with archive.open(pickles[0]) as file:
            state = _Unpickler(file).load()
    root = pickles[0].removesuffix("data.pkl")
    return state, functools.cache(lambda key: _data_offset(path, members, f"{root}data/{key}"))


def _in_a_row(path: pathlib.Path) -> tuple[Any, _Locate]:
    """(what is pickled, where storages are) of a file of before 1.6.

    In it are the number _LEGACY, a version, notes of the system, what is pickled, and the storages' keys, each a
    pickle; then each storage after its count of numbers, of 8 bytes.
    """
    places: dict[str, tuple[int, int]] = {}
    end = path.stat().st_size
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _LEGACY:
            raise pickle.UnpicklingError("it does not begin as PyTorch's files do")
        for _ in range(2):
            _Unpickler(file).load()
        unpickler = _Unpickler(file)
        state, keys = unpickler.load(), _Unpickler(file).load()
        for key in keys:
            count = int.from_bytes(file.read(8), "little", signed=True)
            start, size = file.tell(), count * numpy_type(unpickler.dtypes[str(key)]).itemsize
            if not 0 <= size <= end - start:
                raise pickle.UnpicklingError(f"storage {str(key)[:40]} does not lie in the file")
            places[str(key)] = start, size
            file.seek(start + size)

    def locate(key: str) -> tuple[int, int]:
        if key not in places:
            raise UserError(f"{path}: its storage {key[:40]} is missing; take the file again")
        return places[key]

    return state, locate


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
