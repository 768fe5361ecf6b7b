"""From what the output layer reads to the statistics of its logits, whole or in chunks."""

from __future__ import annotations

from typing import Any

import jax

from purelm.config import Config
from purelm.models import make_model
from purelm.models.attention_forms import softcap
from purelm.models.head import head_logits
from purelm.tasks import losses


def head_statistics(config: Config, params: Any, x_BTD: jax.Array, targets_BT: jax.Array) -> losses.Statistics:
    """The statistics of softcap(x_BTD @ head_kernel + head_bias).

    Args:
      config: a finalized config; `training.loss_chunk` set takes the vocabulary in chunks.
      params: of the model.
      x_BTD: rows of the model's "hidden", any of them in any order.
      targets_BT: the right tokens.
    """
    model, variables = make_model(config.model), {"params": params}
    kernel_DV = model.apply(variables, method="head_kernel").astype(x_BTD.dtype)
    bias_V = model.apply(variables, method="head_bias")
    if config.training.loss_chunk is not None:
        return losses.chunked_statistics(x_BTD, kernel_DV, bias_V, targets_BT, config.training.loss_chunk,
                                         config.model.logits_softcap)
    return losses.statistics(_logits(config, x_BTD, kernel_DV, bias_V), targets_BT)


def head_logits_of(config: Config, params: Any, x_BTD: jax.Array) -> jax.Array:
    """float32 logits_BTV of rows of the model's "hidden"."""
    model, variables = make_model(config.model), {"params": params}
    kernel_DV = model.apply(variables, method="head_kernel").astype(x_BTD.dtype)
    return _logits(config, x_BTD, kernel_DV, model.apply(variables, method="head_bias"))


def _logits(config: Config, x_BTD: jax.Array, kernel_DV: jax.Array, bias_V: jax.Array | None) -> jax.Array:
    logits_XV = head_logits(x_BTD.reshape(-1, x_BTD.shape[-1]), kernel_DV, 0)
    if bias_V is not None:
        logits_XV = logits_XV + bias_V.astype(logits_XV.dtype)
    return softcap(logits_XV, config.model.logits_softcap).reshape(*x_BTD.shape[:-1], -1)
