"""What every layer's attention shares: computed once a call, and the one place where masks are built."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models.cache import Access
from purelm.models.paged_cache import PagedAccess
from purelm.models.positions import alibi_bias, rotation


class AttentionContext(NamedTuple):
    """Inputs of attention that do not differ from layer to layer; an axis of size 1 serves all rows.

    implementation: one of attention_forms.FORMS. rotation: RoPE's cosines and sines. bias_BNTS: float32, added to
    the scores (ALiBi, T5). mask_BTS: True where a query may attend; None means everywhere, or where `causal`, causal
    (and windowed) by index, for kernels that take that as a flag. segments_BT: for kernels that take segments. access:
    where the new keys are written in the cache, and which are read. cross: of a decoder with an encoder, the context of
    cross-attention, which alone has is_cross, and source_BSD, what it reads, unless its keys and values are given.
    """

    implementation: str = "naive"
    rotation: tuple[jax.Array, jax.Array] | None = None
    bias_BNTS: jax.Array | None = None
    mask_BTS: jax.Array | None = None
    segments_BT: jax.Array | None = None
    access: Access | PagedAccess | None = None
    causal: bool = True
    is_cross: bool = False
    source_BSD: jax.Array | None = None
    cross: AttentionContext | None = None


def attention_mask(
    config: ModelConfig, query_rows_T: jax.Array, num_keys: int, segments_BT: jax.Array | None,
    prefix_BT: jax.Array | None = None,
) -> jax.Array | None:
    """mask_BTS, True where query t may attend to key s; None where each may attend to all.

    Causal, of a decoder: s is not after t, or both are in the prefix (prefix language model: Liu et al. 2018, arXiv
    1801.10198; Raffel et al. 2020, arXiv 1910.10683, section 3.2.1). Window: t sees attention_window keys, itself
    included (Child et al. 2019, arXiv 1904.10509; Beltagy, Peters & Cohan 2020, Longformer, arXiv 2004.05150), of an
    encoder half of them on each side. Segments: both are in the same one.
    Each query sees at least itself, so that no softmax is empty; padding (segment 0) sees padding alone.
    """
    distance_TS = query_rows_T[:, None] - jnp.arange(num_keys)[None, :]
    window, mask_BTS = config.attention_window, None
    if config.architecture != "encoder":
        prefix_BS = None if prefix_BT is None else _keys_of(prefix_BT, query_rows_T, num_keys)
        mask_BTS = _causal(config, distance_TS[None], prefix_BT, prefix_BS)
    elif window is not None:
        mask_BTS = ((distance_TS <= (window - 1) // 2) & (distance_TS >= -(window // 2)))[None]
    if segments_BT is not None:
        same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
        mask_BTS = same_BTS if mask_BTS is None else mask_BTS & same_BTS
    return mask_BTS


def cached_mask(
    config: ModelConfig, query_rows_BT: jax.Array, key_rows_BS: jax.Array, prefix_BT: jax.Array | None
) -> jax.Array:
    """attention_mask of a decoder whose new tokens are at positions query_rows_BT of rows of their own length, and
    whose keys are at key_rows_BS in any order; a key whose position is below 0 is seen by none."""
    prefix_BS = None
    if prefix_BT is not None:
        number_BS = key_rows_BS - query_rows_BT[:, :1]
        is_new_BS = (number_BS >= 0) & (number_BS < prefix_BT.shape[1])
        number_BS = jnp.broadcast_to(number_BS, (prefix_BT.shape[0], number_BS.shape[1]))
        prefix_BS = is_new_BS & jnp.take_along_axis(prefix_BT.astype(bool), number_BS, axis=1, mode="clip")
    distance_BTS = query_rows_BT[:, :, None] - key_rows_BS[:, None, :]
    return _causal(config, distance_BTS, prefix_BT, prefix_BS) & (key_rows_BS >= 0)[:, None, :]


def _causal(
    config: ModelConfig, distance_BTS: jax.Array, prefix_BT: jax.Array | None, prefix_BS: jax.Array | None
) -> jax.Array:
    """Where a decoder's query, so far after the key, may attend to it."""
    mask_BTS = distance_BTS >= 0
    if prefix_BT is not None:
        mask_BTS |= prefix_BT.astype(bool)[:, :, None] & prefix_BS.astype(bool)[:, None, :]
    window = config.attention_window
    if window is not None:
        mask_BTS &= distance_BTS < window
        if prefix_BT is not None:
            mask_BTS &= distance_BTS > -window
    return mask_BTS


