"""Answers to many sources: batches of like length, a program for each of a few shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.config import Config
from purelm.data.example_batches import padded_length
from purelm.errors import UserError
from purelm.inference.beam_search import search
from purelm.inference.decode import generate
from purelm.inference.sampling import Sampler
from purelm.models import unstack_layers
from purelm.tasks.sequence_to_sequence import rooms


class Answer(NamedTuple):
    """ids_T: int32, without the end. log_probability: nats, of the tokens and the end together. finished: whether the
    model ended it (else decoding.max_new_tokens did)."""

    ids_T: np.ndarray
    log_probability: float
    finished: bool


def answer(config: Config, params: Any, sources: Sequence[np.ndarray], *, batch_size: int, end_id: int,
           vocabulary_size: int, progress: Callable[[str], None] | None = None) -> list[Answer]:
    """The answer to each source, in their order, found as config.decoding says.

    Args:
      config: a finalized config.
      params: the model's parameters.
      sources: ids of each source without its end, within `tasks.sequence_to_sequence.rooms`.
      batch_size: sources at once; the last batch is filled up, so that shapes stay few.
      end_id: the tokenizer's end of text.
      vocabulary_size: the tokenizer's; ids from it on are never drawn.
      progress: called with a line a tenth of the way.

    Raises UserError for logits that are not finite, and a beam with a decoder without an encoder.
    """
    run = _one_row if config.model.architecture == "decoder" else _two_sides
    if config.model.architecture != "recurrent_encoder_decoder":
        params = unstack_layers(params)
    order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
    answers: list[Answer | None] = [None] * len(sources)
    tenth = max(len(order) // 10, 1)
    for start in range(0, len(order), batch_size):
        numbers = order[start:start + batch_size]
        rows = [np.append(sources[number], np.int32(end_id)) for number in numbers]
        rows += [np.full(1, end_id, np.int32)] * (batch_size - len(rows))
        found = run(config, params, rows, end_id, vocabulary_size)
        for number, row in zip(numbers, found):
            answers[number] = row
        done = start + len(numbers)
        if progress is not None and start // tenth != done // tenth:
            progress(f"wrote {done:,} of {len(order):,}")
    return answers


def _two_sides(config: Config, params: Any, rows: list[np.ndarray], end_id: int, vocabulary_size: int) -> list[Answer]:
    """Greedy or beam search of an encoder-decoder."""
    length = padded_length(max(len(row) for row in rows), config.model.context_length, config.data.bucketing)
    source_BS, segments_BS = np.zeros((2, len(rows), length), np.int32)
    for number, row in enumerate(rows):
        source_BS[number, :len(row)] = row
        segments_BS[number, :len(row)] = 1
    found = jax.device_get(search(
        config.model, params, source_BS, segments_BS, beam_size=config.decoding.beam_size,
        max_new_tokens=rooms(config)[1], length_penalty=config.decoding.length_penalty, end_id=end_id,
        vocabulary_size=vocabulary_size))
    if not found.finite:
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    return _answers(found.ids_BT, found.lengths_B, found.finished_B, found.log_probability_B)


def _one_row(config: Config, params: Any, rows: list[np.ndarray], end_id: int, vocabulary_size: int) -> list[Answer]:
    """Greedy decoding after prompts of different lengths."""
    if config.decoding.beam_size > 1:
        raise UserError(f"config.decoding.beam_size={config.decoding.beam_size}: a decoder without an encoder decodes "
                        "greedily; set it to 1, or config.model.architecture to encoder_decoder")
    prompts_BT = np.full((len(rows), max(len(row) for row in rows)), end_id, np.int32)
    for number, row in enumerate(rows):
        prompts_BT[number, :len(row)] = row
    found = generate(
        config.model, params, prompts_BT, prompt_lengths_B=np.array([len(row) for row in rows]),
        max_new_tokens=rooms(config)[1], sampler=Sampler(temperature=0.0), key=jax.random.key(config.seed),
        stop_id=end_id, vocabulary_size=vocabulary_size)
    return _answers(found.ids_BT, found.lengths_B, found.stopped_B, found.log_probabilities_B)


def _answers(ids_BT: np.ndarray, lengths_B: np.ndarray, finished_B: np.ndarray,
             log_probabilities_B: np.ndarray) -> list[Answer]:
    kept_B = lengths_B - finished_B
    return [Answer(np.asarray(ids_T[:kept]), float(log_probability), bool(finished))
            for ids_T, kept, log_probability, finished in zip(ids_BT, kept_B, log_probabilities_B, finished_B)]
