"""Tagging: one BIO tag a word, read off the word's first token (Devlin et al. 2019, section 5.3)."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import Config
from purelm.data.examples import PreparedExamples, Recipe, prepare_examples
from purelm.errors import UserError, did_you_mean
from purelm.models.classifier import TokenClassifier
from purelm.tasks import losses
from purelm.tasks.classification import features_of, initialize_body

UNIT = "words"


def encode(config: Config, tokenizer: Any, labels: tuple[str, ...] | None, examples: Sequence[Mapping[str, Any]],
           counts: collections.Counter) -> list[list[dict[str, Any]]]:
    """One record an example, int32 arrays over its tokens, with what the tokenizer puts around a text:

    `tokens`; `words`, the number of the word that begins here, else -1; `labels`, that word's tag, -1 where none begins
    or none is known. Words are encoded one by one (`Tokenizer.encode_words`). `counts` gets
    the words that the context has no room for, and those that have no token.

    Raises:
      UserError: the tokenizer has no special token, or a tag is none of `labels`.
    """
    if not tokenizer.special.every_id:
        raise UserError("tagging starts every sentence with the end-of-text token; set --config.data.end_of_text=true")
    number_of = {label: number for number, label in enumerate(labels)}
    return [[_record(config, tokenizer, example, tokenizer.encode_words(example["tokens"]), number_of, counts)]
            for example in examples]


def _record(config: Config, tokenizer: Any, example: Mapping[str, Any], encoded: Sequence[np.ndarray],
            number_of: Mapping[str, int], counts: collections.Counter) -> dict[str, np.ndarray]:
    special = tokenizer.special
    room = config.model.context_length - len(special.end)
    tags = _tag_numbers(example, number_of)
    sizes = np.array([len(ids) for ids in encoded], np.int64)
    starts = len(special.start) + np.cumsum(sizes) - sizes
    fits = (sizes > 0) & (starts < room)
    counts["words beyond the context"] += int(np.sum(starts >= room))
    counts["words without a token"] += int(np.sum((sizes == 0) & (starts < room)))
    tokens = np.concatenate([special.start, *encoded])[:room]
    tokens = np.concatenate([tokens, special.end]).astype(np.int32)
    words, labels = (np.full(len(tokens), -1, np.int32) for _ in range(2))
    words[starts[fits]] = np.flatnonzero(fits)
    labels[starts[fits]] = tags[fits]
    return {"tokens": tokens, "words": words, "labels": labels}


def _tag_numbers(example: Mapping[str, Any], number_of: Mapping[str, int]) -> np.ndarray:
    if example["tags"] is None:
        return np.full(len(example["tokens"]), -1, np.int32)
    for tag in example["tags"]:
        if tag not in number_of:
            raise UserError(f"{example['where']}: tag '{tag}' is none of the training data's"
                            f"{did_you_mean(tag, number_of)}")
    return np.array([number_of[tag] for tag in example["tags"]], np.int32)


def length(record: Mapping[str, Any]) -> int:
    """Tokens of the record."""
    return len(record["tokens"])


def collate(config: Config, records: Sequence[Mapping[str, Any] | None], length: int) -> dict[str, np.ndarray]:
    """The batch of these rows, `length` tokens wide.

    Returns:
      tokens, segments (1 on tokens, 0 on padding), labels, each int32 [B, T]; weights float32 [B, T], 1 on the first
      token of a word whose tag is known.
    """
    shape = (len(records), length)
    batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "segments", "labels")}
    batch["weights"] = np.zeros(shape, np.float32)
    for row, record in enumerate(records):
        if record is not None:
            count = len(record["tokens"])
            batch["tokens"][row, :count] = record["tokens"]
            batch["segments"][row, :count] = 1
            batch["labels"][row, :count] = np.maximum(record["labels"], 0)
            batch["weights"][row, :count] = record["labels"] >= 0
    return batch


RECIPE = Recipe(
    format="tags", texts=lambda example: [" ".join(example["tokens"])],
    labels=lambda example: [] if example["tags"] is None else example["tags"],
    # Steps that drop or move tokens would part words from their tags.
    encode=encode, length=length, collate=collate, num_specials=0, augmented=(), version=1,
    config_fields=("model.context_length",))


def prepare(config: Config, *, tokenizer: Any = None, labels: tuple[str, ...] | None = None,
            progress: Any = None) -> PreparedExamples:
    """The data of `config` as records; see `data.examples.prepare_examples`."""
    return prepare_examples(config, RECIPE, tokenizer=tokenizer, labels=labels, progress=progress)


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` sentences that fill the context."""
    shape = (rows, config.model.context_length)
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("tokens", "segments", "labels")}
    return shapes | {"weights": jax.ShapeDtypeStruct(shape, jnp.float32)}


def initialize(config: Config, key: jax.Array) -> Any:
    """The model's initial parameters without an output layer, and the classifier's of each token beside them."""
    params, features_BTD, _ = initialize_body(config, key)
    head = TokenClassifier(config.model).init(jax.random.fold_in(key, 1), features_BTD)
    return {**params, "classifier": head["params"]}


def logits_of(config: Config, params: Any, batch: Mapping[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
    """float32 logits_BTC."""
    model_key, head_key = (None, None) if key is None else jax.random.split(key)
    x_BTD = features_of(config, params, batch, model_key)
    logits_BTC = TokenClassifier(config.model).apply(
        {"params": params["classifier"]}, x_BTD, deterministic=key is None,
        rngs={} if key is None else {"dropout": head_key})
    return logits_BTC.astype(jnp.float32)


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the batch's words, float32 scalars.

    Args:
      config: a finalized config; training.label_smoothing and training.z_loss count as for a language model.
      params: of `initialize`.
      batch: of `collate`.
      key: of dropout; None is deterministic.

    Returns:
      `loss`, `cross_entropy` (nats), `weight` (tagged words), `correct`.
    """
    statistics = losses.statistics(logits_of(config, params, batch, key), batch["labels"])
    return losses.loss_sums(statistics, batch["weights"], label_smoothing=config.training.label_smoothing,
                            z_loss=config.training.z_loss)
