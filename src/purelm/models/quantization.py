"""Weights kept in fewer bits, for inference: bfloat16, int8, or int4; products are made in the activations' type.

Symmetric rounding to the nearest of 2^bits - 1 levels. int8 has one scale an output channel (Jacob et al. 2018, arXiv
1712.05877; Dettmers et al. 2022, arXiv 2208.07339), int4 one a group of inputs and output channel, two values a byte
(Frantar et al. 2022, GPTQ, arXiv 2210.17323, section 3, with rounding alone). Embeddings, their projections
and output layers have int8 with int4 too. Biases, norms and positions stay as they are.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.errors import UserError

Kind = Literal["bfloat16", "int8", "int4"]
KINDS = ("bfloat16", "int8", "int4")
_BITS = {"bfloat16": 16, "int8": 8, "int4": 4}
# Inputs that share a scale in int4, where they divide: a scale costs 32 / 64 bits a weight.
_GROUP = 64
# XLA's CPU backend multiplies with converted weights ten times slower than with float32; a tile converted first stays
# in the processor's cache. With more rows than this the whole matrix is converted at once.
_TILED_ROWS = 32
_TILE_SIZE = 1 << 18


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A matrix, or a stack of them on a leading axis, in `bits` bits.

    values: bits 16, bfloat16, and 8, int8: the matrix's shape; 4: uint8 [..., K / 2, N], the two halves of each group
    in the low and the high four bits, plus 8. scales: float32, None of 16 bits. axis: of the matrix, 0 or 1, the one
    that products contract; scales have the size 1 there, or one for each group.
    """

    values: jax.Array
    scales: jax.Array | None
    bits: int = dataclasses.field(metadata={"static": True})
    axis: int = dataclasses.field(metadata={"static": True})


def quantize_params(config: ModelConfig, params: Any, kind: Kind) -> Any:
    """A Transformer's parameters with its matrices in fewer bits; the model takes them in place of the others.

    Raises UserError for another `kind`, and for networks that are no Transformer.
    """
    if kind not in KINDS:
        raise UserError(f"quantize={kind}: choose one of {', '.join(KINDS)}")
    if config.architecture not in ("decoder", "encoder", "encoder_decoder"):
        raise UserError(f"quantize={kind}: config.model.architecture={config.architecture} has no quantized form; "
                        "only Transformers have")

    def leaf(path: tuple, matrix: jax.Array) -> Any:
        keys = [str(key.key) if hasattr(key, "key") else str(key) for key in path]
        table = keys[-2:] == ["embedding", "embedding"]
        linear = keys[-1] == "kernel" and "layers" in keys
        outside = keys[-1] == "kernel" and keys[-2] in ("head", "embedding_projection", "head_projection")
        if not (table or linear or outside):
            return matrix
        return quantize(matrix, _BITS[kind] if linear else max(_BITS[kind], 8), axis=1 if table else 0)

    return jax.tree_util.tree_map_with_path(leaf, params)


