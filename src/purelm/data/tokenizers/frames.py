"""What a published tokenizer puts around texts, as SpecialIds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from purelm.data.tokenizers.special import SpecialIds
from purelm.data.tokenizers.tokenizer_files import is_id
from purelm.errors import UserError

_ENCODER_TASKS = ("masked_language_modeling", "classification", "tagging", "extractive_qa")
_SEQUENCE_TASKS = ("sequence_to_sequence", "span_corruption")
# Texts that any tokenizer has a token for, one of them at least.
_PROBES = ("a", "A", "1", ".", "\u4e2d", "\u0430")
# What parts documents in training, where a chat's last token is another.
_DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>")


class Frame(NamedTuple):
    """The ids before, between and after texts; the token type of the second, and whether `between` has it already."""

    start: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pair_type: int = 0
    pair_type_from_between: bool = False


def frame_of(backend: Any) -> Frame:
    """What a `tokenizers.Tokenizer` adds around one text and between two."""
    for probe in _PROBES:
        single, pair = backend.encode(probe), backend.encode(probe, probe)
        places = [[place for place, number in enumerate(pair.sequence_ids) if number == side] for side in (0, 1)]
        own = [place for place, number in enumerate(single.sequence_ids) if number == 0]
        if own and all(places):
            break
    else:
        return Frame()
    first, second = places
    between = range(first[-1] + 1, second[0])
    pair_type = pair.type_ids[second[0]]
    return Frame(start=tuple(single.ids[:own[0]]), between=tuple(pair.ids[place] for place in between),
                 end=tuple(single.ids[own[-1] + 1:]), pair_type=pair_type,
                 pair_type_from_between=bool(pair_type and between and pair.type_ids[between[0]] == pair_type))


def simple_frame(start: int | None, end: int | None) -> Frame:
    """`start` before every text and `end` after it, where they are not None."""
    before = () if start is None else (start,)
    after = () if end is None else (end,)
    return Frame(before, after + before, after)


def document_separator(special_tokens: Mapping[str, int], named: Mapping[str, int]) -> int | None:
    """The id between documents: the end of a text, and of a model that has none, BERT's separator."""
    for text in _DOCUMENT_ENDS:
        if text in special_tokens:
            return special_tokens[text]
    return next((named[name] for name in ("eos_token", "sep_token") if name in named), None)


def special_ids(frame: Frame, task: str, model_type: str, fields: Mapping[str, Any], special_tokens: Mapping[str, int],
                named: Mapping[str, int]) -> SpecialIds:
    """What stands where for a model of `task`.

    fields: config.json with generation_config.json. special_tokens: ids by text. named: ids of "eos_token", ...

    A decoder first reads its start token (T5: padding) and then what the tokenizer writes before a text (BART: <s>, the
    token that its generation forces). Answers end with any of the ids that either file calls an end, the tokenizer's
    own first.
    """
    separator = document_separator(special_tokens, named)
    between = frame.between or (() if separator is None else (separator,))
    types = fields.get("type_vocab_size", 2 if model_type in ("bert", "electra") else 1)
    target_start: tuple[int, ...] = ()
    if task in _SEQUENCE_TASKS:
        first = frame.start or _ids(fields, "forced_bos_token_id")
        target_start = (*_decoder_start(model_type, fields, named), *first)
    return SpecialIds(
        start=frame.start, between=between, end=frame.end, source_start=frame.start, source_end=frame.end,
        target_start=target_start, stop=() if task in _ENCODER_TASKS else _stop(fields, named),
        mask=named.get("mask_token", None),
        pair_type=frame.pair_type if types > 1 else 0,
        pair_type_from_between=frame.pair_type_from_between, sentinels=_sentinels(special_tokens))


def _decoder_start(model_type: str, fields: Mapping[str, Any], named: Mapping[str, int]) -> tuple[int, ...]:
    """Where no file says it, each model's own default."""
    found = _ids(fields, "decoder_start_token_id")
    default = "eos_token" if model_type in ("bart", "mbart") else "pad_token"
    return found or ((named[default],) if default in named else ())


def _stop(fields: Mapping[str, Any], named: Mapping[str, int]) -> tuple[int, ...]:
    own = (named["eos_token"],) if "eos_token" in named else ()
    return tuple(dict.fromkeys((*own, *_ids(fields, "eos_token_id"))))


def _ids(fields: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """A field that may be missing, null, an id or a list of ids; UserError for anything else."""
    value = fields.get(name, None)
    if value is None:
        return ()
    ids = tuple(value) if isinstance(value, list) else (value,)
    if not all(map(is_id, ids)):
        raise UserError(f"config.json, or generation_config.json: {name}={str(value)[:60]}: wants the id of a token, "
                        "or a list of ids")
    return ids


def _sentinels(special_tokens: Mapping[str, int]) -> tuple[int, ...]:
    """T5's <extra_id_0>, <extra_id_1>, ..."""
    names = (f"<extra_id_{number}>" for number in itertools.count())
    return tuple(special_tokens[name] for name in itertools.takewhile(special_tokens.__contains__, names))
