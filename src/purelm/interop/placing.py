"""Tensors of files onto devices, one at a time: each device gets its own part, and no array is ever whole elsewhere."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from purelm.interop.checkpoint_files import Stored, read_exactly, read_tensor
from purelm.interop.mapping import Tensor, by_leaf, check_shape, leaves_of
from purelm.training.checkpoint_items import nest

_ALIGNMENT = 64  # What XLA's CPU backend wants of a buffer that it takes without a copy.
_TILE = 256


def stream_params(
    tensors: list[Tensor], shapes: Any, files: Mapping[str, Stored], *, progress: Callable[[int], None] | None = None,
) -> Any:
    """The model's parameters as jax.Arrays, read from files tensor by tensor.

    Args:
      tensors: the family's table.
      shapes: abstract parameters, in the types they are to have; a leaf with a sharding is placed by it, others on the
        first device.
      files: of every tensor in the table.
      progress: called with the bytes of each leaf that is placed.

    Raises:
      UserError: a tensor has another shape than the model wants, or a file ends too early.
    """
    leaves = dict(leaves_of(shapes))
    table = by_leaf(tensors, leaves)
    for path, tensor in table.items():
        shape = leaves[path].shape
        for layer in range(shape[0]) if tensor.stacked else [None]:
            name = tensor.name(layer)
            check_shape(name, files[name].shape, tensor.their_shape(shape[1:] if tensor.stacked else shape))
    placed = {}
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        for path, tensor in table.items():
            placed[path] = _place(tensor, leaves[path], files, pool)
            if progress is not None:
                progress(placed[path].nbytes)
    return nest(placed)


def _place(tensor: Tensor, leaf: Any, files: Mapping[str, Stored], pool: concurrent.futures.Executor) -> jax.Array:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    made: dict[str, np.ndarray] = {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        key = str(index)  # Devices that hold the same part share it.
        if key not in made:
            made[key] = read_part(tensor, leaf.shape, leaf.dtype, index, files, pool)
        return made[key]

    return jax.block_until_ready(jax.make_array_from_callback(leaf.shape, sharding, part))


def read_part(tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype, index: tuple[slice, ...],
              files: Mapping[str, Stored], pool: concurrent.futures.Executor) -> np.ndarray:
    """The part `index` of a leaf, on the host."""
    ranges = [range(*place.indices(size)) for place, size in zip(index, shape)]
    part = _aligned(tuple(map(len, ranges)), np.dtype(dtype))
    if not tensor.stacked:
        _read_into(part, tensor, files[tensor.theirs], index)
        return part

    def read_layer(place: int, layer: int) -> None:
        _read_into(part[place], tensor, files[tensor.name(layer)], index[1:])

    list(pool.map(read_layer, range(len(ranges[0])), ranges[0]))
    return part


def _read_into(target: np.ndarray, tensor: Tensor, stored: Stored, index: tuple[slice, ...]) -> None:
    """The part `index` of (one layer of) a leaf; straight into its place where it lies in the file as it is ours."""
    as_it_is = not tensor.transpose and tensor.part is None and not tensor.row and stored.strides is None
    if as_it_is and stored.dtype == target.dtype and stored.shape == target.shape:
        read_exactly(stored.file, stored.offset, memoryview(target.reshape(-1).view(np.uint8)))
    else:
        copy_into(target, tensor.from_theirs(read_tensor(stored))[index])


def copy_into(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, a transposed matrix tile by tile, which the processor's cache holds."""
    if source.ndim == 2 and source.strides[0] < source.strides[1]:
        for row in range(0, source.shape[0], _TILE):
            for column in range(0, source.shape[1], _TILE):
                tile = np.s_[row: row + _TILE, column: column + _TILE]
                target[tile] = source[tile]
    else:
        target[...] = source


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    space = np.empty(size + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    return space[start: start + size].view(dtype).reshape(shape)
