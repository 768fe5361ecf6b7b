"""Sequence to sequence: write a text after reading another, as in translation, summaries and answered questions.

A pair becomes a record of `source` and `target` ids, framed as the tokenizer says (SpecialIds). With our own, where END
closes both sides:

    encoder_decoder, recurrent_encoder_decoder     source  a b c END          targets  x y END
                                                   tokens  END x y
    decoder (one row, weights on x y END alone)    tokens  a b c END x y      targets  b c END x y END

Of an encoder-decoder whose targets always begin with a certain id (BART's), that id is learned as the first of the
target, and given when a target is written. Every different target of a pair is a record of its own. A source or target
without room is cut and counted; of a target that is cut, the end is not learned.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import Config
from purelm.data.examples import PreparedExamples, Recipe, prepare_examples
from purelm.data.formats import as_pair
from purelm.data.tokenizers import SpecialIds
from purelm.errors import UserError
from purelm.models import make_model
from purelm.tasks import losses
from purelm.tasks.head_statistics import head_statistics
from purelm.tasks.truncation import truncate

UNIT = "tokens"
FORMAT = "pairs"
Record = dict[str, Any]


def rooms(config: Config) -> tuple[int, int]:
    """Tokens that a source and a target may have, all that stands around each included.

    A target, in training too, has at most decoding.max_new_tokens. A decoder, which holds both in one context, gives
    the target at most half of it.
    """
    context_length, longest = config.model.context_length, config.decoding.max_new_tokens
    if config.model.architecture == "decoder":
        target = min(longest, context_length // 2)
        return context_length - target, target
    return context_length, min(longest, context_length)


def pair_of(config: Config, example: Mapping[str, Any]) -> Mapping[str, Any]:
    """The example as {"source", "targets", "where", ...}, whatever format its row had."""
    if "source" in example:
        return example
    pair = as_pair(config.data.format, example)
    return {**pair, "source": config.data.prompt + pair["source"]}


def encode_sources(config: Config, tokenizer: Any, sources: Sequence[str]) -> tuple[list[np.ndarray], int]:
    """(ids of each source without what stands around it, how many were cut).

    Raises UserError where the tokenizer has nothing to close a target with.
    """
    special = tokenizer.special
    if not special.stop:
        raise UserError("sequence_to_sequence closes both texts with the end-of-text token; set "
                        "--config.data.end_of_text=true")
    room = rooms(config)[0] - len(special.source_start) - len(closing(special))
    whole = tokenizer.encode_batch(sources)
    return [truncate(ids, room, config.data.truncation) for ids in whole], sum(len(ids) > room for ids in whole)


def closing(special: SpecialIds) -> tuple[int, ...]:
    """What stands after a source: of a language model's tokenizer, which has nothing for it, what ends a text."""
    return special.source_end or special.stop[:1]


def framed_source(special: SpecialIds, source: np.ndarray) -> np.ndarray:
    """int32: a source as the model reads it."""
    return np.concatenate([special.source_start, source, closing(special)]).astype(np.int32)


def encode(config: Config, tokenizer: Any, labels: None, examples: Sequence[Mapping[str, Any]],
           counts: collections.Counter) -> list[list[Record]]:
    """One record for each different target of each example; `counts` gets the texts that were cut."""
    pairs = [pair_of(config, example) for example in examples]
    sources, cut = encode_sources(config, tokenizer, [pair["source"] for pair in pairs])
    counts["sources cut to the context"] += cut
    targets = [list(dict.fromkeys(pair["targets"] or ())) for pair in pairs]
    encoded = iter(tokenizer.encode_targets([text for texts in targets for text in texts]))
    room, special = rooms(config)[1], tokenizer.special
    begun = () if config.model.architecture == "decoder" else special.target_start[1:]
    rows, frame = [], _frame(special)
    for source, texts in zip(sources, targets):
        row = []
        for _ in texts:
            target = np.concatenate([begun, next(encoded), special.stop[:1]]).astype(np.int32)
            counts["targets cut to decoding.max_new_tokens or the context"] += int(len(target) > room)
            row.append({"source": source, "target": target[:room], **frame})
        rows.append(row)
    return rows


def _frame(special: SpecialIds) -> Record:
    """What records say of their frame: the end alone where it stands at every place that has an id."""
    end = special.stop[:1]
    if (special.source_start, closing(special), special.target_start or end) == ((), end, end):
        return {"end": end[0]}
    return {"end": end[0], "first": special.target_start[0] if special.target_start else end[0],
            "source_start": np.array(special.source_start, np.int32),
            "source_end": np.array(closing(special), np.int32)}


def texts(config: Config, example: Mapping[str, Any]) -> list[str]:
    """What the one tokenizer of both sides is trained on."""
    pair = pair_of(config, example)
    return [pair["source"], *pair["targets"]]


def record_length(config: Config, record: Record) -> int:
    """Tokens of the longer side, or of the row that holds both."""
    source, target = len(_closed(record)), len(record["target"])
    return source - 1 + target if config.model.architecture == "decoder" else max(source, target)


