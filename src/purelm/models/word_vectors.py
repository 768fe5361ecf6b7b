"""Two tables of vectors, one for a word and one for it as a neighbor (Mikolov et al. 2013; Pennington et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import vocabulary_size
from purelm.models.dtypes import param_dtype


class _Table(nn.Module):
    """embedding [V, D], and with `bias` a number a word besides."""

    config: ModelConfig
    initializer: jax.nn.initializers.Initializer
    bias: bool

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        size, dtype = vocabulary_size(self.config), param_dtype(self.config)
        embedding_VD = self.param("embedding", self.initializer, (size, self.config.width), dtype)
        return embedding_VD, self.param("bias", nn.initializers.zeros, (size,), dtype) if self.bias else None


class WordVectors(nn.Module):
    """The tables `input` (words) and `output` (neighbors), each with a bias a word where `biases` (GloVe) is set.

    Initial values are those of the authors' programs: input uniform within 1/2D of zero; output zero in word2vec.c,
    and as the input in GloVe. Biases start at zero.
    """

    config: ModelConfig
    biases: bool = False

    def setup(self) -> None:
        uniform = _around_zero(0.5 / self.config.width)
        self.input = _Table(self.config, uniform, self.biases)
        self.output = _Table(self.config, uniform if self.biases else nn.initializers.zeros, self.biases)

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        """x_BTD: the words' vectors."""
        (input_VD, _), _ = self.input(), self.output()
        return jnp.take(input_VD, tokens_BT, axis=0, mode="clip")


def _around_zero(bound: float) -> jax.nn.initializers.Initializer:
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def word_vectors(params: Mapping[str, Any]) -> jax.Array:
    """[V, D]: the vectors that are used. The input table; of GloVe, which treats both alike, their sum (Pennington et
    al. 2014, section 4.2)."""
    table_VD = params["input"]["embedding"]
    return table_VD + params["output"]["embedding"] if "bias" in params["output"] else table_VD


def is_trained(params: Mapping[str, Any]) -> jax.Array:
    """bool [V]: whether training has ever moved the word: what starts at zero (GloVe: the output's bias; else the
    output's row) no longer is. It has not moved words left out for being rare, nor the unknown word."""
    output = params["output"]
    return output["bias"] != 0 if "bias" in output else jnp.any(output["embedding"] != 0, axis=-1)