def quantize(matrix: jax.Array, bits: int, *, axis: int) -> Quantized:
    """`matrix` [..., K, N] in `bits` bits (4 only with axis 0)."""
    if bits == 16:
        return Quantized(matrix.astype(jnp.bfloat16), None, bits, axis)
    matrix = matrix.astype(jnp.float32)
    if bits == 8:
        scales = _scales(matrix, 127, axis - 2)
        return Quantized(jnp.round(matrix / scales).astype(jnp.int8), scales, bits, axis)
    *leading, inputs, outputs = matrix.shape
    group = _group_size(inputs)
    groups = matrix.reshape(*leading, inputs // group, group, outputs)
    scales = _scales(groups, 7, -2)
    levels = (jnp.round(groups / scales) + 8).astype(jnp.uint8)
    low, high = jnp.split(levels, 2, axis=-2)
    packed = (low | high << 4).reshape(*leading, inputs // 2, outputs)
    return Quantized(packed, scales[..., 0, :], bits, axis)


def _scales(matrix: jax.Array, levels: int, axis: int) -> jax.Array:
    largest = jnp.max(jnp.abs(matrix), axis=axis, keepdims=True)
    return jnp.where(largest == 0, 1.0, largest) / levels


def _group_size(inputs: int) -> int:
    """The largest even number up to _GROUP that divides `inputs`."""
    sizes = [size for size in range(2, min(_GROUP, inputs) + 1, 2) if inputs % size == 0]
    if not sizes:
        raise UserError(f"quantize=int4: a matrix with {inputs} inputs, an odd number, cannot be packed; use int8")
    return sizes[-1]


def dequantize(matrix: Quantized, dtype: Any) -> jax.Array:
    """The matrix [K, N], up to rounding."""
    if matrix.bits == 16:
        return _widened(matrix.values).astype(dtype)
    if matrix.bits == 8:
        return (matrix.values.astype(jnp.float32) * matrix.scales).astype(dtype)
    return _unpacked(matrix.values, matrix.scales).astype(dtype)


def _widened(values: jax.Array) -> jax.Array:
    """float32 of bfloat16, by their bits: XLA's CPU backend would fold a conversion into a slow product."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint16).astype(jnp.uint32) << 16
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _unpacked(packed: jax.Array, scales: jax.Array) -> jax.Array:
    """float32 [K, N] of packed int4 [K / 2, N] and scales [G, N]."""
    half, outputs = packed.shape
    both = [part.reshape(scales.shape[0], -1, outputs) for part in _halves(packed, scales)]
    return jnp.concatenate(both, axis=1).reshape(2 * half, outputs)


def _halves(packed: jax.Array, scales: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 [K / 2, N] each: the rows of the first half of every group, and those of the second."""
    levels = packed.reshape(scales.shape[0], -1, packed.shape[1]).astype(jnp.int32)
    low, high = (((part - 8).astype(jnp.float32) * scales[:, None]) for part in (levels & 15, levels >> 4))
    return low.reshape(packed.shape), high.reshape(packed.shape)


def product(x_XK: jax.Array, matrix: Quantized) -> jax.Array:
    """x_XK times the matrix, contracting its `axis`; float32 [X, N], or [X, K'] of a table [K', D]."""
    if matrix.axis == 1:
        return _table_product(x_XK, matrix)
    tile = _tile(matrix)
    if x_XK.shape[0] > _TILED_ROWS or tile is None or jax.default_backend() != "cpu":
        if matrix.bits == 8:  # The scale after the product, so that XLA can read int8 in it.
            y = jnp.matmul(x_XK, matrix.values.astype(x_XK.dtype), preferred_element_type=jnp.float32)
            return y * matrix.scales
        return jnp.matmul(x_XK, dequantize(matrix, x_XK.dtype), preferred_element_type=jnp.float32)
    rows, inputs = x_XK.shape
    tiles = inputs // tile
    x_tiles = jnp.swapaxes(x_XK.astype(jnp.float32).reshape(rows, tiles, tile), 0, 1)
    if matrix.bits == 4:  # By halves of groups, as the rows are packed: put in order they would be copied.
        group = inputs // matrix.scales.shape[0]
        x_tiles = jnp.moveaxis(x_tiles.reshape(tiles, rows, -1, 2, group // 2), 3, 1).reshape(tiles, 2, rows, -1)
    values = matrix.values.reshape(tiles, -1, matrix.values.shape[-1])
    scales = None if matrix.bits != 4 else matrix.scales.reshape(tiles, -1, matrix.scales.shape[-1])

    def add(total: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
        x, part, part_scales = inputs
        if matrix.bits == 4:
            low, high = _halves(part, part_scales)
            return total + x[0] @ low + x[1] @ high, None
        return total + x @ (_widened(part) if matrix.bits == 16 else part.astype(jnp.float32)), None

    y, _ = jax.lax.scan(add, jnp.zeros((rows, values.shape[-1]), jnp.float32), (x_tiles, values, scales))
    return y * matrix.scales if matrix.bits == 8 else y


def _tile(matrix: Quantized) -> int | None:
    """Inputs a tile of about _TILE_SIZE weights has; None where one tile is all of it."""
    packing = 2 if matrix.bits == 4 else 1
    inputs, outputs = packing * matrix.values.shape[0], matrix.values.shape[1]
    unit = 1 if matrix.bits != 4 else inputs // matrix.scales.shape[0]
    sizes = [size for size in range(unit, inputs, unit) if inputs % size == 0 and size * outputs <= _TILE_SIZE]
    return sizes[-1] if sizes and inputs * outputs > _TILE_SIZE else None


def _table_product(x_XD: jax.Array, table: Quantized) -> jax.Array:
    """float32 [X, V] of a table [V, D]."""
    entries, width = table.values.shape
    rows = x_XD.shape[0]
    if rows > _TILED_ROWS or jax.default_backend() != "cpu":
        values = _widened(table.values).astype(x_XD.dtype) if table.bits == 16 else table.values.astype(x_XD.dtype)
        return _scaled(_contract(x_XD, values), table)
    size = min(max(4 * _TILE_SIZE // width, 1), entries)
    x_XD = x_XD.astype(jnp.float32)

    def tile(number: jax.Array, y_XV: jax.Array) -> jax.Array:
        # The last tile begins early enough to end with the table: what it writes twice is the same.
        start = jnp.minimum(number * size, entries - size)
        part = jax.lax.dynamic_slice_in_dim(table.values, start, size)
        part = _widened(part) if table.bits == 16 else part.astype(jnp.float32)
        return jax.lax.dynamic_update_slice_in_dim(y_XV, _contract(x_XD, part), start, axis=1)

    y_XV = jax.lax.fori_loop(0, -(-entries // size), tile, jnp.zeros((rows, entries), jnp.float32))
    return _scaled(y_XV, table)


def _contract(x_XD: jax.Array, table_VD: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x_XD, table_VD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _scaled(y_XV: jax.Array, table: Quantized) -> jax.Array:
    return y_XV if table.scales is None else y_XV * table.scales[:, 0]


def take_rows(table: Quantized, ids: jax.Array) -> jax.Array:
    """float32 rows [..., D] of a table [V, D]."""
    rows = jnp.take(table.values, ids, axis=0, mode="clip").astype(jnp.float32)
    return rows if table.scales is None else rows * jnp.take(table.scales, ids, axis=0, mode="clip")


def parameter(module: nn.Module, name: str, initializer: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """`module.param`, or the quantized matrix that stands in its place."""
    if module.has_variable("params", name):
        value = module.get_variable("params", name)
        if isinstance(value, Quantized):
            return value
    return module.param(name, initializer, shape, dtype)
