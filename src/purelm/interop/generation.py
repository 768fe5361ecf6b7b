"""A tokenizer's special ids and a run's decoding as config.json and generation_config.json say them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purelm.config import Config, DecodingConfig
from purelm.interop.fields import Fields

# What generation_config.json says of how texts are written, and this project does in its own way or not at all.
_NOT_TAKEN = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "min_length": 0,
              "min_new_tokens": None, "length_penalty": 1.0, "early_stopping": False, "num_beam_groups": 1,
              "diversity_penalty": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
              "suppress_tokens": None, "begin_suppress_tokens": None, "exponential_decay_length_penalty": None,
              "sequence_bias": None, "guidance_scale": None, "penalty_alpha": None, "renormalize_logits": False}
# What both files may say, and the second alone where it is there.
WRITING = frozenset({*_NOT_TAKEN, "bad_words_ids", "do_sample", "forced_bos_token_id", "forced_eos_token_id",
                     "max_length", "max_new_tokens", "min_p", "num_beams", "temperature", "top_k", "top_p"})


def decoding_of(fields: Mapping[str, Any], task: str, context_length: int) -> tuple[DecodingConfig, list[str]]:
    """(config.decoding as config.json and generation_config.json have it, a line on what is not taken over).

    Only of tasks that write; fields that are null or as transformers has them by itself say nothing.
    """
    said = {name: value for name, value in fields.items() if value is not None}
    given = Fields(said, "generation_config.json, or config.json")
    changes: dict[str, Any] = {}
    words = _words(given)
    if task in ("sequence_to_sequence", "language_modeling"):
        changes["banned"] = tuple(word[0] for word in words if len(word) == 1)
        if given.has("max_new_tokens"):
            changes["max_new_tokens"] = min(given.size("max_new_tokens", 1), context_length)
    if task == "sequence_to_sequence":
        changes |= {"force_end": given.has("forced_eos_token_id"), "beam_size": given.size("num_beams", 1)}
        if given.has("max_length"):  # It counts the token that the decoder starts from.
            changes.setdefault("max_new_tokens", max(1, min(given.size("max_length", 20) - 1, context_length)))
    if task == "language_modeling" and given.take("do_sample", False, bool):
        changes |= {"temperature": given.number("temperature", 1.0), "top_k": given.take("top_k", 50, int) or None,
                    "top_p": _below_one(given.number("top_p", 1.0)), "min_p": given.take("min_p", None, (int, float))}
    lost = [f"{name}={said[name]}" for name, usual in _NOT_TAKEN.items() if name in said and said[name] != usual]
    lost += [f"bad_words_ids {word}" for word in words if len(word) > 1]
    notes = [f"generation_config.json: {', '.join(lost)} not taken over (see --help of generate.py and predict.py)"]
    return DecodingConfig(**changes), notes if lost else []


def _words(given: Fields) -> list[list[int]]:
    """bad_words_ids; UserError for anything but lists of ids."""
    words = given.take("bad_words_ids", [], list)
    for word in words:
        if not isinstance(word, list) or not word or not all(type(number) is int and number >= 0 for number in word):
            raise given.error("bad_words_ids", "wants a list of lists of ids")
    return words


def _below_one(value: float) -> float | None:
    return None if value >= 1 else float(value)


def token_fields(tokenizer: Any, task: str) -> dict[str, Any]:
    """The ids of tokens that config.json holds."""
    special = tokenizer.special
    fields: dict[str, Any] = {
        "bos_token_id": next(iter(special.start), None), "eos_token_id": _one_or_all(special.stop),
        # No network reads padding; what is batched is padded with the end.
        "pad_token_id": special.target_start[0] if task == "sequence_to_sequence" else next(iter(special.stop), None)}
    if task == "sequence_to_sequence":
        fields |= {"is_encoder_decoder": True, "decoder_start_token_id": special.target_start[0]}
        if len(special.target_start) > 1:
            fields["forced_bos_token_id"] = special.target_start[1]
    return {name: value for name, value in fields.items() if value is not None}


def generation_fields(tokenizer: Any, config: Config, fields: dict[str, Any]) -> dict[str, Any] | None:
    """generation_config.json, or None for a model that writes nothing."""
    if config.model.architecture == "encoder" or config.task.name in ("classification", "tagging"):
        return None
    decoding = config.decoding
    drawn = decoding.temperature > 0 and decoding.beam_size == 1 and config.task.name == "language_modeling"
    generation: dict[str, Any] = {name: fields[name] for name in (
        "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
        if name in fields}
    generation |= {"do_sample": drawn, "num_beams": decoding.beam_size, "max_new_tokens": decoding.max_new_tokens}
    if drawn:
        generation |= {"temperature": decoding.temperature}
        generation |= {name: getattr(decoding, name) for name in ("top_k", "top_p", "min_p")
                       if getattr(decoding, name) is not None}
    if decoding.banned:
        generation["bad_words_ids"] = [[number] for number in decoding.banned]
    if decoding.force_end:
        generation["forced_eos_token_id"] = tokenizer.special.stop[0]
    return generation


def _one_or_all(ids: tuple[int, ...]) -> int | list[int] | None:
    if not ids:
        return None
    return ids[0] if len(ids) == 1 else list(ids)
