"""Span corruption: what a model writes for a text's gaps. A split is judged by its loss, which needs no answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.errors import UserError
from purelm.evaluation.marks import MARK, count_marks, encode_marked
from purelm.inference.sequence_to_sequence import answer
from purelm.tasks import span_corruption as task
from purelm.training.load import LoadedRun

Progress = Callable[[str], None]


def input_format(config: Config) -> str:
    """The format of new rows."""
    return "text"


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: a text, with [MASK] for each gap."""
    return {"where": "--text", "text": text}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """What the model writes for each gap, greedily.

    Returns:
      `text` with the gaps filled, `fills` (one text a gap, empty where the model wrote none), `log_probability` (nats)
      and `probability` of all that was written.

    Raises UserError for a text without a gap, with more than the training had, or too long for the context.
    """
    tokenizer, config = run.tokenizer, run.config
    sentinels = task.sentinel_ids(tokenizer, task.sizes(config).spans).tolist()
    sources = [_source(run, example, sentinels) for example in examples]
    written = answer(config, run.params, sources, batch_size=batch_size, special=tokenizer.special,
                     vocabulary_size=max(tokenizer.vocabulary_size, *(number + 1 for number in sentinels)),
                     progress=progress)
    predictions = []
    for source, one in zip(sources, written, strict=True):
        fills = filled_spans(one.ids_T, sentinels, int(np.isin(source, sentinels).sum()))
        ids = [token for entry in source.tolist()
               for token in (fills[sentinels.index(entry)] if entry in sentinels else [entry])]
        predictions.append({"text": tokenizer.decode(ids), "fills": [tokenizer.decode(fill) for fill in fills],
                            "log_probability": one.log_probability, "probability": math.exp(one.log_probability)})
    return predictions


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nothing: the loss of what was cut out says it."""
    return {}


def _source(run: LoadedRun, example: Mapping[str, Any], sentinels: Sequence[int]) -> np.ndarray:
    count, room = count_marks(example["text"]), task.sizes(run.config).source - 1
    if not 1 <= count <= len(sentinels):
        raise UserError(f"{example['where']}: {count} gaps; give a text with 1 to {len(sentinels)} times {MARK}")
    ids = encode_marked(run.tokenizer, example["text"], sentinels[:count])
    if len(ids) > room:
        raise UserError(f"{example['where']}: {len(ids)} tokens, {MARK} and all, do not fit the {room} that the model "
                        "reads; give a shorter text")
    return ids


def filled_spans(ids_T: np.ndarray, sentinels: Sequence[int], count: int) -> list[list[int]]:
    """What follows each of the first `count` sentinels in what was written, up to the next sentinel of any number."""
    fills: list[list[int]] = [[] for _ in range(count)]
    current: list[int] | None = None
    for token in ids_T.tolist():
        if token in sentinels:
            number = sentinels.index(token)
            current = fills[number] if number < count and not fills[number] else None
        elif current is not None:
            current.append(token)
    return fills
