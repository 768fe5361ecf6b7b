"""Classification: the class of a text, or of a pair of texts, from its pooled features."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import Config
from purelm.data.examples import PreparedExamples, Recipe, prepare_examples
from purelm.data.tokenizers.special import SpecialIds, around
from purelm.errors import UserError, did_you_mean
from purelm.models import make_model
from purelm.models.classifier import Classifier
from purelm.tasks import losses
from purelm.tasks.truncation import truncate, truncate_pair

UNIT = "examples"


def encode(config: Config, tokenizer: Any, labels: tuple[str, ...] | None, examples: Sequence[Mapping[str, Any]],
           counts: collections.Counter) -> list[list[dict[str, Any]]]:
    """One record an example: `text` (and `pair`) ids cut by data.truncation, what stands around them, `label` (-1: not
    known).

    The texts are kept apart from their frame so that an augmentation of them leaves it where it is; `collate` puts
    them together. `counts` gets the examples that were cut.

    Raises:
      UserError: the tokenizer has no special token, or a label is none of `labels`.
    """
    special = tokenizer.special
    if not special.every_id:
        raise UserError("classification starts every text with the end-of-text token; set "
                        "--config.data.end_of_text=true")
    paired = config.data.text_pair_field is not None
    room = config.model.context_length - len(special.start) - len(special.end) - paired * len(special.between)
    how, frame = config.data.truncation, _frame(special)
    texts = tokenizer.encode_batch([example["text"] for example in examples])
    pairs = tokenizer.encode_batch([example["pair"] for example in examples]) if paired else [None] * len(examples)
    number_of = {label: number for number, label in enumerate(labels)}
    rows = []
    for example, text, pair in zip(examples, texts, pairs):
        record = {**frame, "label": _label(example, number_of)}
        if paired:
            record["text"], record["pair"] = truncate_pair(text, pair, room, how)
            cut = len(record["text"]) + len(record["pair"]) < len(text) + len(pair)
        else:
            record["text"] = truncate(text, room, how)
            cut = len(record["text"]) < len(text)
        counts["texts cut to the context"] += int(cut)
        rows.append([record])
    return rows


def _frame(special: SpecialIds) -> dict[str, Any]:
    """What records say of their frame: one separator where it alone stands before each text."""
    if special == around(special.start[0] if special.start else None):
        return {"separator": special.start[0]}
    return {**{name: np.array(getattr(special, name), np.int32) for name in ("start", "between", "end")},
            "between_type": special.pair_type * special.pair_type_from_between, "pair_type": special.pair_type}


def _parts(record: Mapping[str, Any]) -> list[tuple[np.ndarray, int]]:
    """(ids, their token type) from the row's start to its end."""
    if "separator" in record:
        separator = np.array([record["separator"]], np.int32)
        framed = {"start": separator, "between": separator, "end": separator[:0], "between_type": 1, "pair_type": 1}
        record = {**framed, **record}
    parts, last = [(record["start"], 0), (record["text"], 0)], 0
    if "pair" in record:
        last = record["pair_type"]
        parts += [(record["between"], record["between_type"]), (record["pair"], last)]
    return [*parts, (record["end"], last)]


def _label(example: Mapping[str, Any], number_of: Mapping[str, int]) -> int:
    if example["label"] is None:
        return -1
    if example["label"] not in number_of:
        raise UserError(f"{example['where']}: label '{example['label']}' is none of the training data's"
                        f"{did_you_mean(example['label'], number_of)}")
    return number_of[example["label"]]


def length(record: Mapping[str, Any]) -> int:
    """Tokens of the record, its frame included."""
    return sum(len(ids) for ids, _ in _parts(record))


def collate(config: Config, records: Sequence[Mapping[str, Any] | None], length: int) -> dict[str, np.ndarray]:
    """The batch of these rows, `length` tokens wide: start, text (, between, pair), end, padding.

    Returns:
      tokens, segments (1 on tokens, 0 on padding), with model.token_types also token_types (the pair's own
      on it and what follows, of our own tokenizers on the separator before it too), each int32 [B, T]; labels int32
      [B]; weights float32 [B], 0 for rows that are padding or not labeled.
    """
    shape = (len(records), length)
    batch = {"tokens": np.zeros(shape, np.int32), "segments": np.zeros(shape, np.int32),
             "labels": np.zeros(len(records), np.int32), "weights": np.zeros(len(records), np.float32)}
    if config.model.token_types:
        batch["token_types"] = np.zeros(shape, np.int32)
    for row, record in enumerate(records):
        if record is None:
            continue
        parts = _parts(record)
        ids = np.concatenate([ids for ids, _ in parts])[:length]
        batch["tokens"][row, :len(ids)] = ids
        batch["segments"][row, :len(ids)] = 1
        if config.model.token_types:
            types = np.repeat([kind for _, kind in parts], [len(ids) for ids, _ in parts])
            batch["token_types"][row, :len(ids)] = types[:len(ids)]
        batch["labels"][row] = max(record["label"], 0)
        batch["weights"][row] = record["label"] >= 0
    return batch


