"""Masked language modeling: find the tokens that were hidden (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purelm import data
from purelm.config import Config
from purelm.data import Batch, Tokenizer
from purelm.data.preparation import Progress
from purelm.data.tokenizers.words import UNKNOWN_ID
from purelm.models import make_model
from purelm.tasks import losses
from purelm.tasks.head_statistics import head_statistics
from purelm.tasks.noised_windows import Draw, NoisedWindows

UNIT = "tokens"
# Of the tokens chosen, this part becomes the mask, and the part up to the second is drawn at random; the rest stays.
MASKED, MASKED_OR_RANDOM = 0.8, 0.9
_PURPOSE = 11


def prepare(config: Config, *, tokenizer: Tokenizer | None = None, labels: None = None,
            progress: Progress | None = None) -> NoisedWindows:
    """Windows of the token stream with tokens hidden; `labels` are for other tasks."""
    inner = data.prepare(config, tokenizer=tokenizer, progress=progress)
    return NoisedWindows(inner, masked, num_specials=int(inner.tokenizer.special.mask is None),
                         window_length=lambda config: config.model.context_length, purpose=_PURPOSE)


def mask_id(tokenizer: Tokenizer) -> int:
    """The mask's id: the tokenizer's, or the first after all of its own."""
    return tokenizer.vocabulary_size if tokenizer.special.mask is None else tokenizer.special.mask


def num_masked(config: Config) -> int:
    """K: the tokens chosen in a window that is text to its end."""
    return max(1, round(config.task.mask_fraction * config.model.context_length))


def masked(config: Config, tokenizer: Tokenizer, batch: Batch, draw: Draw) -> Batch:
    """Plain windows with tokens hidden.

    Args:
      batch: tokens, segments, positions [B, T] of plain windows; segment 0 is padding.
      draw: see `noised_windows`.

    Returns:
      tokens, segments, positions [B, T]; masked_positions, targets, weights [B, K]. Of a row's C tokens of text (a
      special token is none, nor is an unknown word), round(mask_fraction C) are chosen, at most K and at least 1 where
      there is any: of these 80 % become the mask, 10 % a token drawn at random, 10 % stay. Places that are left over
      have weight and position 0.
    """
    tokens_BT = batch["tokens"]
    num_rows, length = tokens_BT.shape
    size = num_masked(config)
    candidate_BT = batch["segments"] != 0
    if tokenizer.kind == "words":
        candidate_BT = candidate_BT & (tokens_BT != UNKNOWN_ID)
    candidate_BT = candidate_BT & ~np.isin(tokens_BT, list(tokenizer.special_ids))
    counts_B = candidate_BT.sum(axis=1)
    wanted_B = np.minimum(np.rint(config.task.mask_fraction * counts_B), size)
    wanted_B = np.where(counts_B > 0, np.maximum(wanted_B, 1), 0)
    order_BK = np.argsort(np.where(candidate_BT, draw(length), 2.0), axis=1)[:, :size]
    chosen_BK = np.arange(size) < wanted_B[:, None]
    positions_BK = np.where(chosen_BK, order_BK, 0)
    rows_B1 = np.arange(num_rows)[:, None]
    targets_BK = np.where(chosen_BK, tokens_BT[rows_B1, positions_BK], 0)
    kind_BK = draw(size)
    random_BK = (draw(size) * tokenizer.base_size).astype(np.int32)
    hidden_BK = np.where(kind_BK < MASKED, mask_id(tokenizer),
                         np.where(kind_BK < MASKED_OR_RANDOM, random_BK, targets_BK))
    hidden_BT = tokens_BT.copy()
    hidden_BT[np.broadcast_to(rows_B1, order_BK.shape)[chosen_BK], order_BK[chosen_BK]] = hidden_BK[chosen_BK]
    return {"tokens": hidden_BT, "segments": batch["segments"], "positions": batch["positions"],
            "masked_positions": positions_BK.astype(np.int32), "targets": targets_BK.astype(np.int32),
            "weights": chosen_BK.astype(np.float32)}


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` windows."""
    windows = {name: jax.ShapeDtypeStruct((rows, config.model.context_length), jnp.int32)
               for name in ("tokens", "segments", "positions")}
    kinds = {"masked_positions": jnp.int32, "targets": jnp.int32, "weights": jnp.float32}
    return windows | {name: jax.ShapeDtypeStruct((rows, num_masked(config)), kind) for name, kind in kinds.items()}


def initialize(config: Config, key: jax.Array) -> Any:
    """The initial parameters."""
    return make_model(config.model).init(key, jnp.zeros((1, config.model.context_length), jnp.int32))["params"]


def features_of(config: Config, params: Any, batch: Mapping[str, jax.Array], key: jax.Array | None) -> jax.Array:
    """x_BKD: what the model made of the masked positions; `key` of dropout, None is deterministic."""
    x_BTD = make_model(config.model).apply(
        {"params": params}, batch["tokens"], positions_BT=batch["positions"], segments_BT=batch["segments"],
        method="hidden", deterministic=key is None, rngs={} if key is None else {"dropout": key}).logits_BTV
    return jnp.take_along_axis(x_BTD, batch["masked_positions"][..., None], axis=1)


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the batch's hidden tokens, float32 scalars; logits are made at them alone.

    Args:
      config: a finalized config; `training.loss_chunk` set takes the vocabulary in chunks.
      params: of `initialize`.
      batch: of `masked`.
      key: of dropout; None is deterministic.

    Returns:
      `loss` (what is minimized), `cross_entropy` (nats), `weight` and `correct` (see `losses.loss_sums`).
    """
    training = config.training
    x_BKD = features_of(config, params, batch, key)
    statistics = head_statistics(config, params, x_BKD, batch["targets"])
    return losses.loss_sums(statistics, batch["weights"], label_smoothing=training.label_smoothing,
                            z_loss=training.z_loss)
