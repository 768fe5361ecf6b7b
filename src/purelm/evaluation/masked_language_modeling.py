"""Masked language modeling: what stands in a text's gaps, or how likely each of its tokens is beside the others.

What a split is judged by is the loss of its hidden tokens, which needs no answers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.config import Config
from purelm.data.example_batches import padded_length
from purelm.errors import UserError
from purelm.evaluation.marks import MARK, count_marks, encode_marked
from purelm.tasks import masked_language_modeling as task
from purelm.tasks.head_statistics import head_logits_of
from purelm.training.load import LoadedRun

Progress = Callable[[str], None]
_SHOWN = 5


class _Frame(NamedTuple):
    """What stands around a text."""

    start: tuple[int, ...]
    end: tuple[int, ...]

    def places(self, row: np.ndarray) -> np.ndarray:
        """Where the tokens of the text itself are."""
        return np.arange(len(self.start), len(row) - len(self.end))


def input_format(config: Config) -> str:
    """The format of new rows."""
    return "text"


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: a text, with [MASK] for each token to be found, or without."""
    return {"where": "--text", "text": text}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """What stands in each text's gaps; of a text without any, its pseudo-log-likelihood.

    Returns:
      with gaps: `text` with the most probable token in each, their `probability` together, and `fills`: of each gap the
      five most probable tokens, [token, probability].
      without: `text`; `log_probability`, the sum over tokens of the log-probability (nats) of each where it alone is
      hidden (Salazar et al. 2020, arXiv 1910.14659, equation 1); `probability`, the geometric mean of the tokens'.

    Raises UserError for a text that does not fit the context, or has no tokens.
    """
    frame = _frame(run)
    rows = [_row(run, example) for example in examples]
    hidden = [np.flatnonzero(row == task.mask_id(run.tokenizer)) for row in rows]
    queries: list[tuple[np.ndarray, int]] = []
    for row, places in zip(rows, hidden, strict=True):
        if len(places):
            queries += [(row, int(place)) for place in places]
            continue
        for place in frame.places(row):
            query = row.copy()
            query[place] = task.mask_id(run.tokenizer)
            queries.append((query, int(place)))
    found = iter(_log_probabilities(run, queries, batch_size, progress))
    return [_filled(run, row, places, [next(found) for _ in places], frame) if len(places)
            else _likelihood(example, row[frame.places(row)], [next(found) for _ in frame.places(row)])
            for example, row, places in zip(examples, rows, hidden, strict=True)]


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nothing: the loss of the hidden tokens says it."""
    return {}


def _frame(run: LoadedRun) -> _Frame:
    special = run.tokenizer.special
    return _Frame(special.start, special.end) if run.config.data.end_of_text else _Frame((), ())


def _row(run: LoadedRun, example: Mapping[str, Any]) -> np.ndarray:
    tokenizer, text, frame = run.tokenizer, example["text"], _frame(run)
    if tokenizer.special.mask is not None:  # Its own mark is understood too, "<mask>" of RoBERTa.
        text = text.replace(tokenizer.decode([tokenizer.special.mask]).strip(), MARK)
    ids = encode_marked(tokenizer, text, [task.mask_id(tokenizer)] * count_marks(text))
    if not len(ids):
        raise UserError(f"{example['where']}: a text without tokens; give some")
    ids = np.concatenate([frame.start, ids, frame.end]).astype(np.int32)
    if len(ids) > run.config.model.context_length:
        raise UserError(f"{example['where']}: {len(ids)} tokens do not fit config.model.context_length="
                        f"{run.config.model.context_length}; give a shorter text, {MARK} and all")
    return ids


@functools.lru_cache(maxsize=4)
def _program(config: Config, base_size: int) -> Callable[[Any, Any], jax.Array]:
    """Log-probabilities [B, base_size] at the one place of each row of (params, batch), compiled."""
    @jax.jit
    def compute(params, batch):
        x_B1D = task.features_of(config, params, batch, None)
        return jax.nn.log_softmax(head_logits_of(config, params, x_B1D)[:, 0, :base_size])

    return compute


def _log_probabilities(run: LoadedRun, queries: Sequence[tuple[np.ndarray, int]], batch_size: int,
                       progress: Progress | None) -> list[np.ndarray]:
    """Of each (row, place): log-probabilities [base_size] of the tokens that stand for text."""
    config, params = run.config, jax.device_put(run.params)
    compute = _program(config, run.tokenizer.base_size)
    order = sorted(range(len(queries)), key=lambda number: -len(queries[number][0]))
    found: list[Any] = [None] * len(queries)
    for start in range(0, len(order), batch_size):
        members = order[start:start + batch_size]
        length = padded_length(len(queries[members[0]][0]), config.model.context_length, bucketing=True)
        output = np.asarray(compute(params, _batch([queries[number] for number in members], batch_size, length)))
        for row, number in enumerate(members):
            found[number] = output[row]
        if progress is not None:
            progress(f"predicted {start + len(members):,} of {len(queries):,} tokens")
    return found


def _batch(queries: Sequence[tuple[np.ndarray, int]], rows: int, length: int) -> dict[str, np.ndarray]:
    batch = {name: np.zeros((rows, length), np.int32) for name in ("tokens", "segments")}
    batch["segments"][:, 0] = 1
    batch["positions"] = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy()
    batch["masked_positions"] = np.zeros((rows, 1), np.int32)
    for row, (ids, place) in enumerate(queries):
        batch["tokens"][row, :len(ids)], batch["segments"][row, :len(ids)] = ids, 1
        batch["masked_positions"][row] = place
    return batch


def _filled(run: LoadedRun, row: np.ndarray, places: np.ndarray, found: Sequence[np.ndarray],
            frame: _Frame) -> dict[str, Any]:
    ids, fills, total = row.copy(), [], 0.0
    for place, log_V in zip(places, found, strict=True):
        best = np.argsort(-log_V, kind="stable")[:_SHOWN]
        ids[place] = best[0]
        total += float(log_V[best[0]])
        fills.append([[run.tokenizer.decode([number]), math.exp(log_V[number])] for number in best.tolist()])
    text = run.tokenizer.decode(ids[frame.places(ids)])
    return {"text": text, "probability": math.exp(total), "fills": fills}


def _likelihood(example: Mapping[str, Any], ids: np.ndarray, found: Sequence[np.ndarray]) -> dict[str, Any]:
    total = sum(float(log_V[number]) for log_V, number in zip(found, ids.tolist(), strict=True))
    return {"text": example["text"], "log_probability": total, "probability": math.exp(total / len(ids))}
