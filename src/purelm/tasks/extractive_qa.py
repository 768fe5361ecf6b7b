"""Extractive question answering: where in a paragraph the answer begins and ends (Devlin et al. 2019, section 4.2).

A record is the question and a window of the paragraph, framed as the tokenizer says (SpecialIds): with our own, end of
text stands before, between and after them. The windows of a long
paragraph overlap; in those without the answer, both positions are 0. With model.token_types = 2 the paragraph has a
type of its own, and with 3 those of its tokens that belong to a word of the question have another: the "exact match"
feature of DrQA (Chen et al. 2017, arXiv 1704.00051, section 3.2), which a model without pretraining needs most.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import Config
from purelm.data.examples import PreparedExamples, Recipe, prepare_examples
from purelm.data.formats import repair_answer
from purelm.errors import UserError
from purelm.models import make_model
from purelm.models.dropout import dropout
from purelm.models.initialization import kernel_initializer
from purelm.tasks import losses

UNIT = "examples"
QUESTION, PARAGRAPH, SHARED = 0, 1, 2
_PADDED = -1e30
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CHINESE}]|[^\W_{_CHINESE}]+")
_ENDING = re.compile(r"(?<=\w{4})(?:ings?|ed|es|s|ly|er|ion|e)$")


class Window(NamedTuple):
    """A record and what leads back to the text: its first paragraph token is token `first` of the paragraph and has
    index `begin` in the record, and the one after its last has `stop`."""

    record: dict[str, Any]
    first: int
    begin: int
    stop: int


def encode(config: Config, tokenizer: Any, labels: None, examples: Sequence[Mapping[str, Any]],
           counts: collections.Counter) -> list[list[dict[str, Any]]]:
    """The records of each example's windows; none where no answer stands in the paragraph, which `counts` tells.

    Raises UserError for a tokenizer that is not exact, or without special tokens.
    """
    rows = []
    for example, (windows, spans) in zip(examples, encode_windows(config, tokenizer, examples), strict=True):
        answer = _first_answer(example, spans, counts)
        if answer is None:
            rows.append([])
            continue
        rows.append([_with_answer(window, answer) for window in windows])
        counts["windows"] += len(windows)
        counts["windows without the answer"] += sum(record["start"] == 0 for record in rows[-1])
    return rows


def encode_windows(config: Config, tokenizer: Any, examples: Sequence[Mapping[str, Any]],
                   ) -> list[tuple[list[Window], np.ndarray]]:
    """For each example its windows (start and end 0) and `Tokenizer.spans` of its paragraph."""
    tokenizer.spans("")  # Where it keeps no places, that is what is wrong first.
    if not tokenizer.special.every_id:
        raise UserError("extractive_qa parts question and paragraph by the end-of-text token; set "
                        "--config.data.end_of_text=true")
    questions = tokenizer.encode_batch([example["question"] for example in examples])
    contexts = list(dict.fromkeys(example["context"] for example in examples))
    encoded = dict(zip(contexts, tokenizer.encode_batch(contexts), strict=True))
    spans = {text: tokenizer.spans(text) for text in contexts}
    return [(_windows(config, tokenizer, example, question, encoded[example["context"]], spans[example["context"]]),
             spans[example["context"]]) for example, question in zip(examples, questions, strict=True)]


def _windows(config: Config, tokenizer: Any, example: Mapping[str, Any], question: np.ndarray, context: np.ndarray,
             spans: np.ndarray) -> list[Window]:
    length, special = config.model.context_length, tokenizer.special
    head = np.concatenate([special.start, question[:length // 2], special.between])
    room = length - len(head) - len(special.paragraph_end)
    step = room - config.task.window_overlap
    if step < 1:
        raise UserError(f"config.task.window_overlap={config.task.window_overlap} leaves nothing of a window beside a "
                        f"question of {len(question[:length // 2])} tokens in config.model.context_length={length}; "
                        "make one smaller or the other larger")
    shared = shared_tokens(example["question"], example["context"], spans)
    windows = []
    for first in range(0, max(len(context) - config.task.window_overlap, 1), step):
        part = context[first:first + room]
        stop = len(head) + len(part)
        tokens = np.concatenate([head, part, special.paragraph_end]).astype(np.int32)
        types = np.zeros(len(tokens), np.int32)
        types[len(head):stop] = np.where(shared[first:first + room], SHARED, PARAGRAPH)
        types[stop:] = PARAGRAPH
        types = np.minimum(types, max(config.model.token_types - 1, 0) if special.pair_type else 0)
        windows.append(Window({"tokens": tokens, "token_types": types, "begin": len(head), "start": 0, "end": 0},
                              first, len(head), stop))
    return windows


def shared_tokens(question: str, context: str, spans: np.ndarray) -> np.ndarray:
    """bool [T]: the paragraph's tokens that have a character of a word which the question has too.

    Words are compared in lower case without common English endings (DrQA compares lemmas); of Chinese, which has no
    spaces, two characters in a row stand for a word.
    """
    known = {word for word, _, _ in _words(question)}
    marks = np.zeros(len(context) + 1, np.int64)
    for word, start, stop in _words(context):
        if word in known:
            marks[start:stop] = 1
    before = np.concatenate([[0], np.cumsum(marks)])
    return before[spans[:, 1]] > before[spans[:, 0]]


def _words(text: str) -> list[tuple[str, int, int]]:
    """(word as it is compared, start, stop), pairs of neighbors for Chinese characters."""
    found = []
    for match in _WORD.finditer(text):
        start, stop = match.span()
        if re.match(f"[{_CHINESE}]", match.group()):
            if re.match(f"[{_CHINESE}]", text[stop:stop + 1]):
                found.append((text[start:stop + 1], start, stop + 1))
        else:
            found.append((_ENDING.sub("", match.group().lower()), start, stop))
    return found


def _first_answer(example: Mapping[str, Any], spans: np.ndarray, counts: collections.Counter) -> tuple[int, int] | None:
    """The paragraph tokens (first, last) of the first answer that stands in the paragraph."""
    for answer in example["answers"] or []:
        verdict, start = repair_answer(example["context"], answer)
        if verdict == "dropped" or not answer["text"]:  # No token holds an empty answer.
            continue
        stop = start + len(answer["text"])
        overlapping = np.flatnonzero((spans[:, 0] < stop) & (spans[:, 1] > start))
        if not len(overlapping):  # A tokenizer that normalizes may have left all of it out.
            continue
        counts["answers moved to where they stand"] += int(verdict == "repaired")
        return int(overlapping[0]), int(overlapping[-1])
    if example["answers"]:
        counts["questions left out of training: no answer stands in the paragraph, or not only once"] += 1
    return None


def _with_answer(window: Window, answer: tuple[int, int]) -> dict[str, Any]:
    start, end = (place - window.first + window.begin for place in answer)
    if start < window.begin or end >= window.stop:
        return window.record
    return {**window.record, "start": start, "end": end}


def length(record: Mapping[str, Any]) -> int:
    """Tokens of the record."""
    return len(record["tokens"])


def collate(config: Config, records: Sequence[Mapping[str, Any] | None], length: int) -> dict[str, np.ndarray]:
    """The batch of these rows, padded to `length`.

    Returns:
      tokens, segments (0 on padding), with model.token_types also token_types, int32 [B, T]; start, end int32 [B];
      weights float32 [B], 0 for rows that are padding.
    """
    names = ["tokens", "segments", *(["token_types"] if config.model.token_types else [])]
    batch = {name: np.zeros((len(records), length), np.int32) for name in names}
    batch |= {name: np.zeros(len(records), np.int32) for name in ("start", "end")}
    batch["weights"] = np.zeros(len(records), np.float32)
    batch["segments"][:, 0] = 1  # A row of padding has something to attend to.
    for row, record in enumerate(records):
        if record is None:
            continue
        size = len(record["tokens"])
        for name in names:
            batch[name][row, :size] = 1 if name == "segments" else record[name]
        batch["start"][row], batch["end"][row], batch["weights"][row] = record["start"], record["end"], 1
    return batch


RECIPE = Recipe(
    format="squad", texts=lambda example: [example["context"], example["question"]], encode=encode, length=length,
    collate=collate, version=1,
    config_fields=("model.context_length", "model.token_types", "task.window_overlap"))


def prepare(config: Config, *, tokenizer: Any = None, labels: None = None, progress: Any = None) -> PreparedExamples:
    """The data of `config` as records; `labels` are for other tasks."""
    return prepare_examples(config, RECIPE, tokenizer=tokenizer, progress=progress)


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` windows that fill the context."""
    names = ["tokens", "segments", *(["token_types"] if config.model.token_types else [])]
    shapes = {name: jax.ShapeDtypeStruct((rows, config.model.context_length), jnp.int32) for name in names}
    kinds = {"start": jnp.int32, "end": jnp.int32, "weights": jnp.float32}
    return shapes | {name: jax.ShapeDtypeStruct((rows,), kind) for name, kind in kinds.items()}


