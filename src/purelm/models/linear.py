"""A matrix product with an optional bias."""

from __future__ import annotations

import flax.linen as nn
import jax

from purelm.config import ModelConfig
from purelm.models.dtypes import compute_dtype, param_dtype
from purelm.models.initialization import Role, kernel_initializer
from purelm.models.quantization import Quantized, parameter, product


class Linear(nn.Module):
    """x [..., in] -> [..., features], in the compute type, with or without a bias. The kernel may be quantized.

    The leading axes are merged for the product, since XLA's CPU backend transposes the operands of the weight's
    gradient when it contracts over two axes.
    """

    config: ModelConfig
    features: int
    role: Role
    bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        initializer = kernel_initializer(config, self.role)
        kernel = parameter(self, "kernel", initializer, (x.shape[-1], self.features), param_dtype(config))
        dtype = compute_dtype(config)
        y = x.astype(dtype).reshape(-1, x.shape[-1])
        y = product(y, kernel).astype(dtype) if isinstance(kernel, Quantized) else y @ kernel.astype(dtype)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype(config))
            y = y + bias.astype(dtype)
        return y.reshape(*x.shape[:-1], self.features)
