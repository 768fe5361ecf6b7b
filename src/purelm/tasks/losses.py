"""Cross-entropy as sums, whole or in chunks of the vocabulary.

Both forms reduce each token's logits to the same four numbers (`Statistics`), whose derivatives are written by hand:
with p = softmax(logits), d logsumexp = p, d target = one-hot, d mean = 1/V. All else follows by autodiff on [B, T].
The chunked form keeps a running logsumexp over chunks of the vocabulary (Milakov and Gimelshein 2018, "Online
normalizer calculation for softmax") and computes each chunk's logits again in the backward pass, so that
[B, T, V] never exists.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purelm.config.numbers import is_zero


class Statistics(NamedTuple):
    """What a loss needs of each token's logits, float32 [B, T]: nats, except `hit`, 1 where the argmax is right."""

    logsumexp: jax.Array
    target: jax.Array
    mean: jax.Array
    hit: jax.Array


def loss_sums(statistics: Statistics, weights_BT: jax.Array, *, label_smoothing: float | jax.Array,
              z_loss: float | jax.Array) -> dict[str, jax.Array]:
    """Sums over targets, each float32 scalar; the caller divides by `weight`, once, after all reductions.

    `loss` is what is minimized: cross-entropy against (1 - label_smoothing) one-hot + label_smoothing / V (Szegedy et
    al. 2016, section 7) plus z_loss * logsumexp^2 (PaLM, Chowdhery et al. 2022, section 5). `cross_entropy` has
    neither, in nats. `weight` sums the weights, `correct` the weights of the targets that are the argmax.
    """
    cross_entropy_BT = statistics.logsumexp - statistics.target
    loss_BT = cross_entropy_BT
    if not is_zero(label_smoothing):
        loss_BT = loss_BT + label_smoothing * (statistics.target - statistics.mean)
    if not is_zero(z_loss):
        loss_BT = loss_BT + z_loss * jnp.square(statistics.logsumexp)
    weights_BT = weights_BT.astype(jnp.float32)
    return {"loss": jnp.sum(loss_BT * weights_BT), "cross_entropy": jnp.sum(cross_entropy_BT * weights_BT),
            "weight": jnp.sum(weights_BT), "correct": jnp.sum(statistics.hit * weights_BT)}


