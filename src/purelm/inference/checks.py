"""What a call of generation may say: prompts, sources, keys and options, each refused with what would be right."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.steps import SOURCE_READERS, CacheKind, Source
from purelm.inference.stops import StopIds, stop_tuple

MOST_ALTERNATIVES = 20


def checked_prompt(prompt_ids_BT: Any, prompt_lengths_B: Any, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [B, T], 0 past each row's prompt; int32 [B] lengths)."""
    prompt_BT = np.asarray(prompt_ids_BT)
    if prompt_BT.ndim != 2 or prompt_BT.size == 0:
        raise UserError(f"the prompt has shape {prompt_BT.shape}; it must be [rows, tokens] with one token or more")
    rows, longest = prompt_BT.shape
    lengths_B = np.full(rows, longest) if prompt_lengths_B is None else np.asarray(prompt_lengths_B)
    if lengths_B.shape != (rows,) or lengths_B.min() < 1 or lengths_B.max() > longest:
        raise UserError(f"prompt_lengths_B is {lengths_B.tolist()}; it must be {rows} numbers from 1 to {longest}")
    prompt_BT = np.where(np.arange(longest) < lengths_B[:, None], prompt_BT, 0)
    outside = prompt_BT[(prompt_BT < 0) | (prompt_BT >= vocabulary_size)]
    if outside.size:
        raise UserError(f"prompt id {outside[0]} is outside of the vocabulary (0 to {vocabulary_size - 1})")
    return prompt_BT.astype(np.int32), lengths_B.astype(np.int32)


def check_call(config: ModelConfig, max_new_tokens: int, stop_id: StopIds, vocabulary_size: int) -> None:
    """Raises UserError for a negative length, a stop_id outside of the vocabulary, or a model that writes nothing."""
    if config.architecture not in ("decoder", "recurrent", *SOURCE_READERS):
        raise UserError(f"config.model.architecture={config.architecture} writes nothing; choose decoder, recurrent, "
                        "encoder_decoder or recurrent_encoder_decoder")
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be 0 or more")
    for one in stop_tuple(stop_id):
        if not 0 <= one < vocabulary_size:
            raise UserError(f"stop_id {one} is outside of the vocabulary (0 to {vocabulary_size - 1})")


def checked_source(config: ModelConfig, source_BS: Any, segments_BS: Any, prompt_lengths_B: np.ndarray,
                    max_new_tokens: int) -> Source | None:
    """The source, where the model reads one; the target after it must fit the context."""
    reads = config.architecture in SOURCE_READERS
    if reads != (source_BS is not None) or (segments_BS is not None and source_BS is None):
        raise UserError(f"config.model.architecture={config.architecture} " + (
            "reads a source; give source_BS" if reads else "reads no source; leave source_BS out"))
    if not reads:
        return None
    source_BS = np.asarray(source_BS, np.int32)
    segments_BS = np.ones_like(source_BS) if segments_BS is None else np.asarray(segments_BS, np.int32)
    if source_BS.ndim != 2 or len(source_BS) != len(prompt_lengths_B) or source_BS.shape != segments_BS.shape:
        raise UserError(f"source_BS has shape {source_BS.shape} and its segments {segments_BS.shape}; both must be "
                        f"[{len(prompt_lengths_B)}, tokens], a row for each prompt")
    # The last token is written, and not read.
    length = int(prompt_lengths_B.max()) - 1 + max_new_tokens
    if length > config.context_length:
        raise UserError(f"max_new_tokens={max_new_tokens} after a beginning of {prompt_lengths_B.max()} does not fit "
                        f"config.model.context_length={config.context_length}: at most "
                        f"{config.context_length + 1 - prompt_lengths_B.max()}")
    return Source(source_BS, segments_BS)


def check_options(config: ModelConfig, num_samples: int, log_probabilities: int | bool, cache: str) -> None:
    if num_samples < 1:
        raise UserError(f"num_samples is {num_samples}; it must be 1 or more")
    if log_probabilities is not False and not 0 <= log_probabilities <= MOST_ALTERNATIVES:
        raise UserError(f"log_probabilities is {log_probabilities}; it must be 0 to {MOST_ALTERNATIVES} alternatives, "
                        "or False for none at all")
    if cache not in get_args(CacheKind):
        raise UserError(f"cache={cache!r}: must be full, rolling or int8")
    if cache != "full" and config.architecture != "decoder":
        raise UserError(f"cache={cache}: config.model.architecture={config.architecture} has the full one alone")
    if cache == "rolling" and config.attention_window is None:
        raise UserError("cache=rolling needs a model with config.model.attention_window; take full or int8")
    if cache == "rolling" and config.prefix_attention:
        raise UserError("cache=rolling forgets, but with config.model.prefix_attention a prompt is read at once; take "
                        "full or int8")


def row_keys(key: jax.Array, num_rows: int) -> jax.Array:
    """One typed key a row."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_rows))
    if key.shape != (num_rows,):
        raise UserError(f"key has shape {key.shape}; it must be one key, or one for each of {num_rows} rows")
    return key
