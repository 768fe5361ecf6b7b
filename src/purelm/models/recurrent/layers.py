"""A recurrent layer in one direction or both, and the pieces that its networks share."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero, single
from purelm.models.dtypes import compute_dtype, param_dtype
from purelm.models.recurrent.cells import (
    NUM_GATES,
    CellParameters,
    CellState,
    bias_initializer,
    hidden_initializer,
    input_initializer,
    zero_state,
)
from purelm.models.recurrent.recurrence import Masks, run_cell


def hidden_size(config: ModelConfig) -> int:
    """H: config.hidden_size, or width."""
    return config.width if config.hidden_size is None else config.hidden_size


def feature_size(config: ModelConfig) -> int:
    """Size of a layer's output: H, or 2 H where it reads both ways."""
    return hidden_size(config) * (2 if config.bidirectional else 1)


def dropout_mask(shape: tuple[int, ...], rate: float | jax.Array, key: jax.Array) -> jax.Array:
    """float32, 0 with probability `rate` and else 1 / (1 - rate)."""
    kept = 1 - single(rate)
    return jax.random.bernoulli(key, kept, shape) / kept


def drop_steps(config: ModelConfig, x_TBD: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Dropout between layers, one mask a step, or with variational_dropout one for all steps of a sequence
    (Gal & Ghahramani 2016, arXiv 1512.05287)."""
    shape = (1, *x_TBD.shape[1:]) if config.variational_dropout else x_TBD.shape
    return x_TBD * dropout_mask(shape, rate, key).astype(x_TBD.dtype)


class Dense(nn.Module):
    """x [..., in] -> [..., features] in the compute type; Xavier uniform (Glorot & Bengio 2010), zero bias."""

    config: ModelConfig
    features: int
    bias: bool = True

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.matrix(x.shape[-1])
        y = x.astype(kernel.dtype).reshape(-1, x.shape[-1]) @ kernel
        return (y if bias is None else y + bias).reshape(*x.shape[:-1], self.features)

    @nn.compact
    def matrix(self, size: int) -> tuple[jax.Array, jax.Array | None]:
        """(the kernel [size, features], the bias [features] or None) in the compute type."""
        config, dtype = self.config, compute_dtype(self.config)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (size, self.features), param_dtype(config))
        if not self.bias:
            return kernel.astype(dtype), None
        bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype(config))
        return kernel.astype(dtype), bias.astype(dtype)


class _Kernel(nn.Module):
    """A matrix, and a bias where a size of one is given."""

    config: ModelConfig
    initializer: nn.initializers.Initializer
    shape: tuple[int, int]
    bias_size: int = 0

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        config = self.config
        kernel = self.param("kernel", self.initializer, self.shape, param_dtype(config)).astype(compute_dtype(config))
        if not self.bias_size:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.bias_size,), param_dtype(config))


class Cell(nn.Module):
    """The parameters of a cell that reads vectors of `input_size`."""

    config: ModelConfig
    input_size: int

    @nn.compact
    def __call__(self) -> CellParameters:
        config, cell, size = self.config, self.config.cell, hidden_size(self.config)
        gates = NUM_GATES[cell] * size
        input_DG, _ = _Kernel(config, input_initializer(cell), (self.input_size, gates), name="input")()
        hidden_HG, hidden_bias_H = _Kernel(
            config, hidden_initializer(cell), (size, gates), size if cell == "gru" else 0, name="hidden")()
        bias_G = self.param("bias", bias_initializer(cell), (gates,), param_dtype(config))
        hidden_bias_H = None if hidden_bias_H is None else hidden_bias_H.astype(jnp.float32)
        return CellParameters(input_DG, hidden_HG, bias_G.astype(jnp.float32), hidden_bias_H)


class Layer(nn.Module):
    """x_TBD -> h_TBF: an LSTM or GRU, and with config.bidirectional a second one that reads from the end
    (Schuster & Paliwal 1997), beside it. params {"forward": ..., "backward": ...}."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_TBD: jax.Array, states: tuple[CellState, ...] | None, masks: tuple[Masks, ...], *, deterministic: bool,
    ) -> tuple[jax.Array, tuple[CellState, ...]]:
        """(h_TBF, the state of each direction after its last token); states None are zero."""
        config = self.config
        _, B, D = x_TBD.shape
        outputs, last = [], []
        for number, name in enumerate(directions(config)):
            parameters = Cell(config, D, name=name)()
            state = zero_state(config.cell, B, hidden_size(config)) if states is None else states[number]
            mask = masks[number]
            if not (deterministic or is_zero(config.recurrent_dropout)):
                dropped_BH = dropout_mask(state.h_BH.shape, config.recurrent_dropout, self.make_rng("dropout"))
                mask = mask._replace(dropout_BH=dropped_BH)
            h_TBH, state = run_cell(config.cell, parameters, x_TBD, state, mask, reverse=name == "backward")
            outputs.append(h_TBH)
            last.append(state)
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1), tuple(last)


def directions(config: ModelConfig) -> tuple[str, ...]:
    """The names of a layer's cells."""
    return ("forward", "backward") if config.bidirectional else ("forward",)
