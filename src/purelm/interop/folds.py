"""The same function with other parameters: what a family's switches cannot say is folded into its tensors.

A rewrite changes fields of a model to what a family has and says what each leaf of the result is made of. Nothing is
lost but the rounding of a product. What follows from the definitions has no other source.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from purelm.config import ModelConfig
from purelm.config.shapes import encoder_layers, has_bias, head_size, num_kv_heads
from purelm.interop.differences import BIASES, differences
from purelm.interop.mapping import leaves_of
from purelm.interop.task_parameters import task_shapes

# (path, layer of a stacked leaf or None) -> the leaf, or one layer of it, on the host.
Read = Callable[[str, int | None], np.ndarray]


class Rewrite(NamedTuple):
    """fields: of ModelConfig, one of which differs where this may help. how: of the tensors, for a note. model: (model,
    the family's) -> the same function nearer to the family's, or None. leaf: of the result, given what reads the leaves
    of the model before."""

    fields: tuple[str, ...]
    how: str
    model: Callable[[ModelConfig, ModelConfig], ModelConfig | None]
    leaf: Callable[[Step, Read, str, int | None], np.ndarray]


class Step(NamedTuple):
    """A rewrite of one model. task: as `choosing.export_task` has it."""

    rewrite: Rewrite
    before: ModelConfig
    after: ModelConfig
    task: str

    @property
    def note(self) -> str:
        """What was changed, and how."""
        changed = differences(self.before, self.after)
        if "bias" in changed:  # Which says the others.
            changed = {name: values for name, values in changed.items() if name not in BIASES}
        return f"{', '.join(f'{name} {old} -> {new}' for name, (old, new) in changed.items())}: {self.rewrite.how}"


def read_through(steps: tuple[Step, ...], read: Read) -> Read:
    """What reads the leaves of the last model, given what reads those of the first."""
    for step in steps:
        read = functools.partial(step.rewrite.leaf, step, read)
    return read


def _float32(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32)


def _scaled(model: ModelConfig, path: str, array: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """A leaf of which what it is added or multiplied by becomes `factor` times as large."""
    offset = path.endswith("norm/scale") and model.norm_offset
    return (_float32(array) + offset) * np.float32(factor) - offset


def _filled(model: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """With biases and scales that change nothing, where the family has some."""
    either = {name: has_bias(model, getattr(model, name)) or has_bias(wanted, getattr(wanted, name)) for name in BIASES}
    if model.norm != "layer_norm":
        either["norm_bias"] = None
    return dataclasses.replace(
        model, bias=model.bias or wanted.bias, head_bias=model.head_bias or wanted.head_bias,
        norm_scale=model.norm_scale or wanted.norm_scale, **either)


def _filled_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    if path in _shapes(step.before, step.task):
        return read(path, layer)
    shape = _shapes(step.after, step.task)[path]
    fill = path.endswith("/scale") and not step.after.norm_offset
    return np.full(shape if layer is None else shape[1:], fill, np.float32)


@functools.lru_cache(maxsize=8)
def _shapes(model: ModelConfig, task: str) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in leaves_of(task_shapes(model, task))}


def _untied(read: Read, model: ModelConfig) -> np.ndarray:
    """The matrix [D, V] of an output layer of its own, where it was the table of embeddings."""
    if not model.tied_embeddings:
        return read("head/kernel", None)
    factor = 1.0 if model.head_scale == "one" else model.width ** -0.5
    return _float32(read("embedding/embedding", None)).T * np.float32(factor)


def _normalized(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """Without the norm of embeddings, where nothing is added before it: the table is normalized instead."""
    if model.architecture == "encoder_decoder" or model.token_types or model.embedding_width is not None or (
            model.positions in ("learned", "sinusoidal")):
        return None
    return dataclasses.replace(
        model, embedding_norm=False, embedding_scale="one", tied_embeddings=False, head_scale="one")


def _normalized_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    from purelm.models.norms import Norm

    model = step.before
    if path == "head/kernel":
        return _untied(read, model)
    if path != "embedding/embedding":
        return read(path, layer)
    has = {"scale": model.norm_scale, "bias": model.norm == "layer_norm" and has_bias(model, model.norm_bias)}
    params = {name: read(f"embedding_norm/{name}", None) for name, there in has.items() if there}
    table_VD = _float32(read(path, layer)) * np.float32(_embedding_factor(model))
    return np.asarray(Norm(model).apply({"params": params}, table_VD))


def _embedding_factor(model: ModelConfig) -> float:
    return model.width ** 0.5 if model.embedding_scale == "sqrt_width" else 1.0


def _rescaled(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """The factors on what is embedded and on what a tied output layer reads go into two tables."""
    if model.embedding_width is not None:
        return None
    return dataclasses.replace(
        model, embedding_scale=wanted.embedding_scale, tied_embeddings=False, head_scale="one")


def _rescaled_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    if path == "head/kernel":
        return _untied(read, step.before)
    if path not in ("embedding/embedding", "encoder/embedding/embedding"):
        return read(path, layer)
    return _float32(read(path, layer)) * np.float32(_embedding_factor(step.before) / _embedding_factor(step.after))


def _in_halves(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """Sines first, cosines after them: the width's dimensions in another order, in all that reads or writes them."""
    if not wanted.sinusoidal_halves or model.head_transform or model.token_types or model.embedding_width is not None:
        return None
    return dataclasses.replace(model, sinusoidal_halves=True)


# Paths, without encoder/, whose last axis is the width, and those whose first axis (of one layer) is.
_WIDTH_LAST = re.compile(r"embedding/embedding|(layers/)?\w*norm/(scale|bias)|"
                         r"layers/((cross_)?attention/output|feed_forward/down)/(kernel|bias)")
_WIDTH_FIRST = re.compile(r"head/kernel|layers/((cross_)?attention/(query|key|value)|feed_forward/(up|gate))/kernel")


def _in_halves_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    array, name = read(path, layer), path.removeprefix("encoder/")
    order = np.arange(step.before.width).reshape(-1, 2).T.reshape(-1)
    if _WIDTH_FIRST.fullmatch(name):
        return array[order]
    return array[..., order] if _WIDTH_LAST.fullmatch(name) else array


def _scores(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """Queries take up the factor on scores; where they are normalized, the scale of their norm does."""
    if model.qk_norm and not model.norm_scale:
        return None
    return dataclasses.replace(model, attention_scale=wanted.attention_scale)


def _scores_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    reads = r"query_norm/scale" if step.before.qk_norm else r"query/(kernel|bias)"
    if not re.fullmatch(rf"(encoder/)?layers/(cross_)?attention/{reads}", path):
        return read(path, layer)
    old, new = (head_size(model) ** -0.5 if model.attention_scale is None else model.attention_scale
                for model in (step.before, step.after))
    return _scaled(step.before, path, read(path, layer), old / new)


def _moved(model: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """Rows that nothing reads before those of positions, or none."""
    return dataclasses.replace(model, position_offset=wanted.position_offset)


def _moved_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    array, more = read(path, layer), step.after.position_offset - step.before.position_offset
    if not path.endswith("positions/embedding"):
        return array
    return np.pad(array, ((more, 0), (0, 0))) if more > 0 else array[-more:]


def _branches(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """The last layer of each sublayer takes up the factor on what is added; where a norm follows, its scale does."""
    if wanted.residual_scale != "one" or (model.norm_place in ("sandwich", "output") and not model.norm_scale):
        return None
    return dataclasses.replace(model, residual_scale="one")


def _branches_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    model = step.before
    last = r"_output_norm" if model.norm_place in ("sandwich", "output") else r"/(output|down)"
    found = re.fullmatch(rf"((?:encoder/)?layers/(?:cross_attention|attention|feed_forward)){last}/\w+", path)
    if found is None:
        return read(path, layer)
    if model.residual_scale == "rezero":
        factor = _float32(read(f"{found[1]}_residual_scale", layer))
    else:
        factor = (2 * (encoder_layers(model) if path.startswith("encoder/") else model.num_layers)) ** -0.5
    return _scaled(model, path, read(path, layer), factor)


def _unshared(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """Each layer has its own copy of the parameters."""
    return dataclasses.replace(model, layer_sharing=1) if wanted.layer_sharing == 1 else None


def _unshared_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    return read(path, None if layer is None else layer // step.before.layer_sharing)


def _repeated(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """Each query head has its own copy of keys and values."""
    if num_kv_heads(wanted) % num_kv_heads(model) or model.qk_norm_over == "all_heads":
        return None
    return dataclasses.replace(model, num_kv_heads=num_kv_heads(wanted))


def _repeated_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    array = read(path, layer)
    if not re.fullmatch(r"(encoder/)?layers/(cross_)?attention/(key|value)/\w+", path):
        return array
    times, size = num_kv_heads(step.after) // num_kv_heads(step.before), head_size(step.before)
    return np.repeat(array.reshape(*array.shape[:-1], -1, size), times, axis=-2).reshape(*array.shape[:-1], -1)


def _offset(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """1 is taken off the scales of norms, or added to them."""
    return dataclasses.replace(model, norm_offset=wanted.norm_offset) if model.norm_scale else None


def _offset_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    array = read(path, layer)
    if not path.endswith("norm/scale"):
        return array
    return _float32(array) + np.float32(int(step.before.norm_offset) - int(step.after.norm_offset))


def _separate(model: ModelConfig, wanted: ModelConfig) -> ModelConfig | None:
    """Sublayers beside each other have a copy each of their norm."""
    if not model.parallel_block or wanted.parallel_norms != "separate":
        return None
    return dataclasses.replace(model, parallel_norms="separate")


def _separate_leaf(step: Step, read: Read, path: str, layer: int | None) -> np.ndarray:
    return read(re.sub(r"layers/(cross_attention|attention|feed_forward)_norm/", "layers/norm/", path), layer)


# In the order in which they are tried: what is filled in first can be scaled later.
REWRITES = (
    Rewrite(("bias", "head_bias", "norm_scale", *BIASES), "biases are written as zeros, scales as ones", _filled,
            _filled_leaf),
    Rewrite(("embedding_norm",), "the table of embeddings is written normalized", _normalized, _normalized_leaf),
    Rewrite(("embedding_scale", "head_scale"), "tables of embeddings are written scaled", _rescaled, _rescaled_leaf),
    Rewrite(("sinusoidal_halves",), "the width's dimensions are written in another order", _in_halves, _in_halves_leaf),
    Rewrite(("attention_scale",), "queries are written scaled", _scores, _scores_leaf),
    Rewrite(("position_offset",), "positions are written from another row", _moved, _moved_leaf),
    Rewrite(("residual_scale",), "sublayers' last tensors are written scaled", _branches, _branches_leaf),
    Rewrite(("layer_sharing",), "layers are written with a copy each", _unshared, _unshared_leaf),
    Rewrite(("num_kv_heads",), "keys and values are written with a copy for each head", _repeated, _repeated_leaf),
    Rewrite(("norm_offset",), "scales are written with the 1, or without", _offset, _offset_leaf),
    Rewrite(("parallel_norms",), "the norm of a layer is written twice", _separate, _separate_leaf),
)
