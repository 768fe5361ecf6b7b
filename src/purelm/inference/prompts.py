"""From a prompt as a user writes it to ids, and from generated ids back to text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from purelm.config import DecodingConfig, ModelConfig
from purelm.data.tokenizers.special import text_start
from purelm.errors import UserError
from purelm.inference.decode import Generated, generate
from purelm.inference.sampling import Sampler
from purelm.inference.stops import StopIds

if TYPE_CHECKING:
    from purelm.data import Tokenizer


def configured_sampler(decoding: DecodingConfig) -> Sampler:
    """The rule for drawing tokens that config.decoding says."""
    names = {field.name for field in dataclasses.fields(decoding)}
    return Sampler(**{field.name: getattr(decoding, field.name) for field in dataclasses.fields(Sampler)
                      if field.name in names})


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    """int32 [T]: the prompt as the start of a document, so after what the tokenizer puts before a text.

    Raises UserError for characters that the tokenizer never saw, and for an empty prompt where nothing comes before.
    """
    unknown = tokenizer.unknown_characters(prompt)
    if unknown:
        listed = ", ".join(repr(character) for character in unknown[:10])
        raise UserError(f"the prompt has characters that the tokenizer never saw: {listed}; leave them out")
    ids_T = np.concatenate([tokenizer.special.start, tokenizer.encode(prompt)]).astype(np.int32)
    if not ids_T.size:
        ids_T = np.array(text_start(tokenizer), np.int32)
    if not ids_T.size:
        raise UserError("the prompt is empty, and the tokenizer has no end-of-text token to start from; "
                        "give at least one character")
    return ids_T


def text_begins(tokenizer: Tokenizer, prompt_ids_T: Sequence[int] | np.ndarray) -> int:
    """How many of a prompt's first ids are not its text: those that the tokenizer puts before one."""
    start = text_start(tokenizer)
    return len(start) if tuple(map(int, prompt_ids_T[:len(start)])) == start else 0


def plain_text(tokenizer: Tokenizer, ids_T: np.ndarray) -> str:
    """The text of what was written, special tokens among it left out."""
    return tokenizer.decode(ids_T[~np.isin(ids_T, list(tokenizer.special_ids))])


def parse_prompt_ids(text: str, vocabulary_size: int) -> np.ndarray:
    """int32 [T] of comma-separated ids such as "0,1,2".

    Raises UserError for what is no whole number, and for ids outside of the vocabulary.
    """
    ids = []
    for number, part in enumerate(text.split(","), start=1):
        try:
            ids.append(int(part))
        except ValueError:
            raise UserError(f"prompt_ids: entry {number} is {part.strip()!r}; "
                            "give whole numbers between commas, such as 0,1,2") from None
        if not 0 <= ids[-1] < vocabulary_size:
            raise UserError(f"prompt_ids: entry {number} is {ids[-1]}, outside of the vocabulary "
                            f"(0 to {vocabulary_size - 1})")
    return np.asarray(ids, np.int32)


def sample_ids(
    config: ModelConfig, params: Any, prompt_ids_T: np.ndarray, *, num_samples: int, max_new_tokens: int,
    sampler: Sampler, seed: int, stop_id: StopIds, vocabulary_size: int,
) -> Generated:
    """`num_samples` continuations of one prompt; sample r is the same whatever their number.

    Raises UserError for num_samples < 1, and as `generate`.
    """
    return generate(
        config, params, np.asarray(prompt_ids_T, np.int32)[None], max_new_tokens=max_new_tokens, sampler=sampler,
        key=jax.random.key(seed), num_samples=num_samples, stop_id=stop_id, vocabulary_size=vocabulary_size)


def sample_text(
    config: ModelConfig, params: Any, tokenizer: Tokenizer, prompt: str, *, num_samples: int, max_new_tokens: int,
    sampler: Sampler, seed: int,
) -> list[str]:
    """Texts that begin with the prompt and end where the model ends the document, or after max_new_tokens.

    Raises UserError as `encode_prompt` and `sample_ids`.
    """
    prompt_ids_T = encode_prompt(tokenizer, prompt)
    generated = sample_ids(
        config, params, prompt_ids_T, num_samples=num_samples, max_new_tokens=max_new_tokens, sampler=sampler,
        seed=seed, stop_id=tokenizer.special.stop, vocabulary_size=tokenizer.vocabulary_size)
    return decode_samples(tokenizer, prompt_ids_T, generated)


def decode_samples(tokenizer: Tokenizer, prompt_ids_T: np.ndarray, generated: Generated) -> list[str]:
    """The text of the prompt and each row's new tokens, without what stands before a text and ends it."""
    start = text_begins(tokenizer, prompt_ids_T)
    kept_B = generated.lengths_B - generated.stopped_B
    return [tokenizer.decode(np.concatenate([prompt_ids_T[start:], ids_T[:kept]]))
            for ids_T, kept in zip(generated.ids_BT, kept_B)]
