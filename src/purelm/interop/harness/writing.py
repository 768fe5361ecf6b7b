"""What a task asks of a written text, and how the run writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from purelm.errors import UserError, did_you_mean
from purelm.inference import Sampler

# Of the harness, for tasks that say nothing.
_MAX_NEW_TOKENS = 256
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DRAWN = ("top_k", "top_p", "min_p")
_ALWAYS = ("repetition_penalty",)


class Wanted(NamedTuple):
    """until: strings that end the text, not part of it. drawn: whether texts differ from one time to the next."""

    until: tuple[str, ...]
    max_new_tokens: int
    sampler: Sampler
    drawn: bool


def wanted(arguments: Mapping[str, Any]) -> Wanted:
    """What a task's generation_kwargs say: until, max_gen_toks (or an alias), do_sample, temperature, top_k, top_p,
    min_p and repetition_penalty.

    Greedy, unless do_sample is true or a temperature above 0 is given without it; then at temperature 1 if none is
    given. Raises UserError for an argument of another name.
    """
    known = ("until", "do_sample", "temperature", *_LENGTHS, *_DRAWN, *_ALWAYS)
    for name in arguments:
        if name not in known:
            raise UserError(f"generation_kwargs.{name}: no such argument here{did_you_mean(name, known)}")
    given = {name: value for name, value in arguments.items() if value is not None}
    until = given.pop("until", ())
    lengths = [int(given[name]) for name in _LENGTHS if name in given]
    drawn = bool(given.get("do_sample", given.get("temperature", 0) > 0))
    temperature = float(given.get("temperature", 1.0)) if drawn else 0.0
    options = {name: given[name] for name in (*_ALWAYS, *(_DRAWN if temperature else ())) if name in given}
    return Wanted(tuple(filter(None, [until] if isinstance(until, str) else until)),
                  lengths[0] if lengths else _MAX_NEW_TOKENS, Sampler(temperature=temperature, **options),
                  drawn and temperature > 0)


def parse_arguments(parts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE each; a value is JSON, else text. Raises UserError for what has no "="."""
    found = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"--gen_kwargs={part}: is no NAME=VALUE; give such as max_gen_toks=64")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found


def check_room(max_new_tokens: int, context_length: int) -> int:
    """How many tokens of a prompt the model sees; UserError where none is left."""
    if max_new_tokens >= context_length:
        raise UserError(f"generation_kwargs.max_gen_toks={max_new_tokens} leaves no room for a prompt in the model's "
                        f"{context_length} tokens; give less, such as --gen_kwargs=max_gen_toks={context_length // 2}")
    return context_length - max_new_tokens


def cut_before(text: str, ends: tuple[str, ...]) -> str:
    """The text up to the first of `ends`."""
    for end in ends:
        text = text.split(end)[0]
    return text
