"""The output layer's product, and its gradient in the type of the activations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from purelm.models import quantization
from purelm.models.quantization import Quantized

_FEW_ROWS = range(2, 33)  # What decoding has.


def head_logits(x_XD: jax.Array, matrix: jax.Array | Quantized, axis: int) -> jax.Array:
    """float32 logits_XV of x_XD and a matrix whose `axis` is D ([V, D] for axis 1, [D, V] for axis 0).

    In bfloat16 the derivative by itself would multiply float32 gradients with bfloat16 operands, which accelerators do
    at half of bfloat16's rate or less, on an array twice as large; so there the gradient is rounded first, as it is
    before every other layer's products.
    """
    if isinstance(matrix, Quantized):
        return quantization.product(x_XD, matrix)
    product = _product if x_XD.dtype == jnp.float32 else _rounded_product
    return product(x_XD, matrix.astype(x_XD.dtype), axis)


def _product(x_XD: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    if axis == 1 and x_XD.shape[0] in _FEW_ROWS and jax.default_backend() == "cpu":
        # XLA's CPU backend multiplies the table from the left in 0.7 to 0.9 of the time that it takes from the right;
        # without a barrier it would turn the product around again.
        return jax.lax.optimization_barrier(_dot(matrix, x_XD, 1, 1)).T
    return _dot(x_XD, matrix, 1, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_product(x_XD: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    return _dot(x_XD, matrix, 1, axis)


def _forward(x_XD: jax.Array, matrix: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _dot(x_XD, matrix, 1, axis), (x_XD, matrix)


def _backward(axis: int, residuals: tuple[jax.Array, jax.Array], gradient_XV: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
    x_XD, matrix = residuals
    gradient_XV = gradient_XV.astype(x_XD.dtype)
    by_x = _dot(gradient_XV, matrix, 1, 1 - axis)
    by_matrix = _dot(gradient_XV, x_XD, 0, 0) if axis == 1 else _dot(x_XD, gradient_XV, 0, 0)
    return by_x.astype(x_XD.dtype), by_matrix.astype(matrix.dtype)


_rounded_product.defvjp(_forward, _backward)


def _dot(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    return jax.lax.dot_general(left, right, (((left_axis,), (right_axis,)), ((), ())),
                               preferred_element_type=jnp.float32)
