"""Heads of classes: how the features of tokens become one vector, and the layer of logits on it or on each token."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.errors import UserError
from purelm.models.attention_forms import MASKED
from purelm.models.dropout import dropout
from purelm.models.dtypes import compute_dtype, param_dtype
from purelm.models.initialization import kernel_initializer


class _Layer(nn.Module):
    """x [..., in] -> [..., features] in the compute type, with a bias whatever config.bias is (classes have priors)."""

    config: ModelConfig
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config, dtype = self.config, compute_dtype(self.config)
        initializer = kernel_initializer(config, "hidden")
        kernel = self.param("kernel", initializer, (x.shape[-1], self.features), param_dtype(config))
        bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype(config))
        y = x.astype(dtype).reshape(-1, x.shape[-1]) @ kernel.astype(dtype) + bias.astype(dtype)
        return y.reshape(*x.shape[:-1], self.features)


class Pooling(nn.Module):
    """(x_BTD, segments_BT) -> (one vector a row, weights_BT or None), by config.pooling; segment 0 is not read.

    first, last: the features of that real token (last of a bidirectional recurrent network: the forward half at the
    last token and the backward half at the first, each having read the whole text). mean, max: over real tokens, max
    for each feature (Collobert et al. 2011, JMLR 12, section 3.2.2). attention: sum of a_t x_t, a = softmax of
    v . tanh(W x_t + b), in float32 (Zhou et al. 2016, ACL P16-2034, section 3.3; with W and b as Yang et al. 2016,
    NAACL N16-1174, equations 5 to 7); weights_BT is a. A row of padding alone gives finite numbers of no meaning.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array, segments_BT: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        real_BT = jnp.ones(x_BTD.shape[:2], bool) if segments_BT is None else segments_BT > 0
        kind = self.config.pooling
        if kind == "first":
            return _token(x_BTD, _first(real_BT)), None
        if kind == "last":
            return self._last(x_BTD, real_BT), None
        if kind == "mean":
            return _mean(x_BTD, real_BT), None
        if kind == "max":
            return _maximum(x_BTD, real_BT), None
        return self._attention(x_BTD, real_BT)

    def _last(self, x_BTD: jax.Array, real_BT: jax.Array) -> jax.Array:
        last_BD = _token(x_BTD, _last(real_BT))
        if not (self.config.architecture == "recurrent" and self.config.bidirectional):
            return last_BD
        half = x_BTD.shape[-1] // 2
        return jnp.concatenate([last_BD[:, :half], _token(x_BTD, _first(real_BT))[:, half:]], axis=-1)

    def _attention(self, x_BTD: jax.Array, real_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        config = self.config
        hidden_BTD = jnp.tanh(_Layer(config, x_BTD.shape[-1], name="hidden")(x_BTD))
        vector_D = self.param("vector", _vector_initializer(config), (x_BTD.shape[-1],), param_dtype(config))
        scores_BT = jnp.einsum("BTD,D->BT", hidden_BTD, vector_D.astype(hidden_BTD.dtype),
                               preferred_element_type=jnp.float32)
        weights_BT = jax.nn.softmax(jnp.where(real_BT, scores_BT, MASKED), axis=-1)
        return jnp.einsum("BT,BTD->BD", weights_BT.astype(x_BTD.dtype), x_BTD), weights_BT


def _vector_initializer(config: ModelConfig) -> jax.nn.initializers.Initializer:
    """The kernel's initializer for one column of it."""
    column = kernel_initializer(config, "hidden")
    return lambda key, shape, dtype: column(key, (*shape, 1), dtype)[:, 0]


def _first(real_BT: jax.Array) -> jax.Array:
    return jnp.argmax(real_BT, axis=1)


def _last(real_BT: jax.Array) -> jax.Array:
    return real_BT.shape[1] - 1 - jnp.argmax(real_BT[:, ::-1], axis=1)


def _token(x_BTD: jax.Array, index_B: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BTD, index_B[:, None, None], axis=1)[:, 0]


def _mean(x_BTD: jax.Array, real_BT: jax.Array) -> jax.Array:
    """In float32, as sums of many bfloat16 lose digits."""
    total_BD = jnp.sum(x_BTD * real_BT[..., None], axis=1, dtype=jnp.float32)
    count_B1 = jnp.maximum(jnp.sum(real_BT, axis=1, keepdims=True), 1)
    return (total_BD / count_B1).astype(x_BTD.dtype)


def _maximum(x_BTD: jax.Array, real_BT: jax.Array) -> jax.Array:
    largest_BD = jnp.max(jnp.where(real_BT[..., None], x_BTD, MASKED), axis=1)
    return jnp.where(jnp.any(real_BT, axis=1, keepdims=True), largest_BD, 0)


_TRANSFORMS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def _num_classes(config: ModelConfig) -> int:
    if config.num_classes is None:
        raise UserError("config.model.num_classes is none: give a number, or finalize with the data's labels")
    return config.num_classes


class Classifier(nn.Module):
    """(features_BTD, segments_BT) -> (float32 logits_BC, pooling_weights_BT or None): one answer a row.

    params {"pooling": ... (of attention alone), "transform": {"kernel" [D, D], "bias" [D]} (of pooling_transform),
    "output": {"kernel" [D, C], "bias" [C]}}. pooling_transform: a layer and its activation on the pooled vector (BERT's
    pooler: Devlin et al. 2019, arXiv 1810.04805). classifier_dropout falls on what the last layer reads, with
    deterministic=False and rngs={"dropout": key}. Raises UserError without num_classes.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, features_BTD: jax.Array, segments_BT: jax.Array | None = None, *, deterministic: bool = True,
    ) -> tuple[jax.Array, jax.Array | None]:
        config = self.config
        pooled_BD, weights_BT = Pooling(config, name="pooling")(features_BTD, segments_BT)
        if config.pooling_transform != "none":
            activation = _TRANSFORMS[config.pooling_transform]
            pooled_BD = activation(_Layer(config, pooled_BD.shape[-1], name="transform")(pooled_BD))
        if not (deterministic or is_zero(config.classifier_dropout)):
            pooled_BD = dropout(pooled_BD, config.classifier_dropout, self.make_rng("dropout"))
        logits_BC = _Layer(config, _num_classes(config), name="output")(pooled_BD)
        return logits_BC.astype(jnp.float32), weights_BT


class TokenClassifier(nn.Module):
    """features_BTD -> float32 logits_BTC: one answer a token.

    params {"output": {"kernel" [D, C], "bias" [C]}}. Dropout and UserError as Classifier's.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, features_BTD: jax.Array, *, deterministic: bool = True) -> jax.Array:
        config = self.config
        if not (deterministic or is_zero(config.classifier_dropout)):
            features_BTD = dropout(features_BTD, config.classifier_dropout, self.make_rng("dropout"))
        return _Layer(config, _num_classes(config), name="output")(features_BTD).astype(jnp.float32)
