"""Extractive question answering: the best span of a question's windows, and how it compares with the right answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.config import Config
from purelm.errors import UserError
from purelm.evaluation.batches import Progress, in_batches
from purelm.evaluation.squad_metrics import measure, rules_of
from purelm.tasks import extractive_qa as task
from purelm.training.load import LoadedRun


class Span(NamedTuple):
    """The best of a window's spans: its tokens in the record, both included, and logarithms of its own probability and
    of the sum of all spans'; -inf where the window has none."""

    start: int
    end: int
    score: float
    total: float


def input_format(config: Config) -> str:
    """The format of new rows."""
    return task.RECIPE.format


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: "question ||| paragraph"; UserError where either is missing."""
    question, _, context = text.partition("|||")
    if not question.strip() or not context.strip():
        raise UserError("--text: give the question and the paragraph to answer it from, \"question ||| paragraph\"")
    return {"where": "--text", "id": "--text", "question": question.strip(), "context": context.strip(),
            "answers": None}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """The most probable span of each example's paragraph, in the order of the examples, none left out.

    A span is at most task.longest_answer tokens of the paragraph. In each window it has the probability of its start
    times that of its end, among all tokens of the window and the place that means "not here"; over all windows of the
    question these are made to sum to 1.

    Returns:
      `id`, `answer`, `probability`, and `start` and `end`, characters of the paragraph.
    """
    config, params = run.config, jax.device_put(run.params)
    compute = _program(config)
    encoded = task.encode_windows(config, run.tokenizer, examples)
    windows = [(number, window) for number, (found, _) in enumerate(encoded) for window in found]
    records = [window.record for _, window in windows]
    paragraphs = [(window.begin, window.stop) for _, window in windows]
    spans: list[Span | None] = [None] * len(records)
    tenth, done = max(len(records) // 10, 1), 0
    for members, batch in in_batches(config, task.RECIPE, records, batch_size):
        log_B2T = np.asarray(compute(params, batch))
        found = best_spans(log_B2T, [paragraphs[index] for index in members], config.task.longest_answer)
        for index, span in zip(members, found, strict=True):
            spans[index] = span
        if progress is not None and done // tenth != (done + len(members)) // tenth:
            progress(f"predicted {done + len(members):,} of {len(records):,} windows")
        done += len(members)
    of_example: list[list[tuple[task.Window, Span]]] = [[] for _ in examples]
    for (number, window), span in zip(windows, spans, strict=True):
        of_example[number].append((window, span))
    return [_prediction(example, token_spans, found)
            for example, (_, token_spans), found in zip(examples, encoded, of_example, strict=True)]


@functools.lru_cache(maxsize=4)
def _program(config: Config) -> Callable[[Any, Any], jax.Array]:
    """Log-probabilities of starts and ends of (params, batch), compiled."""
    return jax.jit(lambda params, batch: jax.nn.log_softmax(task.logits_of(config, params, batch)))


def best_spans(log_B2T: np.ndarray, paragraphs: Sequence[tuple[int, int]], longest: int) -> list[Span]:
    """The best span of each row whose tokens lie in its paragraph [first, last) and are at most `longest`.

    `log_B2T` are log-probabilities of starts and ends; rows past the paragraphs' number are not read.
    """
    num_rows, length = len(paragraphs), log_B2T.shape[2]
    time_T = np.arange(length)
    bounds_B2 = np.array(paragraphs)
    inside_BT = (time_T >= bounds_B2[:, :1]) & (time_T < bounds_B2[:, 1:])
    start_BT, end_BT = np.where(inside_BT[:, None], log_B2T[:num_rows].astype(np.float64), -np.inf).swapaxes(0, 1)
    best = {name: np.zeros(num_rows, int) for name in ("start", "end")}
    score_B, total_B = np.full(num_rows, -np.inf), np.full(num_rows, -np.inf)
    rows = np.arange(num_rows)
    for more in range(min(longest, length)):
        sums_BT = start_BT[:, :length - more] + end_BT[:, more:]
        place_B = sums_BT.argmax(axis=1)
        largest_B = sums_BT[rows, place_B]
        better_B = largest_B > score_B
        best["start"] = np.where(better_B, place_B, best["start"])
        best["end"] = np.where(better_B, place_B + more, best["end"])
        score_B = np.maximum(score_B, largest_B)
        total_B = np.logaddexp(total_B, np.logaddexp.reduce(sums_BT, axis=1))
    return [Span(int(best["start"][row]), int(best["end"][row]), float(score_B[row]), float(total_B[row]))
            for row in range(num_rows)]


def _prediction(example: Mapping[str, Any], token_spans: np.ndarray,
                found: Sequence[tuple[task.Window, Span]]) -> dict[str, Any]:
    window, span = max(found, key=lambda pair: pair[1].score)
    if span.score == -np.inf:  # An empty paragraph.
        return {"id": example["id"], "answer": "", "probability": 0.0, "start": 0, "end": 0}
    first, last = (place - window.begin + window.first for place in (span.start, span.end))
    start, end = int(token_spans[first, 0]), int(token_spans[last, 1])
    text = example["context"][start:end]
    start += len(text) - len(text.lstrip())
    answer = text.strip()
    total = np.logaddexp.reduce([span.total for _, span in found])
    return {"id": example["id"], "answer": answer, "probability": float(np.exp(span.score - total)), "start": start,
            "end": start + len(answer)}


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """exact_match and f1 in percent over every question of the split, by the rules of its language (squad_metrics)."""
    return measure([prediction["answer"] for prediction in predictions],
                   [[answer["text"] for answer in example["answers"]] for example in examples], rules_of(examples))
