"""Many prompts of any length, each continued by a decoder, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from purelm.config import ModelConfig
from purelm.inference import Sampler, generate
from purelm.inference.automata import TokenAutomaton
from purelm.inference.stops import StopIds

Progress = Callable[[str], None]


class Continuation(NamedTuple):
    """ids_T: int32, what was written, without a stop_id. log_probability: nats, of it and of the stop_id where one was
    written (`stopped`)."""

    ids_T: np.ndarray
    log_probability: float
    stopped: bool


def continue_prompts(
    config: ModelConfig, params: Any, prompts: Sequence[np.ndarray], *, max_new_tokens: int, sampler: Sampler,
    seed: int, stop_id: StopIds, vocabulary_size: int, batch_size: int, progress: Progress | None = None,
    what: str = "texts", stop: TokenAutomaton | None = None,
) -> list[Continuation]:
    """The continuation of each prompt, in their order.

    Args:
      prompts: int [T] each, at least one id; prompt r is drawn with fold_in(key(seed), r), whatever its batch.
      max_new_tokens, sampler, stop_id, vocabulary_size, stop: as of `generate`.
      batch_size: prompts at once; the last batch is filled with copies of its last prompt.
      progress: called with a line a tenth of the way; `what` is what it counts.

    Raises UserError as `generate`.
    """
    import jax

    params = jax.device_put(params)
    found: list[Any] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    tenth = max(len(prompts) // 10, 1)
    for start in range(0, len(order), batch_size):
        members = order[start:start + batch_size]
        rows = members + members[-1:] * (batch_size - len(members))
        lengths_B = np.array([len(prompts[number]) for number in rows])
        prompt_BT = np.zeros((batch_size, lengths_B.max()), np.int32)
        for row, number in enumerate(rows):
            prompt_BT[row, :lengths_B[row]] = prompts[number]
        keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), np.array(rows))
        written = generate(config, params, prompt_BT, prompt_lengths_B=lengths_B, max_new_tokens=max_new_tokens,
                           sampler=sampler, key=keys_B, stop_id=stop_id, vocabulary_size=vocabulary_size, stop=stop)
        kept_B = written.lengths_B - written.stopped_B
        for row, number in enumerate(members):
            found[number] = Continuation(written.ids_BT[row, :kept_B[row]], float(written.log_probabilities_B[row]),
                                         bool(written.stopped_B[row]))
        done = start + len(members)
        if progress is not None and start // tenth != done // tenth:
            progress(f"wrote {done:,} of {len(prompts):,} {what}")
    return found