RECIPE = Recipe(
    format="labels",
    texts=lambda example: [example["text"], *([] if example["pair"] is None else [example["pair"]])],
    labels=lambda example: [] if example["label"] is None else [example["label"]],
    encode=encode, length=length, collate=collate, num_specials=0, augmented=("text", "pair"), version=1,
    config_fields=("model.context_length", "data.truncation", "data.text_pair_field"))


def prepare(config: Config, *, tokenizer: Any = None, labels: tuple[str, ...] | None = None,
            progress: Any = None) -> PreparedExamples:
    """The data of `config` as records; see `data.examples.prepare_examples`."""
    return prepare_examples(config, RECIPE, tokenizer=tokenizer, labels=labels, progress=progress)


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` texts that fill the context."""
    names = ["tokens", "segments", *(["token_types"] if config.model.token_types else [])]
    shapes = {name: jax.ShapeDtypeStruct((rows, config.model.context_length), jnp.int32) for name in names}
    return shapes | {"labels": jax.ShapeDtypeStruct((rows,), jnp.int32),
                     "weights": jax.ShapeDtypeStruct((rows,), jnp.float32)}


def initialize(config: Config, key: jax.Array) -> Any:
    """The model's initial parameters without an output layer, and the classifier's beside them.

    The model's are those of the same key in any other task.
    """
    params, features, segments_BT = initialize_body(config, key)
    head = Classifier(config.model).init(jax.random.fold_in(key, 1), features, segments_BT)
    return {**params, "classifier": head["params"]}


def initialize_body(config: Config, key: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """(parameters of the model that ends at its features, features [1, T, D] of zeros, segments [1, T])."""
    tokens_BT = jnp.zeros((1, config.model.context_length), jnp.int32)
    model = make_model(config.model)
    params = model.init(key, tokens_BT, method="hidden")["params"]
    features = jax.eval_shape(lambda params: model.apply({"params": params}, tokens_BT, method="hidden"), params)
    shape = features.logits_BTV
    return params, jnp.zeros(shape.shape, shape.dtype), jnp.ones_like(tokens_BT)


def features_of(config: Config, params: Any, batch: Mapping[str, jax.Array], key: jax.Array | None) -> jax.Array:
    """The model's features x_BTD of a batch, whose tokens are all of type 0 where it gives no token_types.

    key: of dropout; None is deterministic.
    """
    inputs = {"token_types_BT": batch["token_types"]} if "token_types" in batch else {}
    return make_model(config.model).apply(
        {"params": params}, batch["tokens"], segments_BT=batch["segments"], method="hidden",
        deterministic=key is None, rngs={} if key is None else {"dropout": key}, **inputs).logits_BTV


def logits_of(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None = None) -> tuple[jax.Array, jax.Array | None]:
    """(float32 logits_BC, weights of attention pooling [B, T] or None)."""
    model_key, head_key = (None, None) if key is None else jax.random.split(key)
    x_BTD = features_of(config, params, batch, model_key)
    logits_BC, pooling_weights_BT = Classifier(config.model).apply(
        {"params": params["classifier"]}, x_BTD, batch["segments"], deterministic=key is None,
        rngs={} if key is None else {"dropout": head_key})
    return logits_BC.astype(jnp.float32), pooling_weights_BT


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the batch's texts, float32 scalars.

    Args:
      config: a finalized config. `task.loss` is what is minimized: cross-entropy, or the squared distance of the
        probabilities from the one-hot class, summed over classes (Brier 1950). Both honor training.label_smoothing
        (the target is (1 - s) one-hot + s / C) and training.z_loss.
      params: of `initialize`.
      batch: of `collate`.
      key: of dropout; None is deterministic.

    Returns:
      `loss`, `cross_entropy` (nats, neither smoothed nor squared), `weight` (labeled texts), `correct`.
    """
    training = config.training
    logits_BC, _ = logits_of(config, params, batch, key)
    statistics = losses.statistics(logits_BC, batch["labels"])
    sums = losses.loss_sums(statistics, batch["weights"], label_smoothing=training.label_smoothing,
                            z_loss=training.z_loss)
    if config.task.loss == "squared_error":
        target_BC = _smoothed(batch["labels"], logits_BC.shape[-1], training.label_smoothing)
        loss_B = jnp.sum(jnp.square(jax.nn.softmax(logits_BC) - target_BC), axis=-1)
        loss_B = loss_B + training.z_loss * jnp.square(statistics.logsumexp)
        sums["loss"] = jnp.sum(loss_B * batch["weights"])
    return sums


def _smoothed(labels_B: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """[B, C]: (1 - smoothing) one-hot + smoothing / C."""
    return (1 - smoothing) * jax.nn.one_hot(labels_B, num_classes) + smoothing / num_classes