def collate(config: Config, records: Sequence[Record | None], length: int) -> dict[str, np.ndarray]:
    """The batch of `records` (None: a row of weight 0), padded to `length`, targets at most to their room."""
    if config.model.architecture == "decoder":
        return _one_row(config, records, length)
    target_length = min(length, rooms(config)[1])
    batch = {"source": np.zeros((len(records), length), np.int32),
             "source_segments": np.zeros((len(records), length), np.int32),
             "tokens": np.zeros((len(records), target_length), np.int32),
             "targets": np.zeros((len(records), target_length), np.int32),
             "weights": np.zeros((len(records), target_length), np.float32)}
    # A row without a source would have nothing to attend to.
    batch["source_segments"][:, 0] = 1
    for row, record in enumerate(records):
        if record is None:
            continue
        source, target = _closed(record), record["target"]
        batch["source"][row, :len(source)] = source
        batch["source_segments"][row, :len(source)] = 1
        batch["tokens"][row, 0] = record["first" if "first" in record else "end"]
        batch["tokens"][row, 1:len(target)] = target[:-1]
        batch["targets"][row, :len(target)] = target
        batch["weights"][row, :len(target)] = 1
    return batch


def _one_row(config: Config, records: Sequence[Record | None], length: int) -> dict[str, np.ndarray]:
    shapes = {"tokens": np.int32, "targets": np.int32, "weights": np.float32}
    shapes |= {"prefix": np.int32} if config.model.prefix_attention else {}
    batch = {name: np.zeros((len(records), length), kind) for name, kind in shapes.items()}
    for row, record in enumerate(records):
        if record is None:
            continue
        prompt = _closed(record)
        ids = np.concatenate([prompt, record["target"]])
        batch["tokens"][row, :len(ids) - 1] = ids[:-1]
        batch["targets"][row, :len(ids) - 1] = ids[1:]
        batch["weights"][row, len(prompt) - 1:len(ids) - 1] = 1
        if config.model.prefix_attention:
            batch["prefix"][row, :len(prompt)] = 1
    return batch


def _closed(record: Record) -> np.ndarray:
    """The source and what stands around it."""
    if "source_end" not in record:
        return np.append(record["source"], np.int32(record["end"]))
    return np.concatenate([record["source_start"], record["source"], record["source_end"]]).astype(np.int32)


def make_recipe(config: Config) -> Recipe:
    """How data/examples.py makes batches of this task."""
    return Recipe(
        format=FORMAT, texts=functools.partial(texts, config), labels=None, encode=encode,
        length=functools.partial(record_length, config), collate=collate, augmented=("source",), num_specials=0,
        version=1, config_fields=("data.truncation", "model.context_length", "model.architecture",
                                  "decoding.max_new_tokens"))


def prepare(config: Config, *, tokenizer: Any = None, labels: None = None, progress: Any = None) -> PreparedExamples:
    """Examples in batches (see data.prepare_examples); `labels` are for other tasks."""
    return prepare_examples(config, make_recipe(config), tokenizer=tokenizer, progress=progress)


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` pairs at full length."""
    batch = collate(config, [None], config.model.context_length)
    return {name: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype) for name, leaf in batch.items()}


def initialize(config: Config, key: jax.Array) -> Any:
    """The initial parameters, of encoder and decoder."""
    length = min(config.model.context_length, rooms(config)[1])
    return make_model(config.model).init(key, jnp.zeros((1, length), jnp.int32))["params"]


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the tokens of the batch's targets, float32 scalars.

    Args:
      config: a finalized config; `training.loss_chunk` set takes the vocabulary in chunks.
      params: of `make_model(config.model)`.
      batch: as `collate` makes it.
      key: of dropout; None is deterministic.

    Returns:
      `loss` (what is minimized), `cross_entropy` (nats), `weight` and `correct` (see `losses.loss_sums`).
    """
    statistics = target_statistics(config, params, batch, key)
    return losses.loss_sums(statistics, batch["weights"], label_smoothing=config.training.label_smoothing,
                            z_loss=config.training.z_loss)


def target_statistics(config: Config, params: Any, batch: Mapping[str, jax.Array],
                      key: jax.Array | None) -> losses.Statistics:
    """What a loss needs of each token of the batch."""
    model = make_model(config.model)
    inputs = _inputs(model, params, batch, key)
    if config.training.loss_chunk is None:
        logits_BTV = model.apply({"params": params}, batch["tokens"], **inputs).logits_BTV
        return losses.statistics(logits_BTV, batch["targets"])
    x_BTD = model.apply({"params": params}, batch["tokens"], method="hidden", **inputs).logits_BTV
    return head_statistics(config, params, x_BTD, batch["targets"])


def _inputs(model: Any, params: Any, batch: Mapping[str, jax.Array], key: jax.Array | None) -> dict[str, Any]:
    """What the decoder is given beside its tokens. It is causal and its padding comes last: it needs no segments."""
    keys = (None, None) if key is None else jax.random.split(key)
    random = [{"deterministic": key is None, "rngs": {} if key is None else {"dropout": key}} for key in keys]
    if "source" not in batch:
        return random[0] | ({"prefix_BT": batch["prefix"]} if "prefix" in batch else {})
    encoded = model.apply({"params": params}, batch["source"], source_segments_BS=batch["source_segments"],
                          method="encode", **random[1])
    return random[0] | {"encoded": encoded}
