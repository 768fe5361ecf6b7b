"""Which axis of the mesh splits which dimension of which array.

`tensor` splits what a layer computes side by side (Shoeybi et al. 2019, "Megatron-LM"): heads, hidden units, and the
vocabulary. `fsdp` splits the width of every matrix (Rajbhandari et al. 2020, "ZeRO", stage 3). Vectors of the width,
norms and scalars are whole everywhere. Layers are stacked, so a layer's matrix is [L, in, out].
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import PartitionSpec

from purelm.config import Config
from purelm.config.shapes import TRANSFORMERS
from purelm.errors import UserError
from purelm.training import rules

PARAMETER_RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"^adapters/", PartitionSpec()),
    (r"^(encoder/)?embedding/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"^(encoder/)?(positions|token_types)/embedding$", PartitionSpec(None, "fsdp")),
    (r"^head/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"^head/bias$", PartitionSpec("tensor")),
    (r"^head_transform/kernel$", PartitionSpec("fsdp", None)),
    (r"^head_transform/bias$", PartitionSpec()),
    (r"^(encoder/)?embedding_projection/kernel$", PartitionSpec(None, "fsdp")),
    (r"^head_projection/kernel$", PartitionSpec("fsdp", None)),
    (r"^(encoder/)?layers/(cross_)?attention/(query|key|value)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"^(encoder/)?layers/(cross_)?attention/(query|key|value)/bias$", PartitionSpec(None, "tensor")),
    (r"^(encoder/)?layers/(cross_)?attention/output/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"^(encoder/)?layers/feed_forward/(up|gate)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"^(encoder/)?layers/feed_forward/(up|gate)/bias$", PartitionSpec(None, "tensor")),
    (r"^(encoder/)?layers/feed_forward/down/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"^(encoder/)?layers/((cross_)?attention/output|feed_forward/down)/bias$", PartitionSpec()),
    (r"norm/(scale|bias)$", PartitionSpec()),
    (r"^(encoder/)?layers/(cross_)?attention/sink$", PartitionSpec()),
    (r"^(encoder/)?layers/((cross_)?attention|feed_forward)_residual_scale$", PartitionSpec()),
    (r"^(encoder/)?relative_bias/", PartitionSpec()),
    # What a task, of the user's own perhaps, puts beside the model.
    (r"^(?!(adapters|encoder|layers|embedding|embedding_projection|positions|token_types|relative_bias|head|"
     r"head_transform|head_projection)/)", PartitionSpec()),
)

USE_RULES: tuple[tuple[str, PartitionSpec | None], ...] = (
    (r"^(encoder/)?embedding/embedding$", PartitionSpec("tensor", None)),
    (r"^(encoder/)?(positions|token_types)/embedding$", PartitionSpec()),
    (r".*", None),
)


def parameter_specs(params_shapes: Any) -> Any:
    """The PartitionSpec of each parameter. Raises UserError for a parameter that no rule names.

    Networks without Transformer layers are whole on every device (see `check_sizes`).
    """
    if "layers" not in params_shapes:
        return jax.tree.map(lambda _: PartitionSpec(), params_shapes)
    return rules.match_rules(PARAMETER_RULES, params_shapes, "training/parallel/sharding.py PARAMETER_RULES")


def state_specs(state_shapes: Any, params_shapes: Any) -> Any:
    """The PartitionSpec of each array of a training state.

    An array that stands for a parameter (the path ends in the parameter's, the shape is the same: the parameter itself,
    its average, its moments) is split as the parameter is. All else (counts, Adafactor's row and column means) is whole
    on every device.
    """
    specs = parameter_specs(params_shapes)
    leaves = jax.tree_util.tree_leaves_with_path(params_shapes)
    flat_specs = jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    known = {tuple(map(str, path)): (leaf.shape, spec) for (path, leaf), spec in zip(leaves, flat_specs)}

    def spec(path, leaf):
        names = tuple(map(str, path))
        for start in range(len(names)):
            shape, found = known.get(names[start:], (None, None))
            if shape == leaf.shape:
                return found
        return PartitionSpec()

    return jax.tree_util.tree_map_with_path(spec, state_shapes)


def check_sizes(config: Config) -> None:
    """Raises UserError where a size of the model does not divide over the axis that splits it, or nothing splits it."""
    model, parallel = config.model, config.parallel
    if model.architecture not in TRANSFORMERS:
        if parallel.fsdp > 1 or parallel.tensor > 1:
            raise UserError(f"config.parallel: fsdp={parallel.fsdp}, tensor={parallel.tensor}: networks of "
                            f"architecture {model.architecture} are whole on each device; set both to 1")
        return
    for axis, field in (("fsdp", "width"), ("fsdp", "embedding_width"), ("tensor", "num_heads"),
                        ("tensor", "num_kv_heads"), ("tensor", "feed_forward_width"), ("tensor", "vocabulary_size")):
        parts, size = getattr(parallel, axis), getattr(model, field)
        if size is not None and size % parts:
            hint = f"a multiple, such as {-(-size // parts) * parts}, would do"
            if field == "vocabulary_size":
                hint += " (a larger vocabulary is padding)"
            raise UserError(f"config.parallel.{axis}={parts} does not divide config.model.{field}={size}; {hint}")
