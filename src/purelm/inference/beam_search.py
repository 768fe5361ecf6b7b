"""Beam search with a length penalty, for every model that writes, the whole loop in one compiled program.

The loop knows of a model only `start_prompts` or `start_sources`, `step` and `follow` (models/hypotheses.py). Each step
extends the K hypotheses of a row by every token and keeps the best. Those that end among the K best extensions are
finished, and the best finished ones are remembered; the K best that do not end go on. A row is done when K hypotheses
have finished, or when none that goes on can come to be among the best finished ones that are asked for; so with K = 1
this is greedy decoding. Hypotheses are compared by

    log p(y) / ((5 + |y|) / 6)^alpha,    |y| with the end     (Wu et al. 2016, arXiv 1609.08144, eq. 14)

Diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424, algorithm 1) divides the K hypotheses into groups, each
a beam of its own, chosen one after another in each step: what a group adds to log p(y) is log p of the token less the
diversity penalty times how many hypotheses of the groups before go on with the same token now (Hamming diversity). As
in the authors' code this stays in what the group's hypotheses are compared by from then on.

What a row answers does not depend on the rows beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.automata import TokenAutomaton
from purelm.inference.beam_loop import Found, Rules, run
from purelm.inference.beam_rules import check_sampler
from purelm.inference.checks import check_call, checked_prompt
from purelm.inference.sampling import Sampler, check_ids
from purelm.inference.stops import StopIds, stop_array, stop_tuple
from purelm.models import hypotheses, unstack_layers

_STATIC = ("config", "beam_size", "max_new_tokens", "vocabulary_size", "num_best", "num_groups", "sampler")


@functools.partial(jax.jit, static_argnames=(*_STATIC, "stop_id"))
def search(config: ModelConfig, params: Any, source_BS: jax.Array, source_segments_BS: jax.Array, *, beam_size: int,
           max_new_tokens: int, length_penalty: float, target_start: Sequence[int], stop_id: StopIds,
           vocabulary_size: int, num_best: int = 1, num_groups: int = 1, diversity_penalty: float = 0.0,
           sampler: Sampler | None = None, constraint: TokenAutomaton | None = None) -> Found:
    """The likeliest targets of each source that a beam of `beam_size` finds.

    Args:
      config: of an encoder-decoder, Transformer or recurrent, with vocabulary_size set.
      params: its parameters.
      source_BS, source_segments_BS: ids, and 1 (0 is padding).
      beam_size: K, hypotheses a row; 1 is greedy.
      max_new_tokens: at most so many tokens, the end among them. A row in which fewer than num_best have finished by
        then answers with the likeliest that have not, after those that have.
      length_penalty: alpha, from 0.
      target_start: ids that are read before a target; those after the first are a beginning that it must have.
      stop_id: ends a target; of several, in a tuple, each does. None: all have max_new_tokens.
      vocabulary_size: ids from it on are never taken.
      num_best: N, hypotheses that are answered a row, at most K.
      num_groups: G, which divides K; 1 is plain beam search.
      diversity_penalty: from 0, nats, of diverse beam search.
      sampler: its penalties, logit_bias, banned, forced and min_new_tokens; it draws nothing.
      constraint: what hypotheses may be, token by token.

    Raises UserError for numbers out of their range.
    """
    check_beams(beam_size, max_new_tokens, num_best, num_groups)
    check_sampler(sampler)
    rows = source_BS.shape[0]
    step = functools.partial(hypotheses.step, config, params)
    state = hypotheses.start_sources(config, params, source_BS, source_segments_BS, beam_size=beam_size,
                                     length=len(target_start) - 1 + max_new_tokens)
    for given in target_start[:-1]:
        _, state = step(jnp.full((rows, beam_size), given, jnp.int32), state)
    rules = Rules(num_best, num_groups, max_new_tokens, vocabulary_size, sampler, constraint, length_penalty,
                  diversity_penalty, jnp.asarray(stop_array(stop_id)))
    return run(rules, step, hypotheses.follow, state,
               last_BK=jnp.full((rows, beam_size), target_start[-1], jnp.int32),
               prompt_BP=jnp.zeros((rows, 0), jnp.int32))


def search_prompts(config: ModelConfig, params: Any, prompt_ids_BT: Any, prompt_lengths_B: Any, *, beam_size: int,
                   max_new_tokens: int, length_penalty: float, stop_id: StopIds, vocabulary_size: int,
                   num_best: int = 1, num_groups: int = 1, diversity_penalty: float = 0.0,
                   sampler: Sampler | None = None, constraint: TokenAutomaton | None = None) -> Found:
    """The likeliest continuations of each prompt that a beam of `beam_size` finds: `search` for language models.

    Args, where they differ from `search`'s:
      config: of a decoder or a recurrent network.
      params: `unstack_layers(params)` spares repeated calls a copy of the layers each.
      prompt_ids_BT, prompt_lengths_B: integers; row b's prompt is its first prompt_lengths_B[b] ids (None: all),
        at least one. What follows them is not read.
      stop_id: ends a hypothesis; of several, in a tuple, each does. None: all have max_new_tokens.

    Answers NumPy arrays. Raises UserError for an empty prompt, ids outside of the vocabulary, a prompt that with
    max_new_tokens is longer than the context (a recurrent network has none), a constraint without stop_id, logits that
    are not finite, and as `search`. One program is compiled for each config, batch size and bucket of prompt lengths
    (powers of two).
    """
    check_beams(beam_size, max_new_tokens, num_best, num_groups)
    check_sampler(sampler)
    prompt_BT, lengths_B = _checked_prompts(config, prompt_ids_BT, prompt_lengths_B, max_new_tokens, vocabulary_size)
    check_call(config, max_new_tokens, stop_id, vocabulary_size)
    for name, value in (("length_penalty", length_penalty), ("diversity_penalty", diversity_penalty)):
        if not 0 <= value < np.inf:
            raise UserError(f"{name} is {value}; it must be 0 (none) or a positive number")
    if constraint is not None and not stop_tuple(stop_id):
        raise UserError("a constraint needs stop_id, the token that ends what it allows: give the end of text's id")
    if sampler is not None:
        check_ids(sampler, vocabulary_size)
    found = jax.device_get(_search_prompts(
        config, params, prompt_BT, lengths_B, beam_size=beam_size, max_new_tokens=max_new_tokens,
        length_penalty=np.float32(length_penalty), stop_ids_S=stop_array(stop_id),
        vocabulary_size=vocabulary_size, num_best=num_best, num_groups=num_groups,
        diversity_penalty=np.float32(diversity_penalty), sampler=sampler, constraint=constraint))
    if not found.finite:
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    return found


@functools.partial(jax.jit, static_argnames=_STATIC)
def _search_prompts(config, params, prompt_BT, lengths_B, *, beam_size, max_new_tokens, length_penalty, stop_ids_S,
                    vocabulary_size, num_best, num_groups, diversity_penalty, sampler, constraint) -> Found:
    if config.architecture == "decoder":
        # Once, before the loop: a step that sliced the stack would copy every layer for every token.
        params = unstack_layers(params)
    state = hypotheses.start_prompts(
        config, params, prompt_BT, lengths_B, beam_size=beam_size, length=max_new_tokens)
    last_B1 = jnp.take_along_axis(prompt_BT, lengths_B[:, None] - 1, axis=1)
    rules = Rules(num_best, num_groups, max_new_tokens, vocabulary_size, sampler, constraint, length_penalty,
                  diversity_penalty, stop_ids_S)
    return run(rules, functools.partial(hypotheses.step, config, params), hypotheses.follow, state,
               last_BK=jnp.repeat(last_B1, beam_size, axis=1),
               prompt_BP=jnp.where(jnp.arange(prompt_BT.shape[1]) < lengths_B[:, None], prompt_BT, -1))


def check_beams(beam_size: int, max_new_tokens: int, num_best: int, num_groups: int) -> None:
    """UserError for numbers that do not go together."""
    if beam_size < 1:
        raise UserError(f"beam_size is {beam_size}; it must be 1 (greedy) or more")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
    if not 1 <= num_best <= beam_size:
        raise UserError(f"num_best is {num_best}; it must be from 1 to beam_size={beam_size}")
    if num_groups < 1 or beam_size % num_groups:
        raise UserError(f"num_groups is {num_groups}; it must be a number that divides beam_size={beam_size}")


def _checked_prompts(config: ModelConfig, prompt_ids_BT: Any, prompt_lengths_B: Any, max_new_tokens: int,
                     vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [B, a power of two or the context], 0 past each row's prompt; int32 [B] lengths)."""
    prompt_BT, lengths_B = checked_prompt(prompt_ids_BT, prompt_lengths_B, vocabulary_size)
    longest, context = int(lengths_B.max()), config.context_length
    size = max(16, 1 << (longest - 1).bit_length())
    if config.architecture != "recurrent":
        if longest + max_new_tokens > context:
            raise UserError(f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} do not fit "
                            f"config.model.context_length={context}: beams do not go past it; ask for at most "
                            f"{max(context - longest, 0)} tokens")
        size = min(size, context)
    prompt_BT = prompt_BT[:, :longest]
    return np.pad(prompt_BT, ((0, 0), (0, size - longest))), lengths_B
