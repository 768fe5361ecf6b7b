"""Tagging: a tag and its probability for each word, the entities that the tags spell, and seqeval's F1 of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from purelm.config import Config
from purelm.evaluation.batches import Progress, answers
from purelm.tasks import tagging as task
from purelm.training.load import LoadedRun

OUTSIDE = "O"
_PREFIXES = ("B-", "I-", "E-", "S-")
# A word is a run of letters and digits, with @, # or an apostrophe as Twitter's and English words begin; a Chinese
# character, or any other sign, stands by itself.
_WORD = re.compile(r"[\u3400-\u9fff]|[@#']?[^\W_\u3400-\u9fff]+|\S")


def input_format(config: Config) -> str:
    """The format of new rows."""
    return task.RECIPE.format


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: words parted at white space and punctuation."""
    return {"where": "--text", "tokens": _WORD.findall(text), "tags": None}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """The tags of each example.

    Args:
      run: its labels name the tags.
      examples: of the format tags; `tags` may be None.
      batch_size: rows at once.
      progress: called with a line now and then.

    Returns:
      `tokens`; `tags`, one a token, "O" with probability 0 where the context had no room for it; `probabilities` of
      those; `entities` of the tags (see `entities_of`).
    """
    params, compute = jax.device_put(run.params), _program(run.config, len(run.labels))
    rows = answers(run.config, task.RECIPE, run.tokenizer, run.labels, examples, lambda batch: compute(params, batch),
                   batch_size=batch_size, progress=progress)
    return [_prediction(run, example, record, *outputs) for example, (record, outputs) in zip(examples, rows)]


@functools.lru_cache(maxsize=4)
def _program(config: Config, num_labels: int) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
    """The tags and their probabilities of (params, batch), compiled."""
    @jax.jit
    def compute(params, batch):
        logits_BTC = task.logits_of(config, params, batch)[..., :num_labels]
        return logits_BTC.argmax(-1), jax.nn.softmax(logits_BTC).max(-1)

    return compute


def _prediction(run: LoadedRun, example: Mapping[str, Any], record: Mapping[str, np.ndarray], answer_T: np.ndarray,
                probability_T: np.ndarray) -> dict[str, Any]:
    words = list(example["tokens"])
    tags, probabilities = [OUTSIDE] * len(words), [0.0] * len(words)
    for place in np.flatnonzero(record["words"] >= 0):
        word = record["words"][place]
        tags[word], probabilities[word] = run.labels[answer_T[place]], float(probability_T[place])
    return {"tokens": words, "tags": tags, "entities": entities_of(words, tags), "probabilities": probabilities}


def entities_of(words: Sequence[str], tags: Sequence[str]) -> list[dict[str, Any]]:
    """`type`, `text` and words `start` to `end` (exclusive) of each entity, as conlleval reads tags.

    A tag without the prefix B-, I-, E- or S-, such as a part of speech, is in no entity.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    tags = [tag if tag[:2] in _PREFIXES else OUTSIDE for tag in tags]
    return [{"type": kind, "text": " ".join(words[start:last + 1]), "start": int(start), "end": int(last) + 1}
            for kind, start, last in get_entities(tags)]


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """seqeval's metrics of a whole split: see `entity_scores`."""
    return entity_scores([example["tags"] for example in examples], [answer["tags"] for answer in predictions])


def entity_scores(right: Sequence[Sequence[str]], answered: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Precision, recall and F1 of whole entities: an answer counts where its words and its type are all right.

    By seqeval in its default mode, that of the CoNLL shared tasks' conlleval: an I- that no B- opened opens an entity.

    Returns:
      `precision`, `recall`, `f1` over all entities (micro), `macro` (the mean over types), `per_type` (with
      `support`, the number of right entities), and `accuracy` over words.
    """
    import warnings

    from seqeval.metrics import accuracy_score, classification_report

    right, answered = [list(tags) for tags in right], [list(tags) for tags in answered]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About tags without a prefix and types without an answer, which score 0.
        report = classification_report(right, answered, output_dict=True, zero_division=0)
        accuracy = float(accuracy_score(right, answered))
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score"}

    def scores(kind: str) -> dict[str, float]:
        return {name: float(report[kind][key]) for name, key in names.items()}

    types = sorted(set(report) - {"micro avg", "macro avg", "weighted avg"})
    return {**scores("micro avg"), "macro": scores("macro avg"), "accuracy": accuracy,
            "per_type": {kind: {**scores(kind), "support": int(report[kind]["support"])} for kind in types}}