@jax.custom_vjp
def statistics(logits_BTV: jax.Array, targets_BT: jax.Array) -> Statistics:
    """The statistics of whole logits, computed in float32."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    vocabulary_size = logits_BTV.shape[-1]
    index_V = jnp.arange(vocabulary_size, dtype=jnp.int32)
    largest_BT = jnp.max(logits_BTV, axis=-1)
    logsumexp_BT = jnp.log(jnp.sum(jnp.exp(logits_BTV - largest_BT[..., None]), axis=-1)) + largest_BT
    # A masked sum in place of a gather, and the first index of the maximum in place of argmax: both vectorize on CPU.
    target_BT = jnp.sum(jnp.where(index_V == targets_BT[..., None], logits_BTV, 0), axis=-1)
    argmax_BT = jnp.min(jnp.where(logits_BTV == largest_BT[..., None], index_V, vocabulary_size), axis=-1)
    hit_BT = (argmax_BT == targets_BT).astype(jnp.float32)
    return Statistics(logsumexp_BT, target_BT, jnp.mean(logits_BTV, axis=-1), hit_BT)


def _statistics_forward(logits_BTV, targets_BT):
    result = statistics(logits_BTV, targets_BT)
    return result, (logits_BTV, targets_BT, result.logsumexp)


def _statistics_backward(residuals, cotangent):
    logits_BTV, targets_BT, logsumexp_BT = residuals
    vocabulary_size = logits_BTV.shape[-1]
    gradient_BTV = _logits_gradient(logits_BTV.astype(jnp.float32), logsumexp_BT, targets_BT,
                                    jnp.arange(vocabulary_size, dtype=jnp.int32), vocabulary_size, cotangent)
    return gradient_BTV.astype(logits_BTV.dtype), None


statistics.defvjp(_statistics_forward, _statistics_backward)


def _logits_gradient(logits_BTV, logsumexp_BT, targets_BT, index_V, vocabulary_size, cotangent):
    """p dlogsumexp + onehot dtarget + dmean / V, for the vocabulary entries `index_V`."""
    probability_BTV = jnp.exp(logits_BTV - logsumexp_BT[..., None])
    one_hot_BTV = index_V == targets_BT[..., None]
    return (probability_BTV * cotangent.logsumexp[..., None]
            + jnp.where(one_hot_BTV, cotangent.target[..., None], 0) + cotangent.mean[..., None] / vocabulary_size)


def chunked_statistics(x_BTD: jax.Array, kernel_DV: jax.Array, bias_V: jax.Array | None, targets_BT: jax.Array,
                       chunk: int, softcap: float | jax.Array | None) -> Statistics:
    """The statistics of softcap(x_BTD @ kernel_DV + bias_V), `chunk` vocabulary entries at a time.

    Args:
      x_BTD: what the output layer reads; the products are summed in float32.
      kernel_DV: the output matrix.
      bias_V: the output bias, or None.
      targets_BT: the right entries.
      chunk: vocabulary entries whose logits are held at once; it need not divide V.
      softcap: c in c tanh(logits / c), or None.
    """
    # Plain matrix products: over two leading axes, XLA's CPU backend transposes the operands of the gradient.
    x_TD, targets_T = x_BTD.reshape(-1, x_BTD.shape[-1]), targets_BT.reshape(-1)
    found = _chunked_statistics(x_TD, kernel_DV, bias_V, targets_T, chunk, softcap)
    return Statistics(*(leaf.reshape(targets_BT.shape) for leaf in found))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked_statistics(x_TD, kernel_DV, bias_V, targets_T, chunk, softcap):
    """As `chunked_statistics`, for T tokens of any windows."""
    vocabulary_size = kernel_DV.shape[1]

    def add_chunk(carry, number):
        largest_T, total_T, target_T, sum_T, argmax_T = carry
        logits_TV, index_V, new_V, _ = _chunk(x_TD, kernel_DV, bias_V, number, chunk, softcap)
        masked_TV = jnp.where(new_V, logits_TV, -jnp.inf)
        chunk_largest_T = jnp.max(masked_TV, axis=-1)
        first_T = jnp.min(jnp.where(masked_TV == chunk_largest_T[..., None], index_V, vocabulary_size), axis=-1)
        argmax_T = jnp.where(chunk_largest_T > largest_T, first_T, argmax_T)
        new_largest_T = jnp.maximum(largest_T, chunk_largest_T)
        total_T = (total_T * jnp.exp(largest_T - new_largest_T)
                   + jnp.sum(jnp.exp(masked_TV - new_largest_T[..., None]), axis=-1))
        here_TV = new_V & (index_V == targets_T[..., None])
        target_T = target_T + jnp.sum(jnp.where(here_TV, logits_TV, 0), axis=-1)
        sum_T = sum_T + jnp.sum(jnp.where(new_V, logits_TV, 0), axis=-1)
        return (new_largest_T, total_T, target_T, sum_T, argmax_T), None

    zeros_T = jnp.zeros(targets_T.shape, jnp.float32)
    start = (zeros_T - jnp.inf, zeros_T, zeros_T, zeros_T, jnp.zeros(targets_T.shape, jnp.int32))
    numbers = jnp.arange(-(-vocabulary_size // chunk))
    (largest_T, total_T, target_T, sum_T, argmax_T), _ = jax.lax.scan(add_chunk, start, numbers)
    return Statistics(jnp.log(total_T) + largest_T, target_T, sum_T / vocabulary_size,
                      (argmax_T == targets_T).astype(jnp.float32))


def _chunk(x_TD, kernel_DV, bias_V, number, chunk, softcap):
    """(logits, their vocabulary indices, which of them no earlier chunk had, the chunk of the kernel).

    The last chunk starts early enough to fit, so that neither the kernel nor the gradient is padded: its first
    entries were in the chunk before.
    """
    vocabulary_size = kernel_DV.shape[1]
    width = min(chunk, vocabulary_size)
    start = jnp.minimum(number * width, vocabulary_size - width)
    index_V = start + jnp.arange(width, dtype=jnp.int32)
    chunk_DV = jax.lax.dynamic_slice_in_dim(kernel_DV, start, width, axis=1)
    logits_TV = jnp.matmul(x_TD, chunk_DV, preferred_element_type=jnp.float32)
    if bias_V is not None:
        logits_TV = logits_TV + jax.lax.dynamic_slice_in_dim(bias_V, start, width).astype(jnp.float32)
    if softcap is not None:
        logits_TV = softcap * jnp.tanh(logits_TV / softcap)
    return logits_TV, index_V, index_V >= number * width, chunk_DV


def _chunked_forward(x_TD, kernel_DV, bias_V, targets_T, chunk, softcap):
    result = _chunked_statistics(x_TD, kernel_DV, bias_V, targets_T, chunk, softcap)
    return result, (x_TD, kernel_DV, bias_V, targets_T, softcap, result.logsumexp)


def _chunked_backward(chunk, residuals, cotangent):
    x_TD, kernel_DV, bias_V, targets_T, softcap, logsumexp_T = residuals
    vocabulary_size = kernel_DV.shape[1]

    def add_chunk(carry, number):
        dx_TD, dkernel_DV, dbias_V = carry
        logits_TV, index_V, new_V, chunk_DV = _chunk(x_TD, kernel_DV, bias_V, number, chunk, softcap)
        gradient_TV = _logits_gradient(logits_TV, logsumexp_T, targets_T, index_V, vocabulary_size, cotangent)
        if softcap is not None:
            gradient_TV = gradient_TV * (1 - jnp.square(logits_TV / softcap))
        gradient_TV = jnp.where(new_V, gradient_TV, 0)
        dbias_V = _add_at(dbias_V, jnp.sum(gradient_TV, axis=0), index_V[0])
        gradient_TV = gradient_TV.astype(x_TD.dtype)
        dx_TD = dx_TD + jnp.matmul(gradient_TV, chunk_DV.T, preferred_element_type=jnp.float32)
        dchunk_DV = jnp.matmul(x_TD.T, gradient_TV, preferred_element_type=jnp.float32)
        return (dx_TD, _add_at(dkernel_DV, dchunk_DV, index_V[0]), dbias_V), None

    start = (jnp.zeros(x_TD.shape, jnp.float32), jnp.zeros(kernel_DV.shape, jnp.float32),
             jnp.zeros(vocabulary_size, jnp.float32))
    numbers = jnp.arange(-(-vocabulary_size // chunk))
    (dx_TD, dkernel_DV, dbias_V), _ = jax.lax.scan(add_chunk, start, numbers)
    dbias = None if bias_V is None else dbias_V.astype(bias_V.dtype)
    return dx_TD.astype(x_TD.dtype), dkernel_DV.astype(kernel_DV.dtype), dbias, None, None


def _add_at(whole, part, start):
    """`whole` with `part` added to its last axis from `start`."""
    axis, width = whole.ndim - 1, part.shape[-1]
    old = jax.lax.dynamic_slice_in_dim(whole, start, width, axis)
    return jax.lax.dynamic_update_slice_in_dim(whole, old + part, start, axis)


_chunked_statistics.defvjp(_chunked_forward, _chunked_backward)