def initialize(config: Config, key: jax.Array) -> Any:
    """The initial parameters: the model's without an output layer, and "span": kernel [D, 2] and bias of the logits of
    start and end."""
    tokens_BT = jnp.zeros((1, config.model.context_length), jnp.int32)
    model = make_model(config.model)
    params = model.init(key, tokens_BT, method="hidden")["params"]
    features = jax.eval_shape(lambda params: model.apply({"params": params}, tokens_BT, method="hidden"), params)
    width, kind = features.logits_BTV.shape[-1], jax.tree.leaves(params)[0].dtype
    kernel = kernel_initializer(config.model, "hidden")(jax.random.fold_in(key, 1), (width, 2), kind)
    return {**params, "span": {"kernel": kernel, "bias": jnp.zeros(2, kind)}}


def logits_of(config: Config, params: Any, batch: Mapping[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
    """float32 logits_B2T of start and end, -1e30 on padding; `key` of dropout, None is deterministic."""
    model_key, head_key = (None, None) if key is None else jax.random.split(key)
    inputs = {"token_types_BT": batch["token_types"]} if config.model.token_types else {}
    x_BTD = make_model(config.model).apply(
        {"params": params}, batch["tokens"], segments_BT=batch["segments"], method="hidden",
        deterministic=key is None, rngs={} if key is None else {"dropout": model_key}, **inputs).logits_BTV
    x_BTD = dropout(x_BTD, config.model.classifier_dropout, head_key)
    head = params["span"]
    logits_B2T = jnp.einsum("BTD,DP->BPT", x_BTD, head["kernel"].astype(x_BTD.dtype),
                            preferred_element_type=jnp.float32) + head["bias"].astype(jnp.float32)[:, None]
    return jnp.where(batch["segments"][:, None] != 0, logits_B2T, _PADDED)


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the batch's windows, float32 scalars.

    Args:
      config: a finalized config; training.label_smoothing is spread over the window's tokens.
      params: of `initialize`.
      batch: of `collate`.
      key: of dropout; None is deterministic.

    Returns:
      `loss` and `cross_entropy` (nats, the mean of start's and end's), `weight` (windows), `correct` (windows where
      both are the most probable).
    """
    logits_B2T = logits_of(config, params, batch, key)
    statistics = losses.statistics(logits_B2T, jnp.stack([batch["start"], batch["end"]], axis=1))
    real_B1T = batch["segments"][:, None] != 0
    mean_B2 = jnp.sum(jnp.where(real_B1T, logits_B2T, 0), axis=-1) / jnp.sum(real_B1T, axis=-1)
    half_B2 = jnp.repeat(batch["weights"][:, None] / 2, 2, axis=1)
    sums = losses.loss_sums(statistics._replace(mean=mean_B2), half_B2,
                            label_smoothing=config.training.label_smoothing, z_loss=config.training.z_loss)
    return sums | {"correct": jnp.sum(statistics.hit[:, 0] * statistics.hit[:, 1] * batch["weights"])}
