"""Contrastive search: likely tokens that do not repeat what the text has said, in one compiled loop.

Su et al. 2022, arXiv 2202.06417, equation 5: the next token is, of the k most probable,

    argmax_v (1 - alpha) p(v | x_<t) - alpha max_j cos(h_v, h_{x_j}),    j before t,

h the hidden state that the output layer reads, of the candidate v read after x_<t and of the tokens before it. Nothing
is drawn; alpha = 0 or k = 1 is greedy. Probabilities are those of the window rule of decode.py; a candidate at position
t, and so the tokens that it is compared with, are read in the window of position t + 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.automata import TokenAutomaton
from purelm.inference.checks import check_call, checked_prompt
from purelm.inference.decode import Generated, answer_of, bounds, by_length, make_inputs, sizes_for
from purelm.inference.decode_loop import (
    Inputs,
    Sizes,
    State,
    finished,
    first_state,
    given,
    judged,
    window_of,
    window_start,
    write,
)
from purelm.inference.sampling import mask_vocabulary
from purelm.inference.stops import StopIds
from purelm.models import init_cache, make_model, unstack_layers
from purelm.models.attention_forms import softcap
from purelm.models.cache import take_cache_rows
from purelm.models.head import head_logits


class _Plan(NamedTuple):
    """All that a program is compiled for."""

    config: ModelConfig
    sizes: Sizes
    top_k: int
    vocabulary_size: int


class _Reader(NamedTuple):
    """A model as functions. read: (tokens_BT, memory, (their position, how many are no padding) of a prefill) ->
    (x_BTD that the output layer reads, memory). logits: x_BD -> logits_BV. take_rows as of steps.Steps. forget: the
    memory before any token. columns: of hidden states, as many as a window has tokens."""

    memory: Any
    read: Callable[[jax.Array, Any, tuple[jax.Array, jax.Array] | None], tuple[jax.Array, Any]]
    logits: Callable[[jax.Array], jax.Array]
    take_rows: Callable[[Any, jax.Array], Any]
    forget: Callable[[Any], Any]
    columns: int


class _Memory(NamedTuple):
    """What is known before the token at `position` is chosen: the model's memory of the tokens from `start`, which
    begins the window of position + 1, their hidden states of length 1 by place in it, and the logits."""

    model: Any
    start: jax.Array
    hidden_BCD: jax.Array
    logits_BV: jax.Array


def contrastive_search(
    config: ModelConfig,
    params: Any,
    prompt_ids_BT: Any,
    *,
    max_new_tokens: int,
    top_k: int,
    alpha: float,
    prompt_lengths_B: Any = None,
    stop_id: StopIds = None,
    vocabulary_size: int | None = None,
    stop: TokenAutomaton | None = None,
) -> Generated:
    """Continues prompts; the arguments that are not listed are those of `generate`.

    Args:
      config: of a decoder or a recurrent network.
      top_k: candidates a token, each of which the model reads; 4 to 8 in the paper.
      alpha: weight of the degeneration penalty, 0 to 1; 0.6 in the paper.

    Raises UserError as `generate`, and for numbers out of their range.
    """
    vocabulary_size = config.vocabulary_size if vocabulary_size is None else vocabulary_size
    if config.architecture not in ("decoder", "recurrent"):
        raise UserError(f"config.model.architecture={config.architecture}: contrastive search is for decoder and "
                        "recurrent; take a beam")
    prompt_BT, prompt_lengths_B = checked_prompt(prompt_ids_BT, prompt_lengths_B, vocabulary_size)
    check_call(config, max_new_tokens, stop_id, vocabulary_size)
    if not 1 <= top_k <= vocabulary_size:
        raise UserError(f"top_k is {top_k}; contrastive search chooses among 1 to {vocabulary_size} tokens")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}; it must be 0 (greedy) to 1")

    def call(rows: np.ndarray) -> Generated:
        lengths_B = prompt_lengths_B[rows]
        # A token more than `generate` is read at once, and one more of them is in a window.
        shortest, end = bounds(config, lengths_B, max_new_tokens)
        sizes = sizes_for(config, shortest + 1, end + 1)
        inputs = make_inputs(config, sizes, prompt_BT[rows, :lengths_B.max()], lengths_B,
                             max_new_tokens=max_new_tokens, stop_id=stop_id, stop=stop)
        state = _run(_Plan(config, sizes, top_k, vocabulary_size), params, inputs, np.float32(alpha))
        return answer_of(jax.device_get(state), inputs.rows.starts_B, max_new_tokens, stop_id)

    return by_length(config, prompt_lengths_B, call)


@functools.partial(jax.jit, static_argnums=0)
def _run(plan: _Plan, params: Any, inputs: Inputs, alpha: jax.Array) -> State:
    """The compiled program: the state when every row has ended, without its memory."""
    first, window = jnp.min(inputs.rows.starts_B), window_of(plan.config)
    make_reader = _recurrent_reader if plan.config.architecture == "recurrent" else _decoder_reader
    reader = make_reader(plan.config, params, len(inputs.ids_BX), plan.sizes, first)

    def unfinished(state: State) -> jax.Array:
        return ~jnp.all(finished(inputs, state))

    def next_window(state: State) -> State:
        start = window_start(state.position + 1, window)
        # The first window's is there already, unless the first candidate begins another one.
        memory = jax.lax.cond(
            start == state.memory.start, lambda memory: memory,
            lambda memory: _prefill(plan, reader, state.ids_BX, start, state.position, memory.model)._replace(
                logits_BV=memory.logits_BV), state.memory)
        return jax.lax.while_loop(
            lambda state: unfinished(state) & (state.position < start + window),
            lambda state: _next_token(plan, reader, inputs, alpha, state), state._replace(memory=memory))

    memory = _prefill(plan, reader, inputs.ids_BX, window_start(first, window), first, reader.memory)
    state = first_state(inputs, first, memory, None)
    return jax.lax.while_loop(unfinished, next_window, state)._replace(memory=None)


def _prefill(plan: _Plan, reader: _Reader, ids_BX: jax.Array, start: jax.Array, position: jax.Array,
             memory: Any) -> _Memory:
    """Reads the tokens from `start` to position - 1."""
    known = position - start
    tokens_BT = jax.lax.dynamic_slice_in_dim(ids_BX, start, plan.sizes.prefill, axis=1)
    x_BTD, memory = reader.read(tokens_BT, reader.forget(memory), (start, known))
    last_BD = jax.lax.dynamic_index_in_dim(x_BTD, known - 1, axis=1, keepdims=False)
    columns = max(reader.columns - plan.sizes.prefill, 0)
    hidden_BCD = jnp.pad(_of_length_one(x_BTD), ((0, 0), (0, columns), (0, 0)))
    return _Memory(memory, start, hidden_BCD, reader.logits(last_BD))


def _next_token(plan: _Plan, reader: _Reader, inputs: Inputs, alpha: jax.Array, state: State) -> State:
    """Reads each row's k candidates, and goes on with the best."""
    memory, top_k = state.memory, plan.top_k
    rows_B = jnp.arange(len(inputs.ids_BX))
    logits_BV = mask_vocabulary(memory.logits_BV.astype(jnp.float32), plan.vocabulary_size)
    candidate_BK = jax.lax.top_k(logits_BV, top_k)[1].astype(jnp.int32)
    in_prompt_B, given_B = given(inputs, state)
    candidate_BK = jnp.where(in_prompt_B[:, None], given_B[:, None], candidate_BK)
    model = reader.take_rows(memory.model, jnp.repeat(rows_B, top_k))
    x_X1D, model = reader.read(candidate_BK.reshape(-1, 1), model, None)
    hidden_BKD = _of_length_one(x_X1D).reshape(*candidate_BK.shape, -1)

    alike_BKC = jnp.einsum("bkd,bcd->bkc", hidden_BKD, memory.hidden_BCD)
    place = state.position - memory.start
    alike_BKC = jnp.where(jnp.arange(alike_BKC.shape[-1]) < place, alike_BKC, -1)
    chance_BK = jnp.take_along_axis(jax.nn.softmax(logits_BV, axis=-1), candidate_BK, axis=-1)
    score_BK = (1 - alpha) * chance_BK - alpha * jnp.max(alike_BKC, axis=-1)
    choice_B = jnp.argmax(score_BK, axis=-1)

    chosen_B = rows_B * top_k + choice_B
    hidden_B1D = hidden_BKD[rows_B, choice_B][:, None]
    memory = _Memory(
        reader.take_rows(model, chosen_B), memory.start,
        jax.lax.dynamic_update_slice_in_dim(memory.hidden_BCD, hidden_B1D, place, axis=1),
        reader.logits(x_X1D[chosen_B, 0]))
    return write(inputs, state._replace(memory=memory), judged(logits_BV, candidate_BK[rows_B, choice_B], None))


