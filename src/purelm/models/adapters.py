"""Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685) on any model's matrices, as a function of parameters.

params["adapters"] mirrors the paths of the adapted matrices, each with `down` [..., in, r] and `up` [..., r, out] in
the matrix's place; stacked layers have an adapter each. The model reads W + (alpha / r) down @ up (equation 3), so no
model knows of adapters, and merging them for use is the same function.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import AdapterConfig
from purelm.errors import UserError

SUBTREE = "adapters"


def add_adapters(config: AdapterConfig, params: Any, key: jax.Array) -> Any:
    """`params` with adapters on the matrices that config.targets names: `down` Kaiming uniform, `up` zero, as the
    authors' code; so the model starts as it was. Without a rank, `params` as they are.

    Raises:
      UserError: no matrix is named, or what is named is no matrix.
    """
    if config.rank is None:
        return params
    adapters: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not re.search(config.targets, name):
            continue
        if leaf.ndim < 2:
            raise UserError(f"config.adapter.targets: '{name}' is no matrix; name kernels alone, such as '/kernel$'")
        *stack, inputs, outputs = leaf.shape
        bound = 1 / math.sqrt(inputs)
        down = jax.random.uniform(jax.random.fold_in(key, zlib.crc32(name.encode())), (*stack, inputs, config.rank),
                                  leaf.dtype, -bound, bound)
        node = adapters
        for part in name.split("/"):
            node = node.setdefault(part, {})
        node |= {"down": down, "up": jnp.zeros((*stack, config.rank, outputs), leaf.dtype)}
    if not adapters:
        names = [jax.tree_util.keystr(path, simple=True, separator="/")
                 for path, leaf in jax.tree_util.tree_leaves_with_path(params) if leaf.ndim >= 2]
        raise UserError(f"config.adapter.targets: '{config.targets}' names no matrix; there are {', '.join(names[:8])}"
                        f"{', ...' if names[8:] else ''}")
    return {**params, SUBTREE: adapters}


def merge_adapters(config: AdapterConfig, params: Any) -> Any:
    """The parameters that the model reads: without adapters, each adapted matrix with its own added."""
    if SUBTREE not in params:
        return params
    scale = config.alpha / config.rank
    base = {name: subtree for name, subtree in params.items() if name != SUBTREE}

    def merge(tree: Any, adapters: Any) -> Any:
        if not isinstance(tree, dict):
            return tree + (scale * (adapters["down"] @ adapters["up"])).astype(tree.dtype)
        return {name: merge(leaf, adapters[name]) if name in adapters else leaf for name, leaf in tree.items()}

    return merge(base, params[SUBTREE])
