"""The forms in which attention can be computed, all the same function, and the choice between them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import head_size
from purelm.models.cache import Rows, read
from purelm.models.context import AttentionContext, cached_mask
from purelm.models.dropout import dropout
from purelm.models.paged_cache import PagedAccess, PagedRows, gather_pages
from purelm.models.positions import alibi_bias

FORMS = ("naive", "xla", "cudnn", "splash")

# Large enough that exp(score - max) is exactly 0 in float32, small enough that no difference overflows.
MASKED = -1e30


def attention_scale(config: ModelConfig) -> float | jax.Array:
    """Factor on the scores: config.attention_scale, or 1 / sqrt(H) (Vaswani et al. 2017, equation 1)."""
    return head_size(config) ** -0.5 if config.attention_scale is None else config.attention_scale


def softcap(x: jax.Array, cap: float | None) -> jax.Array:
    """cap tanh(x / cap), or x where cap is None (Gemma 2, 2024, arXiv 2408.00118, section 2)."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def softmax_with_sink(scores_BNTS: jax.Array, sink_N: jax.Array) -> jax.Array:
    """exp(scores) / (exp(sink) + sum of exp(scores)) over S: each head has one more logit, which reads nothing.

    Attention sinks: Xiao et al. 2023, arXiv 2309.17453; a learned logit a head as in gpt-oss (2025), arXiv
    2508.10925; Miller 2023, "Attention is off by one", is the case sink = 0.
    """
    sink_NTS = sink_N.astype(jnp.float32)[:, None, None]
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(scores_BNTS, axis=-1, keepdims=True), sink_NTS))
    exponential = jnp.exp(scores_BNTS - top)
    return exponential / (jnp.sum(exponential, axis=-1, keepdims=True) + jnp.exp(sink_NTS - top))


def naive_attention(
    config: ModelConfig, query_BTNH: jax.Array, key_BKSH: jax.Array, value_BKSH: jax.Array,
    context: AttentionContext, sink_N: jax.Array | None, dropout_key: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """(y_BTNH, weights_BNTS) by the formula softmax(softcap(scale q k) + bias, masked) v, with every option.

    Scores and softmax are float32. Weights are those before dropout. Keys and values may be [B * K, S, H], as the cache
    has them.
    """
    B, T, N, H = query_BTNH.shape
    *leading, S, _ = key_BKSH.shape
    query_BNTH = jnp.swapaxes(query_BTNH * jnp.asarray(attention_scale(config), query_BTNH.dtype), 1, 2)
    # Query heads that share a key head are rows of one product (Q = N / K * T of them).
    scores_BKQS = jnp.einsum(
        "...QH,...SH->...QS", query_BNTH.reshape(*leading, -1, H), key_BKSH, preferred_element_type=jnp.float32)
    scores_BNTS = softcap(scores_BKQS.reshape(B, N, T, S), config.attention_softcap)
    if context.bias_BNTS is not None:
        scores_BNTS = scores_BNTS + context.bias_BNTS
    if context.mask_BTS is not None:
        scores_BNTS = jnp.where(context.mask_BTS[:, None], scores_BNTS, MASKED)
    weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1) if sink_N is None else softmax_with_sink(scores_BNTS, sink_N)
    dropped_BNTS = dropout(weights_BNTS, config.attention_dropout, dropout_key).astype(value_BKSH.dtype)
    y_BKQH = jnp.einsum("...QS,...SH->...QH", dropped_BNTS.reshape(*leading, -1, S), value_BKSH)
    return jnp.swapaxes(y_BKQH.reshape(B, N, T, H), 1, 2), weights_BNTS


def paged_attention(
    config: ModelConfig, query_BTNH: jax.Array, keys: Rows, values: Rows, access: PagedAccess, sink_N: jax.Array | None
) -> jax.Array:
    """y_BTNH over one layer's pages, some rows at a time, for as many steps as the longest of them needs.

    A step past a row's end changes none of its bits: it multiplies by exactly 1 and adds exactly 0.
    """

    def attend(part: tuple[jax.Array, PagedRows]) -> jax.Array:
        return _attend_to_pages(config, *part, keys, values, access, sink_N)

    whole = (query_BTNH, access.rows)
    if access.rows_together == query_BTNH.shape[0]:
        return attend(whole)
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, access.rows_together, *leaf.shape[1:]), whole)
    return jax.lax.map(attend, parts).reshape(query_BTNH.shape)