def _of_length_one(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8)


def _head(config: ModelConfig, variables: Any) -> Callable[[jax.Array], jax.Array]:
    """x_BD -> logits_BV, its matrix made once, before the loop."""
    model = make_model(config)
    kernel_DV, bias_V = model.apply(variables, method="head_kernel"), model.apply(variables, method="head_bias")

    def logits(x_BD: jax.Array) -> jax.Array:
        logits_BV = head_logits(x_BD, kernel_DV.astype(x_BD.dtype), 0)
        return softcap(logits_BV if bias_V is None else logits_BV + bias_V.astype(jnp.float32), config.logits_softcap)

    return logits


def _decoder_reader(config: ModelConfig, params: Any, rows: int, sizes: Sizes, prompt_end: jax.Array) -> _Reader:
    variables = {"params": unstack_layers(params)}
    model = make_model(config)

    def read(tokens_BT: jax.Array, cache: Any, prefill: Any) -> tuple[jax.Array, Any]:
        inputs = {}
        if config.prefix_attention and prefill is not None:
            positions_T = prefill[0] + jnp.arange(tokens_BT.shape[1])
            inputs = {"prefix_BT": jnp.broadcast_to(positions_T < prompt_end, tokens_BT.shape)}
        output = model.apply(variables, tokens_BT, cache=cache, method="hidden", **inputs)
        cache = output.cache if prefill is None else output.cache._replace(length=prefill[1])
        return output.logits_BTV, cache

    return _Reader(
        init_cache(config, rows, sizes.cache), read, _head(config, variables), take_cache_rows,
        lambda cache: cache._replace(length=jnp.zeros((), jnp.int32)), sizes.cache)


def _recurrent_reader(config: ModelConfig, params: Any, rows: int, sizes: Sizes, prompt_end: jax.Array) -> _Reader:
    from purelm.models.recurrent import init_carry
    from purelm.models.recurrent.decoding import take_rows

    model, variables, carry = make_model(config), {"params": params}, init_carry(config, rows)

    def read(tokens_BT: jax.Array, carry: Any, prefill: Any) -> tuple[jax.Array, Any]:
        inputs = {}
        if prefill is not None:  # Padding changes no state.
            known_T = jnp.arange(tokens_BT.shape[1]) < prefill[1]
            inputs = {"segments_BT": jnp.broadcast_to(known_T, tokens_BT.shape).astype(jnp.int32)}
        output = model.apply(variables, tokens_BT, carry=carry, method="hidden", **inputs)
        return output.logits_BTV, output.cache

    return _Reader(carry, read, _head(config, variables), take_rows, lambda _: carry, sizes.buffer)