def _keys_of(prefix_BT: jax.Array, query_rows_T: jax.Array, num_keys: int) -> jax.Array:
    """prefix_BS: the new tokens' prefix in the rows of the cache where they are written."""
    nothing_BS = jnp.zeros((prefix_BT.shape[0], num_keys), bool)
    return jax.lax.dynamic_update_slice(nothing_BS, prefix_BT.astype(bool), (0, query_rows_T[0]))


def cross_mask(segments_BT: jax.Array | None, source_segments_BS: jax.Array | None) -> jax.Array | None:
    """mask_BTS, True where target t may attend to source s: s is no padding, and in t's segment if that is known.

    A target that is padding sees all of the source. A row whose source is all padding has an empty softmax, which
    attention_forms makes uniform: finite, and meant for rows that do not count.
    """
    if source_segments_BS is None:
        return None
    mask_BTS = (source_segments_BS > 0)[:, None, :]
    if segments_BT is not None:
        same_BTS = segments_BT[:, :, None] == source_segments_BS[:, None, :]
        mask_BTS &= same_BTS | (segments_BT == 0)[:, :, None]
    return mask_BTS


def attention_context(
    config: ModelConfig, implementation: str, positions_BT: jax.Array, key_positions_BS: jax.Array,
    relative_bias_BNTS: jax.Array | None, segments_BT: jax.Array | None, access: Access | None,
    prefix_BT: jax.Array | None = None, cross: AttentionContext | None = None,
) -> AttentionContext:
    """The context of one call: new tokens at positions_BT, keys at key_positions_BS."""
    bias_BNTS = relative_bias_BNTS
    causal = config.architecture != "encoder"
    if config.positions == "alibi":
        bias_BNTS = alibi_bias(config.num_heads, positions_BT, key_positions_BS,
                               both_ways=not causal or config.prefix_attention)
    mask_BTS = None
    if implementation in ("naive", "xla") or (implementation == "cudnn" and segments_BT is not None):
        if access is not None and access.query_rows_BT is not None:
            mask_BTS = cached_mask(config, access.query_rows_BT, access.key_rows_BS, prefix_BT)
        else:
            query_rows_T = jnp.arange(positions_BT.shape[1]) + (0 if access is None else access.rows)
            mask_BTS = attention_mask(config, query_rows_T, key_positions_BS.shape[1], segments_BT, prefix_BT)
    return AttentionContext(
        implementation=implementation,
        rotation=rotation(config, positions_BT) if config.positions == "rope" else None,
        bias_BNTS=bias_BNTS,
        mask_BTS=mask_BTS,
        segments_BT=segments_BT,
        access=access,
        causal=causal,
        cross=cross,
    )


def paged_context(config: ModelConfig, access: PagedAccess, cross: AttentionContext | None) -> AttentionContext:
    """The context of a call with a paged cache, whose masks and biases are made page by page."""
    turned = rotation(config, access.rows.positions_BT) if config.positions == "rope" else None
    return AttentionContext(implementation="paged", rotation=turned, access=access, cross=cross)


def cross_context(
    implementation: str, source_BSD: jax.Array | None, segments_BT: jax.Array | None,
    source_segments_BS: jax.Array | None,
) -> AttentionContext:
    """The context of cross-attention: no positions, and a mask of the source's padding."""
    return AttentionContext(
        implementation="xla" if implementation == "xla" else "naive", causal=False, is_cross=True,
        source_BSD=source_BSD, mask_BTS=cross_mask(segments_BT, source_segments_BS))
