"""Answers to many sources: batches of like length, a program for each of a few shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from purelm.config import Config
from purelm.data.example_batches import padded_length
from purelm.data.tokenizers import SpecialIds
from purelm.errors import UserError
from purelm.inference.beam_search import search, search_prompts
from purelm.inference.decode import generate
from purelm.inference.prompts import configured_sampler
from purelm.inference.sampling import Sampler
from purelm.models import unstack_layers
from purelm.tasks.sequence_to_sequence import framed_source, rooms


class Answer(NamedTuple):
    """ids_T: int32, without the end. log_probability: nats, of the tokens and the end together. finished: whether the
    model ended it (else decoding.max_new_tokens did). best: of a beam, the num_best answers, this one the first."""

    ids_T: np.ndarray
    log_probability: float
    finished: bool
    best: tuple[Answer, ...] = ()


class _Batch(NamedTuple):
    """Sources of one batch, as the model reads them, and the numbers of their rows among all."""

    rows: list[np.ndarray]
    numbers_B: np.ndarray
    special: SpecialIds
    vocabulary_size: int


def answer(config: Config, params: Any, sources: Sequence[np.ndarray], *, batch_size: int, special: SpecialIds,
           vocabulary_size: int, progress: Callable[[str], None] | None = None) -> list[Answer]:
    """The answer to each source, in their order, found as config.decoding says.

    Args:
      config: a finalized config.
      params: the model's parameters.
      sources: ids of each source without what stands around it, within `tasks.sequence_to_sequence.rooms`.
      batch_size: sources at once; the last batch is filled up, so that shapes stay few.
      special: the tokenizer's: what stands around a source, starts a target and ends it. What a target always begins
        with is given, and counts among decoding.max_new_tokens.
      vocabulary_size: the tokenizer's; ids from it on are never drawn.
      progress: called with a line a tenth of the way.

    What is drawn for a source depends on config.seed and on its place, not on its batch. Raises UserError for logits
    that are not finite.
    """
    write = _draw if config.decoding.beam_size == 1 else _search
    if config.model.architecture != "recurrent_encoder_decoder":
        params = unstack_layers(params)
    order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
    answers: list[Answer | None] = [None] * len(sources)
    tenth = max(len(order) // 10, 1)
    for start in range(0, len(order), batch_size):
        numbers = order[start:start + batch_size]
        rows = [framed_source(special, sources[number]) for number in numbers]
        rows += [framed_source(special, sources[numbers[0]][:1])] * (batch_size - len(rows))
        numbers_B = np.array(numbers + [0] * (batch_size - len(numbers)))
        found = write(config, params, _Batch(rows, numbers_B, special, vocabulary_size))
        for number, row in zip(numbers, found):
            answers[number] = row
        done = start + len(numbers)
        if progress is not None and start // tenth != done // tenth:
            progress(f"wrote {done:,} of {len(order):,}")
    return answers


def _draw(config: Config, params: Any, batch: _Batch) -> list[Answer]:
    """Token by token, as the sampler of config.decoding says: greedily, where it is not set."""
    keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(config.seed), batch.numbers_B)
    options: dict[str, Any] = {}
    if config.model.architecture == "decoder":
        prompts_BT, options["prompt_lengths_B"] = _prompts(batch)
    else:
        prompts_BT = np.tile(np.array(batch.special.target_start, np.int32), (len(batch.rows), 1))
        options["source_BS"], options["source_segments_BS"] = _sources(config, batch)
    found = generate(
        config.model, params, prompts_BT, max_new_tokens=_new_tokens(config, batch),
        sampler=_sampler(config, batch), key=keys_B, stop_id=batch.special.stop,
        vocabulary_size=batch.vocabulary_size, **options)
    return _answers(found.ids_BT, found.lengths_B, found.stopped_B, found.log_probabilities_B)


def _search(config: Config, params: Any, batch: _Batch) -> list[Answer]:
    """By a beam."""
    decoding = config.decoding
    options = {"beam_size": decoding.beam_size, "max_new_tokens": _new_tokens(config, batch),
               "num_best": decoding.num_best, "length_penalty": decoding.length_penalty,
               "vocabulary_size": batch.vocabulary_size,
               "num_groups": decoding.beam_groups, "diversity_penalty": decoding.diversity_penalty,
               "sampler": _sampler(config, batch), "stop_id": batch.special.stop}
    if config.model.architecture == "decoder":
        found = search_prompts(config.model, params, *_prompts(batch), **options)
    else:
        found = jax.device_get(search(config.model, params, *_sources(config, batch),
                                      target_start=batch.special.target_start, **options))
    if not found.finite:
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    best = [_answers(*columns) for columns in zip(*(
        np.swapaxes(leaf, 0, 1)
        for leaf in (found.ids_BNT, found.lengths_BN, found.finished_BN, found.log_probability_BN)))]
    return [answers[0]._replace(best=answers if decoding.num_best > 1 else ()) for answers in zip(*best)]


def _sampler(config: Config, batch: _Batch) -> Sampler:
    sampler = configured_sampler(config.decoding)
    if not config.decoding.force_end:
        return sampler
    return dataclasses.replace(sampler, forced=((_new_tokens(config, batch) - 1, batch.special.stop[0]),))


def _new_tokens(config: Config, batch: _Batch) -> int:
    """At most so many after what a target always begins with."""
    begun = 0 if config.model.architecture == "decoder" else len(batch.special.target_start) - 1
    return rooms(config)[1] - begun


def _sources(config: Config, batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
    """(source_BS, segments_BS), padded to one of a few lengths."""
    length = padded_length(max(map(len, batch.rows)), config.model.context_length, config.data.bucketing)
    source_BS, segments_BS = np.zeros((2, len(batch.rows), length), np.int32)
    for number, row in enumerate(batch.rows):
        source_BS[number, :len(row)] = row
        segments_BS[number, :len(row)] = 1
    return source_BS, segments_BS


def _prompts(batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
    """(prompts_BT, their lengths) of a decoder, which goes on from the source."""
    prompts_BT = np.zeros((len(batch.rows), max(map(len, batch.rows))), np.int32)
    for number, row in enumerate(batch.rows):
        prompts_BT[number, :len(row)] = row
    return prompts_BT, np.array([len(row) for row in batch.rows])


def _answers(ids_BT: np.ndarray, lengths_B: np.ndarray, finished_B: np.ndarray,
             log_probabilities_B: np.ndarray) -> list[Answer]:
    kept_B = lengths_B - finished_B
    return [Answer(np.asarray(ids_T[:kept]), float(log_probability), bool(finished))
            for ids_T, kept, log_probability, finished in zip(ids_BT, kept_B, log_probabilities_B, finished_B)]
