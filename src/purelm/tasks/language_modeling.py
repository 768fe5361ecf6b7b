"""Language modeling: predict each next token. Sums only; whoever reduces them divides, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from purelm import data
from purelm.config import Config
from purelm.data import PreparedData, Tokenizer
from purelm.data.preparation import Progress
from purelm.models import make_model
from purelm.tasks import losses
from purelm.tasks.noised_windows import NoisedWindows
from purelm.tasks.prefix_windows import with_prefixes

BATCH_TYPES = {"tokens": jnp.int32, "targets": jnp.int32, "weights": jnp.float32, "segments": jnp.int32,
               "positions": jnp.int32}
SUMS = ("loss", "cross_entropy", "weight", "correct")
UNIT = "tokens"


def prepare(config: Config, *, tokenizer: Tokenizer | None = None, labels: None = None,
            progress: Progress | None = None) -> PreparedData | NoisedWindows:
    """Windows of tokens (see data.prepare), with model.prefix_attention each with a prefix; `labels` are for other
    tasks."""
    prepared = data.prepare(config, tokenizer=tokenizer, progress=progress)
    return with_prefixes(prepared) if config.model.prefix_attention else prepared


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` windows."""
    shape = (rows, config.model.context_length)
    kinds = BATCH_TYPES | ({"prefix": jnp.int32} if config.model.prefix_attention else {})
    return {name: jax.ShapeDtypeStruct(shape, kind) for name, kind in kinds.items()}


def initialize(config: Config, key: jax.Array) -> Any:
    """The initial parameters."""
    return make_model(config.model).init(key, jnp.zeros((1, config.model.context_length), jnp.int32))["params"]


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the batch's targets, float32 scalars.

    Args:
      config: a finalized config; `training.loss_chunk` set takes the vocabulary in chunks.
      params: of `Transformer(config.model)`.
      batch: tokens, targets, weights, segments, positions, and with model.prefix_attention prefix, each [B, T].
      key: of dropout; None is deterministic.

    Returns:
      `loss` (what is minimized), `cross_entropy` (nats), `weight` and `correct` (see `losses.loss_sums`).
    """
    model, training = make_model(config.model), config.training
    # Windows of a stream are one segment each, in order: without arrays the model can use its plain causal mask.
    packed = config.data.packing == "documents"
    arguments = {"positions_BT": batch["positions"] if packed else None,
                 "segments_BT": batch["segments"] if packed else None,
                 "deterministic": key is None, "rngs": {} if key is None else {"dropout": key}}
    if config.model.prefix_attention:
        arguments["prefix_BT"] = batch["prefix"]
    variables = {"params": params}
    if training.loss_chunk is None:
        output = model.apply(variables, batch["tokens"], **arguments)
        statistics = losses.statistics(output.logits_BTV, batch["targets"])
    else:
        x_BTD = model.apply(variables, batch["tokens"], method="hidden", **arguments).logits_BTV
        kernel_DV = model.apply(variables, method="head_kernel").astype(x_BTD.dtype)
        bias_V = model.apply(variables, method="head_bias") if config.model.head_bias else None
        statistics = losses.chunked_statistics(x_BTD, kernel_DV, bias_V, batch["targets"], training.loss_chunk,
                                               config.model.logits_softcap)
    return losses.loss_sums(statistics, batch["weights"], label_smoothing=training.label_smoothing,
                            z_loss=training.z_loss)