def _attend_to_pages(
    config: ModelConfig, query_BTNH: jax.Array, rows: PagedRows, keys: Rows, values: Rows, access: PagedAccess,
    sink_N: jax.Array | None,
) -> jax.Array:
    """paged_attention of some rows: a few pages at a time with a running maximum and sum (online softmax: Milakov &
    Gimelshein 2018, arXiv 1805.02867)."""
    B, T, N, H = query_BTNH.shape
    query_BNTH = jnp.swapaxes(query_BTNH * jnp.asarray(attention_scale(config), query_BTNH.dtype), 1, 2)
    num_kv_heads = jax.tree.leaves(keys)[0].shape[1]
    query_XQH = query_BNTH.reshape(B * num_kv_heads, -1, H)
    Q = query_XQH.shape[1]

    def step(number: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        top_XQ1, sum_XQ1, y_XQH = carry
        key_BKSH, value_BKSH, rows_BS = _pages_of_step(keys, values, rows, access, number, query_BTNH.dtype)
        S = rows_BS.shape[1]
        scores_XQS = jnp.einsum(
            "XQH,XSH->XQS", query_XQH, key_BKSH.reshape(-1, S, H), preferred_element_type=jnp.float32)
        scores_BNTS = softcap(scores_XQS.reshape(B, N, T, S), config.attention_softcap)
        bias_BNTS = _page_bias(config, rows.positions_BT, rows_BS, access.bias_ND)
        if bias_BNTS is not None:
            scores_BNTS = scores_BNTS + bias_BNTS
        mask_BTS = cached_mask(config, rows.query_rows_BT, rows_BS, rows.prefix_BT)
        scores_XQS = jnp.where(mask_BTS[:, None], scores_BNTS, MASKED).reshape(-1, Q, S)
        new_top_XQ1 = jnp.maximum(top_XQ1, jnp.max(scores_XQS, axis=-1, keepdims=True))
        weights_XQS = jnp.exp(scores_XQS - new_top_XQ1)
        kept_XQ1 = jnp.exp(top_XQ1 - new_top_XQ1)
        new_XQH = jnp.einsum("XQS,XSH->XQH", weights_XQS.astype(value_BKSH.dtype), value_BKSH.reshape(-1, S, H),
                             preferred_element_type=jnp.float32)
        sum_XQ1 = sum_XQ1 * kept_XQ1 + jnp.sum(weights_XQS, axis=-1, keepdims=True)
        return new_top_XQ1, sum_XQ1, y_XQH * kept_XQ1 + new_XQH

    column_XQ1 = jnp.zeros((*query_XQH.shape[:2], 1), jnp.float32)
    start = (column_XQ1 + MASKED, column_XQ1, jnp.zeros(query_XQH.shape, jnp.float32))
    steps = jnp.max((rows.last_B - rows.first_B) // access.pages_a_step) + 1
    top_XQ1, sum_XQ1, y_XQH = jax.lax.fori_loop(0, jnp.maximum(steps, 1), step, start)
    if sink_N is not None:
        sink_XQ1 = jnp.broadcast_to(sink_N.astype(jnp.float32)[:, None], (B, N, T)).reshape(top_XQ1.shape)
        # The sink is one more key, whose value is 0.
        all_XQ1 = jnp.maximum(top_XQ1, sink_XQ1)
        y_XQH = y_XQH * jnp.exp(top_XQ1 - all_XQ1)
        sum_XQ1 = sum_XQ1 * jnp.exp(top_XQ1 - all_XQ1) + jnp.exp(sink_XQ1 - all_XQ1)
    y_BNTH = (y_XQH / sum_XQ1).astype(query_BTNH.dtype).reshape(B, N, T, H)
    return jnp.swapaxes(y_BNTH, 1, 2)


def _pages_of_step(
    keys: Rows, values: Rows, rows: PagedRows, access: PagedAccess, number: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(key_BKSH, value_BKSH, their positions rows_BS) of one step's pages."""
    page_BX = rows.first_B[:, None] + number * access.pages_a_step + jnp.arange(access.pages_a_step)
    # Past a row's last page the scratch page stands in, which is in the processor's cache.
    numbers_BX = jnp.where(page_BX <= rows.last_B[:, None],
                           jnp.take_along_axis(rows.tables_BP, page_BX, axis=1, mode="clip"), 0)
    rows_BXP = page_BX[:, :, None] * access.page_size + jnp.arange(access.page_size)
    rows_BS = rows_BXP.reshape(page_BX.shape[0], -1)
    key_BKSH, value_BKSH = (read(gather_pages(pages, numbers_BX), dtype) for pages in (keys, values))
    # A weight of 0 does not hide a value that is not finite, which another row may have left there.
    written_BS = rows_BS < rows.ends_B[:, None]
    return key_BKSH, jnp.where(written_BS[:, None, :, None], value_BKSH, 0), rows_BS


def _page_bias(
    config: ModelConfig, positions_BT: jax.Array, rows_BS: jax.Array, bias_ND: jax.Array | None
) -> jax.Array | None:
    """bias_BNTS of keys at rows_BS."""
    if config.positions == "alibi":
        return alibi_bias(config.num_heads, positions_BT, rows_BS, both_ways=config.prefix_attention)
    if bias_ND is None:
        return None
    distance_BTS = positions_BT[:, :, None] - rows_BS[:, None, :]
    return jnp.moveaxis(jnp.take(bias_ND, distance_BTS, axis=1, mode="clip"), 0, 1)


def library_attention(
    config: ModelConfig, query_BTNH: jax.Array, key_BKSH: jax.Array, value_BKSH: jax.Array, context: AttentionContext
) -> jax.Array:
    """y_BTNH by jax.nn.dot_product_attention, as XLA operations or as cuDNN's flash kernel.

    FlashAttention: Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691. Keys and values may be [B * K, S, H].
    """
    B, _, _, H = query_BTNH.shape
    key_BKSH, value_BKSH = (x.reshape(B, -1, x.shape[-2], H) for x in (key_BKSH, value_BKSH))
    by_flag = context.causal and context.mask_BTS is None
    window = config.attention_window
    scale = attention_scale(config)
    if isinstance(scale, jax.Array):  # A traced one (training.lifted), which the library does not take.
        query_BTNH, scale = query_BTNH * scale.astype(query_BTNH.dtype), 1.0
    return jax.nn.dot_product_attention(
        query_BTNH, jnp.swapaxes(key_BKSH, 1, 2), jnp.swapaxes(value_BKSH, 1, 2),
        bias=None if context.bias_BNTS is None else context.bias_BNTS.astype(query_BTNH.dtype),
        mask=None if context.mask_BTS is None else context.mask_BTS[:, None],
        scale=scale,
        # With a mask too, cuDNN skips what lies above the diagonal.
        is_causal=by_flag or context.implementation == "cudnn",
        local_window_size=(window - 1, 0) if by_flag and window is not None else None,
        implementation=context.implementation,
    )


def splash_attention(
    config: ModelConfig, query_BTNH: jax.Array, key_BKSH: jax.Array, value_BKSH: jax.Array, context: AttentionContext,
    *, interpret: bool = False,
) -> jax.Array:
    """y_BTNH by JAX's block-sparse flash kernel for TPU (Pallas); `interpret` runs it anywhere, slowly, for tests."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    T, N = query_BTNH.shape[1:3]
    window = config.attention_window
    mask = splash.CausalMask((T, T)) if window is None else splash.LocalMask((T, T), (window - 1, 0), 0)
    block = next(size for size in (512, 256, 128) if T % size == 0)
    kernel = splash.make_splash_mha_single_device(
        mask=splash.MultiHeadMask([mask] * N),
        block_sizes=splash.BlockSizes(**dict.fromkeys(
            ("block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute",
             "block_q_dq", "block_kv_dq"), block)),
        attn_logits_soft_cap=config.attention_softcap,
        interpret=interpret,
    )
    query_BNTH = jnp.swapaxes(query_BTNH * jnp.asarray(attention_scale(config), query_BTNH.dtype), 1, 2)
    if context.segments_BT is None:
        y_BNTH = jax.vmap(kernel)(query_BNTH, key_BKSH, value_BKSH)
    else:
        segments = splash.SegmentIds(context.segments_BT, context.segments_BT)
        y_BNTH = jax.vmap(kernel)(query_BNTH, key_BKSH, value_BKSH, segments)
    return jnp.swapaxes(y_BNTH, 1, 2)
