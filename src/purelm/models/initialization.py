"""Initial values of matrices, by config.initialization."""

from __future__ import annotations

import math
from typing import Literal

import jax
from flax.linen import initializers

from purelm.config import ModelConfig

# hidden: any matrix inside a block; output: the last matrix of a sublayer; head: the untied output layer.
Role = Literal["hidden", "output", "head"]


def kernel_initializer(config: ModelConfig, role: Role) -> jax.nn.initializers.Initializer:
    """Initializer of a matrix [in, out].

    gpt2: normal(initialization_stddev), and the last matrix of each sublayer divided by sqrt(2 x layers), so that
    the sum of all sublayers' outputs keeps its variance (Radford et al. 2019, "Language Models are Unsupervised
    Multitask Learners", section 2.3). xavier: uniform with variance 2 / (in + out) (Glorot & Bengio 2010, AISTATS,
    equation 16). lecun: normal with variance 1 / in (LeCun et al. 1998, "Efficient BackProp", section 4.6).
    zero_outputs starts each sublayer as the identity (Zhang, Dauphin & Ma 2019, arXiv 1901.09321); zero_head gives
    uniform predictions at the start.
    """
    if (config.zero_outputs and role == "output") or (config.zero_head and role == "head"):
        return initializers.zeros
    if config.initialization == "xavier":
        return initializers.xavier_uniform()
    if config.initialization == "lecun":
        return initializers.variance_scaling(1.0, "fan_in", "normal")
    stddev = config.initialization_stddev
    return initializers.normal(stddev / math.sqrt(2 * config.num_layers) if role == "output" else stddev)


def embedding_initializer(config: ModelConfig) -> jax.nn.initializers.Initializer:
    """Initializer of token embeddings and position tables: normal(initialization_stddev)."""
    return initializers.normal(config.initialization_stddev)
