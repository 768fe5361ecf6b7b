"""A tokenizer's special ids and a run's decoding as config.json and generation_config.json say them."""

from __future__ import annotations

from typing import Any

from purelm.config import Config


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
    return generation


def _one_or_all(ids: tuple[int, ...]) -> int | list[int] | None:
    if not ids:
        return None
    return ids[0] if len(ids) == 1 else list(ids)
