"""Where a family's tensors lie in our parameters: a table of names, read in both directions.

A form of a tensor is a permutation of its numbers (transposed, stacked over layers, cut out of a fused one), so that
what is read and written again has the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from purelm.errors import UserError
from purelm.training.checkpoint_items import nest

_STACKS = ("layers/", "encoder/layers/")


class Part(NamedTuple):
    """One of several tensors that are fused into one.

    The last axis, of outputs, is [groups, of, -1]; ours is [:, number]. GPT-2: query, key and value one after the
    other, of=3. GPT-NeoX: so in each head, groups=num_heads.
    """

    number: int
    of: int
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One line of a family's table.

    Attributes:
      ours: path of a leaf, such as "layers/attention/query/kernel"; one under layers/ or encoder/layers/ is stacked.
      theirs: the name in files; of a stacked one with {} for the layer's number.
      transpose: theirs is [out, in], as of torch's Linear; ours are [in, out].
      part: ours is one part of theirs.
      row: theirs is [1, n], ours [n].
    """

    ours: str
    theirs: str
    transpose: bool = False
    part: Part | None = None
    row: bool = False

    @property
    def stacked(self) -> bool:
        """Whether there is one of theirs a layer."""
        return self.ours.startswith(_STACKS)

    def name(self, layer: int | None) -> str:
        """The name in files, of one layer where there is one a layer."""
        return self.theirs if layer is None else self.theirs.format(layer)

    def from_theirs(self, array: np.ndarray) -> np.ndarray:
        """Our form of (one layer of) the leaf; a view where that is possible."""
        if self.row:
            array = array[0]
        if self.transpose:
            array = array.T
        if self.part is not None:
            number, of, groups = self.part
            *leading, last = array.shape
            array = array.reshape(*leading, groups, of, -1)[..., number, :].reshape(*leading, last // of)
        return array

    def their_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape in files of (one layer of) a leaf of `shape`."""
        shape = list(shape)
        if self.part is not None:
            shape[-1] *= self.part.of
        if self.transpose:
            shape.reverse()
        return tuple([1, *shape] if self.row else shape)


def to_theirs(tensors: Sequence[Tensor], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The tensor in files that these lines, all of one name, are read from, given (one layer of) our leaves."""
    first, array = tensors[0], arrays[0]
    if first.part is not None:
        groups = first.part.groups
        in_order = [array for _, array in sorted(zip((tensor.part.number for tensor in tensors), arrays),
                                                 key=lambda pair: pair[0])]
        *leading, last = array.shape
        parts = [part.reshape(*leading, groups, last // groups) for part in in_order]
        array = np.stack(parts, axis=-2).reshape(*leading, last * first.part.of)
    if first.transpose:
        array = array.T
    return array[None] if first.row else array


def linear(ours: str, theirs: str, bias: bool, part: Part | None = None, conv1d: bool = False) -> list[Tensor]:
    """kernel, and with `bias` bias, from theirs.weight and theirs.bias; conv1d: the weight is [in, out] (GPT-2)."""
    kernel = Tensor(f"{ours}/kernel", f"{theirs}.weight", transpose=not conv1d, part=part)
    return [kernel, Tensor(f"{ours}/bias", f"{theirs}.bias", part=part)] if bias else [kernel]


def norm(ours: str, theirs: str, bias: bool) -> list[Tensor]:
    """scale, and with `bias` bias, from theirs.weight and theirs.bias."""
    scale = Tensor(f"{ours}/scale", f"{theirs}.weight")
    return [scale, Tensor(f"{ours}/bias", f"{theirs}.bias")] if bias else [scale]


def leaves_of(shapes: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of nested dictionaries."""
    for name, value in shapes.items():
        if isinstance(value, Mapping):
            yield from leaves_of(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def by_leaf(tensors: Iterable[Tensor], paths: Iterable[str]) -> dict[str, Tensor]:
    """The table by our paths.

    Raises:
      UserError: it has no line for one of `paths`, or one for none of them, or two for one: the family's table does not
        know a switch of this model.
    """
    table: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.ours in table:
            raise UserError(f"the family's table has two tensors for parameter '{tensor.ours}': {tensor.theirs} and "
                            f"{table[tensor.ours].theirs}")
        table[tensor.ours] = tensor
    wanted = set(paths)
    for path in sorted(wanted ^ table.keys()):
        what = "no tensor for" if path in wanted else "a tensor for what the model has not,"
        raise UserError(f"the family's table has {what} parameter '{path}': its config and its tensors disagree")
    return table


def lines_by_name(tensors: Iterable[Tensor], shapes: Any) -> dict[str, list[tuple[Tensor, int | None]]]:
    """Names in files -> their lines (several where ours are parts of it) and the layer, in the order of the table."""
    leaves = dict(leaves_of(shapes))
    names: dict[str, list[tuple[Tensor, int | None]]] = {}
    for tensor in by_leaf(tensors, leaves).values():
        layers = range(leaves[tensor.ours].shape[0]) if tensor.stacked else [None]
        for layer in layers:
            names.setdefault(tensor.name(layer), []).append((tensor, layer))
    return names


def shape_of(lines: Sequence[tuple[Tensor, int | None]], shapes: Any) -> tuple[int, ...]:
    """The shape in files of a tensor with these lines (see `lines_by_name`), `shapes` being of our parameters."""
    tensor, layer = lines[0]
    leaf = shapes
    for part in tensor.ours.split("/"):
        leaf = leaf[part]
    return tensor.their_shape(leaf.shape if layer is None else leaf.shape[1:])


def params_from(tensors: Iterable[Tensor], shapes: Any, read: Callable[[str], np.ndarray]) -> Any:
    """Our parameters as host arrays, from tensors that `read` gives by name; `shapes`: of the model's parameters.

    Raises:
      UserError: a tensor has another shape than the config says, or the table does not fit the model.
    """
    leaves = dict(leaves_of(shapes))
    return nest({path: leaf_from(tensor, leaves[path].shape, read)
                 for path, tensor in by_leaf(tensors, leaves).items()})


def leaf_from(tensor: Tensor, shape: Sequence[int], read: Callable[[str], np.ndarray]) -> np.ndarray:
    """One leaf, in the type that `read` gives; UserError for a shape that differs."""
    if not tensor.stacked:
        return np.ascontiguousarray(_checked(tensor, None, shape, read))
    leaf = None
    for layer in range(shape[0]):
        array = _checked(tensor, layer, shape[1:], read)
        if leaf is None:
            leaf = np.empty(shape, array.dtype)
        leaf[layer] = array
    return leaf


def _checked(tensor: Tensor, layer: int | None, shape: Sequence[int], read: Callable[[str], np.ndarray]) -> np.ndarray:
    array, expected = read(tensor.name(layer)), tensor.their_shape(shape)
    check_shape(tensor.name(layer), array.shape, expected)
    return tensor.from_theirs(array)


def check_shape(name: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """UserError where a tensor's shape is not what the config says."""
    if tuple(found) != tuple(expected):
        raise UserError(f"tensor {name}: is {list(found)}, but the config says {list(expected)}; one of the two files "
                        "is of another checkpoint")


def tensors_from(tensors: Iterable[Tensor], params: Any) -> dict[str, np.ndarray]:
    """The tensors in files, by name, of our parameters (arrays on the host)."""
    leaves = dict(leaves_of(params))
    result = {}
    for name, lines in lines_by_name(tensors, params).items():
        arrays = [np.asarray(leaves[tensor.ours] if layer is None else leaves[tensor.ours][layer])
                  for tensor, layer in lines]
        result[name] = to_theirs([tensor for tensor, _ in lines], arrays)
    return result
