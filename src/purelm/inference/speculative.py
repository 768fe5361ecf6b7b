"""Speculative decoding: guesses of several tokens, read by the model at once, of which the right ones are kept.

Leviathan, Kalman & Matias 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318. Where a step is bound by reading
the parameters, several tokens cost little more than one, so guesses that are often right (a small draft model's, or the
text's own repetitions) save time, and change nothing: see `generate_speculative`. Windows are those of decode.py, and
the whole loop is one program, in which every row goes on at its own pace.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.checks import check_call, checked_prompt, row_keys
from purelm.inference.decode import Generated, power_of_two
from purelm.inference.decode_loop import NOT_A_NUMBER, Reason, window_start
from purelm.inference.sampling import Sampler, check_ids, mask_vocabulary
from purelm.inference.speculative_acceptance import Inputs, Plan, draw_guess, draw_tokens, reject
from purelm.inference.speculative_drafts import (
    Drafter,
    LookUp,
    ModelDraft,
    look_up_drafter,
    model_drafter,
    slices,
    with_slices,
)
from purelm.inference.speculative_readers import Reader, decoder_reader, recurrent_reader
from purelm.inference.stops import StopIds, is_stop, padding, stop_array

__all__ = ["Acceptance", "LookUp", "ModelDraft", "Speculated", "generate_speculative"]

# How sampled guesses are judged; see `generate_speculative`.
Acceptance = Literal["shared_noise", "rejection"]


class Speculated(NamedTuple):
    """What `generate_speculative` answers.

    generated: as of `generate`, with the log-probability of each id. steps_B: int32, how often the model read while the
    row went on; lengths_B / steps_B is the tokens a step. drafted_B, accepted_B: int32, tokens guessed, and those of
    them that are in the text.
    """

    generated: Generated
    steps_B: np.ndarray
    drafted_B: np.ndarray
    accepted_B: np.ndarray


class _State(NamedTuple):
    """The loop's carry: row b's ids are known up to positions_B[b], its memories at most up to the token before."""

    ids_BX: jax.Array
    positions_B: jax.Array
    stopped_B: jax.Array
    log_probabilities_BX: jax.Array
    steps_B: jax.Array
    drafted_B: jax.Array
    accepted_B: jax.Array
    memory: Any
    draft_memory: Any


def generate_speculative(
    config: ModelConfig,
    params: Any,
    prompt_ids_BT: Any,
    *,
    draft: ModelDraft | LookUp,
    num_drafted: int,
    max_new_tokens: int,
    sampler: Sampler,
    key: jax.Array,
    acceptance: Acceptance,
    prompt_lengths_B: Any = None,
    stop_id: StopIds = None,
    vocabulary_size: int | None = None,
) -> Speculated:
    """`generate` in fewer steps: `draft` guesses `num_drafted` tokens a step, which the model reads at once.

    Args:
      config, params: of a decoder, whose text this is. The other arguments are those of `generate`.
      draft: who guesses. A model's windows are its own (config.context_length of at least 2 * num_drafted).
      num_drafted: gamma of Leviathan et al.; 4 to 8 where a step of the model is bound by memory.
      acceptance: how a guess is judged where tokens are sampled.
        shared_noise: the token of each position is drawn from the model with the noise that `generate` draws it with,
          and the draft guesses with the same noise; a guess is right where it is that token (Daliri, Musco & Suresh
          2024, arXiv 2408.07978). The text is that of `generate` for the same key, whatever the draft.
        rejection: a guess d of the draft's distribution q is kept with probability min(1, p(d) / q(d)), p the model's,
          else a token of the distribution max(0, p - q), normalized, stands in its place (Leviathan et al., sec. 2.3).
          More guesses are kept, and the text's distribution is that of `generate`, but not the text for one key.
        Greedy and looked-up guesses are the same under both: a guess is right where it is the model's token.

    The text is that of `generate` up to rounding: tokens that are read together are added up in another order, which
    shows where two tokens are equally likely to six digits. A row does not depend on the others.

    Raises UserError as `generate`; for a model that is no decoder; num_drafted < 1; a draft that is no language model,
    or whose vocabulary or context is wrong; and rejection with penalties, biases, bans or forced tokens.
    """
    vocabulary_size = config.vocabulary_size if vocabulary_size is None else vocabulary_size
    prompt_BT, prompt_lengths_B = checked_prompt(prompt_ids_BT, prompt_lengths_B, vocabulary_size)
    check_call(config, max_new_tokens, stop_id, vocabulary_size)
    check_ids(sampler, vocabulary_size)
    _check_model(config, num_drafted)
    if isinstance(draft, ModelDraft):
        _check_draft(config, draft.config, num_drafted)
    rejects = isinstance(draft, ModelDraft) and acceptance == "rejection" and not sampler.greedy
    _check_acceptance(acceptance, sampler, rejects)
    longest, end = int(prompt_lengths_B.max()), int(prompt_lengths_B.max()) + max_new_tokens
    draft_config = draft.config if isinstance(draft, ModelDraft) else draft
    plan = Plan(
        config, draft_config, num_drafted, sampler, rejects, vocabulary_size,
        prefill=_prefill(config, prompt_lengths_B, end, ahead=0),
        draft_prefill=_prefill(draft_config, prompt_lengths_B, end, ahead=num_drafted)
        if isinstance(draft, ModelDraft) else 0,
        end=-(-end // 64) * 64)
    # A window that begins at the last token is read as wide as the others.
    num_columns = power_of_two(end + max(plan.prefill, plan.draft_prefill) + num_drafted)
    ids_BX = np.zeros((len(prompt_BT), num_columns), np.int32)
    ids_BX[:, :longest] = prompt_BT
    state = _run(
        plan, params, draft.params if isinstance(draft, ModelDraft) else None,
        Inputs(ids_BX, prompt_lengths_B, prompt_lengths_B + np.int32(max_new_tokens), row_keys(key, len(prompt_BT)),
               stop_array(stop_id)))
    return _answer(jax.device_get(state), prompt_lengths_B, max_new_tokens, stop_id)


def _check_model(config: ModelConfig, num_drafted: int) -> None:
    if config.architecture != "decoder":
        raise UserError(f"config.model.architecture={config.architecture} cannot read guesses at once; speculative "
                        "decoding is for decoder")
    if num_drafted < 1:
        raise UserError(f"num_drafted is {num_drafted}; it must be 1 or more")


def _check_draft(config: ModelConfig, draft: ModelConfig, num_drafted: int) -> None:
    if draft.architecture not in ("decoder", "recurrent") or draft.bidirectional:
        both_ways = " with bidirectional=True" if draft.bidirectional else ""
        raise UserError(f"the draft's config.model.architecture={draft.architecture}{both_ways} is no language model; "
                        "take a run of a decoder or of a recurrent network")
    if draft.vocabulary_size != config.vocabulary_size:
        raise UserError(f"the draft's vocabulary has {draft.vocabulary_size} tokens, the model's "
                        f"{config.vocabulary_size}; train the draft with the model's tokenizer")
    if draft.architecture == "decoder" and draft.context_length < 2 * num_drafted:
        raise UserError(f"num_drafted is {num_drafted}, but the draft's config.model.context_length is "
                        f"{draft.context_length}; draft at most {draft.context_length // 2}")


def _check_acceptance(acceptance: str, sampler: Sampler, rejects: bool) -> None:
    if acceptance not in ("shared_noise", "rejection"):
        raise UserError(f"acceptance={acceptance!r}: must be shared_noise or rejection")
    if rejects and not (sampler.plain and not sampler.logit_bias and not sampler.banned):
        raise UserError("acceptance=rejection knows temperature, top_k, top_p and min_p alone; take shared_noise")


def _prefill(config: ModelConfig, prompt_lengths_B: np.ndarray, end: int, *, ahead: int) -> int:
    """Tokens read at once where a window begins: the prompt's, but for the last, or those that the next begins with."""
    if config.architecture == "recurrent":
        return power_of_two(int(prompt_lengths_B.max()) - 1)
    length = int((prompt_lengths_B - window_start(prompt_lengths_B + ahead, config.context_length)).max()) - 1
    if end + ahead > config.context_length + 1:
        length = max(length, config.context_length // 2)
    return min(power_of_two(length + config.prefix_attention), config.context_length)


def _answer(state: _State, starts_B: np.ndarray, max_new_tokens: int, stop_id: StopIds) -> Speculated:
    columns_BT = starts_B[:, None] + np.arange(max_new_tokens)
    lengths_B = state.positions_B - starts_B
    written_BT = np.arange(max_new_tokens) < lengths_B[:, None]
    new_BT = np.take_along_axis(state.ids_BX, columns_BT, axis=1)
    if (written_BT & (new_BT == NOT_A_NUMBER)).any():
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    new_BT = np.where(written_BT, new_BT, padding(stop_id))
    each_BT = np.where(written_BT, np.take_along_axis(state.log_probabilities_BX, columns_BT, axis=1), 0)
    reasons_B = np.where(state.stopped_B, Reason.STOP_ID, Reason.LENGTH).astype(np.int32)
    generated = Generated(new_BT, lengths_B, state.stopped_B, each_BT.sum(axis=1), reasons_B, each_BT)
    return Speculated(generated, state.steps_B, state.drafted_B, state.accepted_B)


@functools.partial(jax.jit, static_argnums=0)
def _run(plan: Plan, params: Any, draft_params: Any, inputs: Inputs) -> _State:
    """The compiled program: the state when every row has ended, without its memories."""
    prompt_ends_B = inputs.starts_B
    # Guesses may be read past the window's end.
    reader = decoder_reader(
        plan.config, params, capacity=_capacity(plan, plan.config, plan.prefill), prefill=plan.prefill, ahead=0,
        prompt_ends_B=prompt_ends_B)
    if isinstance(plan.draft, LookUp):
        drafter = look_up_drafter(plan.draft, plan.num_drafted)
    else:
        if plan.draft.architecture == "recurrent":
            draft_reader = recurrent_reader(
                plan.draft, draft_params, rows=len(prompt_ends_B), prefill=plan.draft_prefill)
        else:
            draft_reader = decoder_reader(
                plan.draft, draft_params, capacity=_capacity(plan, plan.draft, plan.draft_prefill),
                prefill=plan.draft_prefill, ahead=plan.num_drafted, prompt_ends_B=prompt_ends_B)
        drafter = model_drafter(draft_reader, functools.partial(draw_guess, plan, inputs), plan.num_drafted)
    return _decode(plan, inputs, reader, drafter)._replace(memory=None, draft_memory=None)


def _capacity(plan: Plan, config: ModelConfig, prefill: int) -> int:
    return max(min(plan.end, config.context_length), prefill) + plan.num_drafted


def _decode(plan: Plan, inputs: Inputs, reader: Reader, drafter: Drafter) -> _State:
    """Steps until all rows have ended, each row's windows filled as it reaches them."""
    # Of one row alone a step without guesses reads one token. Rows that look up beside each other read as many as the
    # others, or what one of them finds would be in the others' rounding.
    waits = isinstance(plan.draft, LookUp) and inputs.ids_BX.shape[0] == 1

    def active(state: _State) -> jax.Array:
        return ~state.stopped_B & (state.positions_B < inputs.ends_B)

    def ready(state: _State) -> jax.Array:
        stale_B = reader.stale(state.positions_B, state.memory) | drafter.stale(state.positions_B, state.draft_memory)
        return jnp.any(active(state)) & ~jnp.any(active(state) & stale_B)

    def found(state: _State) -> jax.Array:
        return drafter.found(state.ids_BX, state.positions_B)[0] if waits else jnp.ones((), bool)

    def filled(part: Reader | Drafter, memory: Any, state: _State) -> Any:
        # A loop of one turn or none, in which memory stays where it is; a conditional may copy it.
        return jax.lax.while_loop(
            lambda memory: jnp.any(active(state) & part.stale(state.positions_B, memory)),
            lambda memory: part.fill(state.ids_BX, state.positions_B, memory), memory)

    def round_of_steps(state: _State) -> _State:
        state = state._replace(memory=filled(reader, state.memory, state),
                               draft_memory=filled(drafter, state.draft_memory, state))
        if waits:
            state = jax.lax.while_loop(lambda state: ready(state) & ~found(state), plain_step, state)
        return jax.lax.while_loop(lambda state: ready(state) & found(state), guessed_step, state)

    def plain_step(state: _State) -> _State:
        return _step(plan, inputs, reader, active(state), state, None)[0]

    def guessed_step(state: _State) -> _State:
        proposal = drafter.propose(state.ids_BX, state.positions_B, state.draft_memory)
        guessed = state._replace(ids_BX=proposal.ids_BX, draft_memory=None)
        guessed, advanced_B = _step(plan, inputs, reader, active(state), guessed, proposal.logits_BGV, plan.num_drafted)
        return guessed._replace(draft_memory=drafter.keep(proposal, advanced_B))

    nothing_B = jnp.zeros_like(inputs.starts_B)
    state = _State(
        inputs.ids_BX, inputs.starts_B, nothing_B.astype(bool), jnp.zeros(inputs.ids_BX.shape, jnp.float32),
        nothing_B, nothing_B, nothing_B, reader.memory, drafter.memory)
    return jax.lax.while_loop(lambda state: jnp.any(active(state)), round_of_steps, state)


def _step(plan: Plan, inputs: Inputs, reader: Reader, active_B: jax.Array, state: _State,
          drafted_logits_BGV: jax.Array | None, guesses: int = 0) -> tuple[_State, jax.Array]:
    """(the state after one reading, by how many tokens each row is longer); state.ids_BX holds `guesses` guesses."""
    positions_B = state.positions_B
    tokens_BT = slices(state.ids_BX, positions_B - 1, guesses + 1)
    logits_BTV, memory = reader.read(tokens_BT, positions_B - 1, state.memory)
    logits_BTV = mask_vocabulary(logits_BTV.astype(jnp.float32), plan.vocabulary_size)
    guesses_BG = tokens_BT[:, 1:]
    if drafted_logits_BGV is None:
        ids_BT = draw_tokens(plan, inputs, logits_BTV, state.ids_BX, positions_B)
        right_B = jnp.sum(jnp.cumprod(ids_BT[:, :-1] == guesses_BG, axis=1), axis=1)
    else:
        ids_BT, right_B = reject(plan, inputs, logits_BTV, drafted_logits_BGV, guesses_BG, positions_B)
    chosen_BT = jnp.take_along_axis(logits_BTV, ids_BT[..., None], axis=-1, mode="clip")[..., 0]
    log_probabilities_BT = chosen_BT - jax.nn.logsumexp(logits_BTV, axis=-1)
    ids_BT = jnp.where(jnp.isfinite(jnp.max(logits_BTV, axis=-1)), ids_BT, NOT_A_NUMBER)
    # The window's last token is the last that may be drawn from it.
    window_end_B = window_start(positions_B, plan.config.context_length) + plan.config.context_length + 1
    advanced_B = jnp.minimum(right_B + 1, jnp.minimum(inputs.ends_B, window_end_B) - positions_B)
    stops_BT = is_stop(ids_BT, inputs.stop_ids_S) & (jnp.arange(guesses + 1) < advanced_B[:, None])
    stopped_B = active_B & jnp.any(stops_BT, axis=1)
    advanced_B = jnp.where(stopped_B, jnp.argmax(stops_BT, axis=1) + 1, advanced_B)
    advanced_B = jnp.where(active_B, advanced_B, 0)
    state = state._replace(
        ids_BX=with_slices(state.ids_BX, ids_BT, positions_B),
        positions_B=positions_B + advanced_B,
        stopped_B=state.stopped_B | stopped_B,
        log_probabilities_BX=with_slices(state.log_probabilities_BX, log_probabilities_BT, positions_B),
        steps_B=state.steps_B + active_B,
        drafted_B=state.drafted_B + jnp.where(active_B, guesses, 0),
        accepted_B=state.accepted_B + jnp.minimum(right_B, advanced_B),
        memory=memory)
    return state, advanced_B
