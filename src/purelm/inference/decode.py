"""Generation: prefill and the whole token loop in one compiled program (see decode_loop.py).

Every token is drawn from the model's own window: with context_length C, the token at position t of a text sees the
tokens from `window_start(t, C)` to t - 1, all of them while they fit in C, and else the last C/2 to C, for every
position scheme, so that no model reads positions that it was not trained on. A window that is full starts again with
its last half (the cache is filled anew), which costs one prefill every C/2 tokens. What a token is drawn from so
depends on the text before it alone, not on where the prompt ended. A recurrent network's state has no such end: it
sees the whole text. A target that is written after a source stays inside of the context.

Prompts of different lengths run in lock step from the end of the shortest: where a row's own prompt goes on, its next
token is taken in place of the drawn one. So every row is what it would be alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.automata import TokenAutomaton, exhausted
from purelm.inference.checks import check_call, check_options, checked_prompt, checked_source, row_keys
from purelm.inference.decode_loop import (
    ENDLESS,
    NOT_A_NUMBER,
    Inputs,
    Plan,
    Reason,
    Rows,
    Sizes,
    run,
    window_of,
    window_start,
)
from purelm.inference.sampling import Sampler, check_ids
from purelm.inference.steps import CacheKind, Source
from purelm.inference.stops import StopIds, padding, stop_array, stop_tuple

__all__ = ["Generated", "Reason", "generate", "window_start"]


class Generated(NamedTuple):
    """What `generate` answers.

    ids_BT: int32 [B, max_new_tokens], the new ids alone; after a row's end, the first stop_id (0 where there is none).
    lengths_B: int32, how many of a row's ids were generated, its stop_id and its stop string included.
    stopped_B: bool, whether the row ended with stop_id.
    log_probabilities_B: float32, nats: of those ids, summed, under the model itself (temperature 1, nothing dropped).
    reasons_B: int32, why each row ended (see `Reason`).
    log_probabilities_BT: where asked for, the same of each id; 0 after a row's end.
    alternative_ids_BTJ, alternatives_BTJ: where asked for, the J likeliest ids at each place, the likeliest first, and
    their log-probabilities.
    """

    ids_BT: np.ndarray
    lengths_B: np.ndarray
    stopped_B: np.ndarray
    log_probabilities_B: np.ndarray
    reasons_B: np.ndarray | None = None
    log_probabilities_BT: np.ndarray | None = None
    alternative_ids_BTJ: np.ndarray | None = None
    alternatives_BTJ: np.ndarray | None = None


def generate(
    config: ModelConfig,
    params: Any,
    prompt_ids_BT: Any,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    key: jax.Array,
    prompt_lengths_B: Any = None,
    stop_id: StopIds = None,
    vocabulary_size: int | None = None,
    num_samples: int = 1,
    stop: TokenAutomaton | None = None,
    constraint: TokenAutomaton | None = None,
    log_probabilities: int | Literal[False] = False,
    source_BS: Any = None,
    source_segments_BS: Any = None,
    cache: CacheKind = "full",
) -> Generated:
    """Continues prompts by `max_new_tokens` tokens, or until every row has ended.

    Args:
      config: of a decoder, a recurrent network or an encoder-decoder of either kind, with vocabulary_size set.
      params: its parameters; `unstack_layers(params)` spares repeated calls a copy of the layers each.
      prompt_ids_BT: integers [B, T], at least one token a row; may be longer than the context. After a source, the
        token that targets start with, and more where the target's beginning is forced.
      max_new_tokens: at most so many a row, also past the context (see the module's docstring).
      sampler: how tokens are drawn.
      key: one random key, of which row r uses fold_in(key, r), or an array of B * num_samples typed keys, one a row.
        The token at position t is drawn with fold_in(row's key, t): a row does not depend on the others, nor a token
        on the prompt's length.
      prompt_lengths_B: tokens of each row's prompt, where they differ; what follows them in prompt_ids_BT is not
        read. Rows wait for the longest prompt, so give prompts of like length together.
      stop_id: ends a row; of several, in a tuple, each does.
      vocabulary_size: the tokenizer's, where the model's is padded: ids from it on are never drawn.
      num_samples: n continuations of each prompt, from one prefill: the answer has B * n rows, row b's sample i at
        b * n + i, each what it would be were its prompt given n times.
      stop: strings that end a row once they are written (automata.stop_strings).
      constraint: what may be written (automata.regex, automata.json_schema).
      log_probabilities: J from 0 to 20, to give each token's log-probability and the J likeliest at its place.
      source_BS, source_segments_BS: of an encoder-decoder, ids and 1, or 0 for padding (none has no padding).
      cache: of a decoder. full; rolling, for a model with attention_window, keeps the window alone; int8 rounds keys
        and values to 8 bits.

    Raises UserError for an empty prompt, prompt ids or a stop_id outside of the vocabulary, max_new_tokens < 0, more
    target than the context has, options that this model does not have, or logits that are not finite.
    One program is compiled for each config, sampler, batch size, kind of options and bucket of lengths (`sizes_for`).
    """
    vocabulary_size = config.vocabulary_size if vocabulary_size is None else vocabulary_size
    prompt_BT, prompt_lengths_B = checked_prompt(prompt_ids_BT, prompt_lengths_B, vocabulary_size)
    check_call(config, max_new_tokens, stop_id, vocabulary_size)
    check_ids(sampler, vocabulary_size)
    source = checked_source(config, source_BS, source_segments_BS, prompt_lengths_B, max_new_tokens)
    check_options(config, num_samples, log_probabilities, cache)
    keys_B = row_keys(key, len(prompt_BT) * num_samples)
    alternatives = None if log_probabilities is False else min(log_probabilities, vocabulary_size)

    def call(rows: np.ndarray) -> Generated:
        lengths_B = prompt_lengths_B[rows]
        samples = (rows[:, None] * num_samples + np.arange(num_samples)).reshape(-1)
        return _generate(
            Plan(config, sampler, sizes_for(config, *bounds(config, lengths_B, max_new_tokens)), vocabulary_size,
                 num_samples, alternatives, cache),
            params, prompt_BT[rows, :lengths_B.max()], lengths_B, max_new_tokens=max_new_tokens, stop_id=stop_id,
            keys_B=keys_B if len(rows) == len(prompt_BT) else keys_B[samples], stop=stop, constraint=constraint,
            source=source)

    return by_length(config, prompt_lengths_B, call, num_samples=num_samples)


def by_length(config: ModelConfig, prompt_lengths_B: np.ndarray, call: Callable[[np.ndarray], Generated], *,
              num_samples: int = 1) -> Generated:
    """`call` of all rows; of rows of one length at a time where a prompt is read both ways, and so at once."""
    if not config.prefix_attention or len(set(prompt_lengths_B.tolist())) == 1:
        return call(np.arange(len(prompt_lengths_B)))
    groups = [np.flatnonzero(prompt_lengths_B == length) for length in sorted(set(prompt_lengths_B.tolist()))]
    parts = [call(rows) for rows in groups]
    order = np.concatenate(groups)[:, None] * num_samples + np.arange(num_samples)
    back = np.argsort(order.reshape(-1))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)


def bounds(config: ModelConfig, prompt_lengths_B: np.ndarray, max_new_tokens: int) -> tuple[int, int]:
    """(end of the shortest prompt, end of the text), both from the start of the first window."""
    shortest, longest = int(prompt_lengths_B.min()), int(prompt_lengths_B.max())
    origin = window_start(shortest, window_of(config))
    return shortest - origin, longest - origin + max_new_tokens


def _generate(plan: Plan, params: Any, prompt_BT: np.ndarray, prompt_lengths_B: np.ndarray, *, max_new_tokens: int,
              stop_id: StopIds, **options: Any) -> Generated:
    """`generate` of checked prompts, of one length each where the model has prefix_attention."""
    inputs = make_inputs(plan.config, plan.sizes, prompt_BT, prompt_lengths_B, max_new_tokens=max_new_tokens,
                         stop_id=stop_id, num_samples=plan.num_samples, **options)
    return answer_of(jax.device_get(run(plan, params, inputs)), inputs.rows.starts_B, max_new_tokens, stop_id)


def make_inputs(config: ModelConfig, sizes: Sizes, prompt_BT: np.ndarray, prompt_lengths_B: np.ndarray, *,
                max_new_tokens: int, stop_id: StopIds, num_samples: int = 1, keys_B: jax.Array | None = None,
                stop: TokenAutomaton | None = None, constraint: TokenAutomaton | None = None,
                source: Source | None = None) -> Inputs:
    """What a loop is given, in arrays of `sizes`; num_samples rows a prompt."""
    shortest, longest = int(prompt_lengths_B.min()), int(prompt_lengths_B.max())
    # The tokens before the first window are never seen; window_start commutes with cropping them.
    origin = window_start(shortest, window_of(config))
    ids_BX = np.zeros((len(prompt_BT), sizes.buffer), np.int32)
    ids_BX[:, :longest - origin] = prompt_BT[:, origin:longest]
    starts_B = np.repeat((prompt_lengths_B - origin).astype(np.int32), num_samples)
    stop = None if stop is None else _padded(stop)
    constraint = None if constraint is None else _padded(constraint)
    return Inputs(
        ids_BX=np.repeat(ids_BX, num_samples, axis=0), rows=Rows(starts_B, starts_B + np.int32(max_new_tokens)),
        origin=np.int32(origin), keys_B=keys_B, stop_ids_S=stop_array(stop_id), stop=stop,
        constraint=constraint, ended_Q=None if constraint is None else _dead_ends(constraint, stop_id), source=source)


def answer_of(state: Any, starts_B: np.ndarray, max_new_tokens: int, stop_id: StopIds) -> Generated:
    """What the loop left behind, cut to each row's own new tokens. Raises UserError for logits that were not finite."""
    columns_BT = starts_B[:, None] + np.arange(max_new_tokens)
    written_BT = np.arange(max_new_tokens) < state.lengths_B[:, None]
    new_BT = np.take_along_axis(state.ids_BX, columns_BT, axis=1)
    if (written_BT & (new_BT == NOT_A_NUMBER)).any():
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    new_BT = np.where(written_BT, new_BT, padding(stop_id))
    generated = Generated(new_BT, state.lengths_B, state.reasons_B == Reason.STOP_ID, state.log_probabilities_B,
                          state.reasons_B)
    if state.likely is None:
        return generated
    each_BT = np.take_along_axis(state.likely.log_probabilities_BX, columns_BT, axis=1)
    generated = generated._replace(log_probabilities_BT=np.where(written_BT, each_BT, 0))
    if state.likely.ids_BXJ is None:
        return generated
    ids_BTJ, values_BTJ = (np.take_along_axis(leaf, columns_BT[..., None], axis=1)
                           for leaf in (state.likely.ids_BXJ, state.likely.alternatives_BXJ))
    return generated._replace(alternative_ids_BTJ=ids_BTJ, alternatives_BTJ=values_BTJ)


def sizes_for(config: ModelConfig, prompt_length: int, end: int) -> Sizes:
    """Shapes for positions up to `end`, rounded up so that near lengths share a program.

    The prefill (all but the last token of a window; all where the prompt is read both ways) is rounded to a power of
    two, the cache, which every step reads whole, to a multiple of 64; neither beyond the context, and both padded on
    the right, where no query looks.
    """
    context_length = ENDLESS if config.architecture == "recurrent" else config.context_length
    slides = end > context_length + 1
    prefill = prompt_length - 1 if not slides else max(prompt_length - 1, context_length // 2)
    prefill = min(power_of_two(prefill + config.prefix_attention), context_length)
    cache = min(max(-(-end // 64) * 64, prefill), context_length)
    return Sizes(buffer=power_of_two(end + prefill), prefill=prefill, cache=cache)


def power_of_two(size: int) -> int:
    """The next one from `size` on, at least 16."""
    return max(16, 1 << max(size - 1, 0).bit_length())


def _padded(automaton: TokenAutomaton) -> TokenAutomaton:
    """The same with sizes that many automata share, so that they share a program."""
    num_states, num_classes = automaton.next_QC.shape
    next_QC = np.full((power_of_two(num_states), power_of_two(num_classes)), -1, np.int32)
    next_QC[:num_states, :num_classes] = automaton.next_QC
    final_Q = np.zeros(len(next_QC), bool)
    final_Q[:num_states] = automaton.final_Q
    return TokenAutomaton(np.asarray(automaton.classes_V), next_QC, final_Q)


def _dead_ends(constraint: TokenAutomaton, stop_id: StopIds) -> np.ndarray:
    """bool [Q]: the states in which nothing can be written, not even a stop id."""
    exhausted_Q = exhausted(constraint, np.arange(len(constraint.next_QC)))
    return exhausted_Q & ~constraint.final_Q if stop_tuple(stop_id) else exhausted_Q
