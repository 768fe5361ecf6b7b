"""The stack of blocks: parameters stacked over layers, applied by a loop or by lax.scan.

params["layers"] is one subtree whose leaves are [L', ...], L' = num_layers / layer_sharing, made by vmapping
Block.init over one key a layer: the same values under either way of applying it, and whatever the other layers are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import layer_config, layer_kinds, layer_period
from purelm.models.attention import Attention
from purelm.models.block import Block, KeysValues
from purelm.models.cache import Cache, flat
from purelm.models.context import AttentionContext
from purelm.models.dtypes import compute_dtype
from purelm.models.paged_cache import PagedCache

Params = Any
# (parameters of one layer, x_BTD, its cache, its keys and values of the source, dropout key) -> (x_BTD, cache, weights)
LayerFunction = Callable[[Params, jax.Array, Any, Any, jax.Array | None], tuple[jax.Array, Any, dict[str, Any]]]
Collected = dict[str, jax.Array]
Contexts = Mapping[str, AttentionContext]  # By kind of layer (config.shapes.layer_kinds).
AnyCache = Cache | PagedCache

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def init_layers(key: jax.Array, config: ModelConfig) -> Params:
    """Initial parameters, stacked; layer l's come from fold_in(key, l) and its parameters' names."""
    layer_numbers = jnp.arange(config.num_layers // config.layer_sharing)
    keys = jax.vmap(lambda layer: jax.random.fold_in(key, layer))(layer_numbers)
    x_BTD = jnp.zeros((1, 1, config.width), compute_dtype(config))
    cross = AttentionContext(is_cross=True, source_BSD=x_BTD) if config.architecture == "encoder_decoder" else None
    context = AttentionContext(cross=cross)
    return jax.vmap(lambda k: Block(config, parent=None).init(k, x_BTD, context)["params"])(keys)


def _split(layers: Params) -> tuple[Params, ...]:
    """A stacked subtree as one tree a layer. lax.split's gradient is one concatenation; indexing's is a sum of pads."""
    leaves, structure = jax.tree.flatten(layers)
    split = [[part[0] for part in jax.lax.split(leaf, (1,) * leaf.shape[0])] for leaf in leaves]
    return tuple(jax.tree.unflatten(structure, layer) for layer in zip(*split))


def unstack_layers(params: Params) -> Params:
    """The same parameters with params["layers"] a tuple of one tree a layer: what decoding should be given,
    since slicing the stack at each step would copy all of it. An encoder's, which read once, stay as they are; so
    do parameters that have no stack, or no longer."""
    if "layers" not in params or isinstance(params["layers"], tuple):
        return params
    return {**params, "layers": _split(params["layers"])}


def _layer_functions(config: ModelConfig, contexts: Contexts, *, in_scan: bool) -> dict[str, LayerFunction]:
    """The function of a layer of each kind."""
    return {kind: _layer_function(layer_config(config, kind), context, in_scan=in_scan)
            for kind, context in contexts.items()}


def _layer_function(config: ModelConfig, context: AttentionContext, *, in_scan: bool) -> LayerFunction:
    """One block as a pure function, under jax.checkpoint with config.remat (Chen et al. 2016, arXiv 1604.06174).

    dots keeps products with weights and recomputes the rest, attention's own products included; full keeps only x.
    """

    def layer(params: Params, x_BTD: jax.Array, cached: Any, source: Any, key: jax.Array | None) -> tuple:
        rngs = None if key is None else {"dropout": key}
        return Block(config, parent=None).apply(
            {"params": params}, x_BTD, context, cached, source, deterministic=key is None, rngs=rngs)

    if config.remat == "none":
        return layer
    # A loop needs prevent_cse, or XLA merges the recomputation with the first computation; scan's body cannot.
    return jax.checkpoint(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=not in_scan)


def _loop(
    config: ModelConfig, layers: tuple[Params, ...], x_BTD: jax.Array, contexts: Contexts,
    cache: AnyCache | None, sources: tuple[KeysValues, ...] | None, dropout_key: jax.Array | None, collect: bool,
) -> tuple[jax.Array, AnyCache | None, Collected | None]:
    layer_functions = _layer_functions(config, contexts, in_scan=False)
    caches, seen = [], []
    for number, kind in enumerate(layer_kinds(config)):
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, number)
        cached = None if cache is None else (cache.keys[number], cache.values[number])
        source = None if sources is None else sources[number]
        params = layers[number // config.layer_sharing]
        x_BTD, cached, weights = layer_functions[kind](params, x_BTD, cached, source, key)
        caches.append(cached)
        seen.append({"residual": x_BTD, **weights})
    if cache is not None:
        keys, values = zip(*caches)
        cache = cache.extended(keys, values, next(iter(contexts.values())).access.added)
    return x_BTD, cache, jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen) if collect else None


def _scan(
    config: ModelConfig, layers: Params, x_BTD: jax.Array, contexts: Contexts, dropout_key: jax.Array | None,
    collect: bool,
) -> tuple[jax.Array, Collected | None]:
    """A step of the scan is a period of layers, so that what differs from layer to layer is fixed in its body."""
    layer_functions = _layer_functions(config, contexts, in_scan=True)
    period = layer_period(config)
    sets = period // config.layer_sharing  # Of parameters, in a period.
    if sets > 1:
        layers = jax.tree.map(lambda leaf: leaf.reshape(-1, sets, *leaf.shape[1:]), layers)

    def body(x_BTD: jax.Array, inputs: tuple[Params, jax.Array]) -> tuple[jax.Array, Any]:
        params, step = inputs
        params = _split(params) if sets > 1 else (params,)
        seen = []
        for member, kind in enumerate(layer_kinds(config, period)):
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, step * period + member)
            x_BTD, _, weights = layer_functions[kind](params[member // config.layer_sharing], x_BTD, None, None, key)
            seen.append({"residual": x_BTD, **weights})
        return x_BTD, jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen) if collect else None

    x_BTD, seen = jax.lax.scan(body, x_BTD, (layers, jnp.arange(config.num_layers // period)))
    return x_BTD, jax.tree.map(lambda leaf: leaf.reshape(config.num_layers, *leaf.shape[2:]), seen)


def apply_layers(
    config: ModelConfig, layers: Params, x_BTD: jax.Array, contexts: Contexts, cache: AnyCache | None,
    dropout_key: jax.Array | None, *, sources: tuple[KeysValues, ...] | None = None, collect: bool,
) -> tuple[jax.Array, AnyCache | None, Collected | None]:
    """(x_BTD after all layers, the cache with the new tokens, what `collect` asks for or None).

    What is collected is stacked over layers: residual [L, B, T, D], attention_weights and with an encoder
    cross_attention_weights, each [L, B, N, T, S]. contexts: of each kind of layer that there is. sources:
    source_keys_values, where they were computed before.

    layers: stacked, or a tuple of one tree a layer (unstack_layers), which is always looped over, as is a call with a
    cache. Consecutive layers share parameters with layer_sharing (Lan et al. 2020, ALBERT, arXiv 1909.11942), but not
    dropout: layer l's key is fold_in(dropout_key, l).
    """
    if config.scan_layers and cache is None and sources is None and not isinstance(layers, tuple):
        x_BTD, collected = _scan(config, layers, x_BTD, contexts, dropout_key, collect)
        return x_BTD, None, collected
    layers = layers if isinstance(layers, tuple) else _split(layers)
    return _loop(config, layers, x_BTD, contexts, cache, sources, dropout_key, collect)


def source_keys_values(config: ModelConfig, layers: Params, source_BSD: jax.Array) -> tuple[KeysValues, ...]:
    """Each layer's keys and values of the source for cross-attention, [B * K, S, H] as in a cache."""
    layers = layers if isinstance(layers, tuple) else _split(layers)
    attention = Attention(config, parent=None)
    computed = []
    for number in range(config.num_layers):
        params = layers[number // config.layer_sharing]["cross_attention"]
        keys_values = attention.apply({"params": params}, source_BSD, method="keys_values")
        computed.append(tuple(flat(rows) for rows in keys_values))
    return tuple(computed)
