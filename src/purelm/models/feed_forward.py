"""The position-wise feed-forward sublayer and its activations."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.config.shapes import feed_forward_width, has_bias, is_gated
from purelm.models.dropout import dropout
from purelm.models.linear import Linear


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, exactly, by erf (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    cdf = _normal_cdf(x)
    density = jnp.exp(-0.5 * jnp.square(x)) * (2 * math.pi) ** -0.5
    return x * cdf, t * (cdf + x * density)


def _normal_cdf(x: jax.Array) -> jax.Array:
    # erf, not the erfc of jax.nn.gelu, which costs XLA's CPU backend two more passes over x.
    return 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU's tanh approximation, 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as in GPT-2 (arXiv 1606.08415)."""
    return jax.nn.gelu(x, approximate=True)


def squared_relu(x: jax.Array) -> jax.Array:
    """max(x, 0)^2 (So et al. 2021, Primer, arXiv 2109.08668)."""
    return jnp.square(jax.nn.relu(x))


# ReLU: Vaswani et al. 2017, arXiv 1706.03762, equation 2. SiLU: Ramachandran, Zoph & Le 2017, arXiv 1710.05941.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": jax.nn.silu,
    "squared_relu": squared_relu,
}

# Gated linear units: Dauphin et al. 2017, arXiv 1612.08083; the variants: Shazeer 2020, arXiv 2002.05202, equation 5.
GATES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "glu": jax.nn.sigmoid,
    "geglu": gelu,
    "geglu_tanh": gelu_tanh,
    "swiglu": jax.nn.silu,
    "reglu": jax.nn.relu,
    "bilinear": lambda x: x,
}


class FeedForward(nn.Module):
    """x_BTD -> x_BTD: down(activation(up(x))), or down(gate_function(gate(x)) * up(x)) where gated (Shazeer 2020).

    Position-wise network of Vaswani et al. 2017 (arXiv 1706.03762, section 3.3). Dropout falls on the hidden units.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, *, deterministic: bool) -> jax.Array:
        config = self.config
        width = feed_forward_width(config)
        bias = has_bias(config, config.feed_forward_bias)
        hidden_BTF = Linear(config, width, "hidden", bias, name="up")(x_BTD)
        if is_gated(config):
            gate_BTF = Linear(config, width, "hidden", bias, name="gate")(x_BTD)
            hidden_BTF = GATES[config.feed_forward](gate_BTF) * hidden_BTF
        else:
            hidden_BTF = ACTIVATIONS[config.feed_forward](hidden_BTF)
        if not (deterministic or is_zero(config.feed_forward_dropout)):
            hidden_BTF = dropout(hidden_BTF, config.feed_forward_dropout, self.make_rng("dropout"))
        return Linear(config, config.width, "output", bias, name="down")(hidden_BTF)
