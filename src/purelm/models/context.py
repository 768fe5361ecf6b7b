"""What every layer's attention shares: computed once a call, and the one place where masks are built."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models.positions import alibi_bias, rotation


class AttentionContext(NamedTuple):
    """Inputs of attention that do not differ from layer to layer; an axis of size 1 serves all rows.

    implementation: one of attention_forms.FORMS. rotation: RoPE's cosines and sines. bias_BNTS: float32, added to
    the scores (ALiBi, T5). mask_BTS: True where a query may attend; None means causal (and windowed) by index, for
    kernels that take that as a flag. segments_BT: for kernels that take segments. start: where the new keys are
    written in the cache.
    """

    implementation: str = "naive"
    rotation: tuple[jax.Array, jax.Array] | None = None
    bias_BNTS: jax.Array | None = None
    mask_BTS: jax.Array | None = None
    segments_BT: jax.Array | None = None
    start: jax.Array | None = None


def attention_mask(
    config: ModelConfig, query_rows_T: jax.Array, num_keys: int, segments_BT: jax.Array | None
) -> jax.Array:
    """mask_BTS, True where query t may attend to key s.

    Causal: s is not after t. Window: t sees attention_window keys, itself included (Child et al. 2019, arXiv
    1904.10509; Beltagy, Peters & Cohan 2020, Longformer, arXiv 2004.05150). Segments: both are in the same one.
    Each query sees at least itself, so that no softmax is empty; padding (segment 0) sees padding alone.
    """
    distance_TS = query_rows_T[:, None] - jnp.arange(num_keys)[None, :]
    mask_BTS = (distance_TS >= 0)[None]
    if config.attention_window is not None:
        mask_BTS &= distance_TS < config.attention_window
    if segments_BT is not None:
        mask_BTS &= segments_BT[:, :, None] == segments_BT[:, None, :]
    return mask_BTS


def attention_context(
    config: ModelConfig, implementation: str, positions_BT: jax.Array, key_positions_BS: jax.Array,
    relative_bias_BNTS: jax.Array | None, segments_BT: jax.Array | None, start: jax.Array | None,
) -> AttentionContext:
    """The context of one call: new tokens at positions_BT, keys at key_positions_BS, written from row `start`."""
    bias_BNTS = relative_bias_BNTS
    if config.positions == "alibi":
        bias_BNTS = alibi_bias(config.num_heads, positions_BT, key_positions_BS)
    mask_BTS = None
    if implementation in ("naive", "xla") or (implementation == "cudnn" and segments_BT is not None):
        query_rows_T = jnp.arange(positions_BT.shape[1]) + (0 if start is None else start)
        mask_BTS = attention_mask(config, query_rows_T, key_positions_BS.shape[1], segments_BT)
    return AttentionContext(
        implementation=implementation,
        rotation=rotation(config, positions_BT) if config.positions == "rope" else None,
        bias_BNTS=bias_BNTS,
        mask_BTS=mask_BTS,
        segments_BT=segments_BT,
        start=start,
    )
