"""The fields that /v1/completions and /v1/chat/completions share, and what the engine is asked for them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest

from purelm.errors import UserError
from purelm.inference.automata import TokenAutomaton
from purelm.inference.engine.request import Request
from purelm.inference.sampling import Sampler, check_ids
from purelm.serving import body as fields
from purelm.serving.automata import Kind
from purelm.serving.beside import compute
from purelm.serving.body import Check, naming
from purelm.serving.errors import ApiError, wrong
from purelm.serving.models_route import check_model
from purelm.serving.served import Served

_MOST_STOPS = 16
_MOST_BIASES = 300
_LONGEST_PATTERN = 16 * 1024
_LONGEST_STOPS = 4096

# Fields of OpenAI's clients that change no answer here.
NO_OPS: dict[str, tuple[Any, ...] | None] = {
    "user": None, "metadata": None, "safety_identifier": None, "prompt_cache_key": None, "store": (False,),
    "service_tier": ("auto", "default")}


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a body asks, whatever its prompts.

    stops: as given, and the format's own. alternatives: as of Request. seed_given: whether it was in the body.
    """

    n: int
    max_new_tokens: int
    sampler: Sampler
    seed: int
    stops: tuple[str, ...]
    stop: TokenAutomaton | None
    constraint: TokenAutomaton | None
    alternatives: int | None
    stream: bool
    include_usage: bool
    return_token_ids: bool


def shared_checks(served: Served) -> dict[str, Check]:
    """The checks of the fields that both routes have."""
    limits = served.limits
    return {
        "model": fields.string, "n": fields.integer(1, limits.choices),
        "max_tokens": fields.integer(1, limits.new_tokens),
        "temperature": fields.number(0, 2), "top_p": fields.number(0, 1), "top_k": fields.integer(-1, 2**31 - 2),
        "min_p": fields.number(0, 1), "repetition_penalty": fields.number(0.01, 100),
        "frequency_penalty": fields.number(-2, 2), "presence_penalty": fields.number(-2, 2),
        "min_tokens": fields.integer(0, limits.new_tokens), "logit_bias": _logit_bias,
        "seed": fields.integer(-2**63, 2**63 - 1), "stop": fields.strings(_MOST_STOPS), "stream": fields.boolean,
        "stream_options": _stream_options, "regex": fields.string, "json_schema": _schema,
        "return_token_ids": fields.boolean}


async def understand(request: HttpRequest, found: Mapping[str, Any], *, alternatives: int | None, default_tokens: int,
                     own_stops: Sequence[str] = ()) -> Asked:
    """The shared fields, as `shared_checks` made them.

    Args:
      request: whose they are.
      found: fields that were given.
      alternatives: as of Request.
      default_tokens: where max_tokens is not given.
      own_stops: of the chat's format.

    Raises ApiError for a wrong model or value.
    """
    served: Served = request.app.state.served
    if "model" in found:
        check_model(served, found["model"])
    stream = found.get("stream", False)
    if "stream_options" in found and not stream:
        raise wrong("stream_options", "is only for stream=true", code="invalid_value")
    if "regex" in found and "json_schema" in found:
        raise wrong("json_schema", "and regex are both given; give one", code="invalid_value")
    stops = tuple(dict.fromkeys([*found.get("stop", ()), *own_stops]))
    sampler = _sampler(served, found)
    constraint = None
    if "regex" in found or "json_schema" in found:
        kind = "regex" if "regex" in found else "json_schema"
        if len(found[kind]) > _LONGEST_PATTERN:
            raise wrong(kind, f"is longer than {_LONGEST_PATTERN} characters", code="invalid_value")
        constraint = await _constraint(request, kind, found[kind])
    stop = None
    if stops:
        if sum(map(len, stops)) > _LONGEST_STOPS:
            raise wrong("stop", f"has more than {_LONGEST_STOPS} characters together", code="invalid_value")
        stop = await asyncio.to_thread(naming, "stop", lambda: served.automata.get("stop", stops))
    return Asked(
        n=found.get("n", 1), max_new_tokens=found.get("max_tokens", min(default_tokens, served.limits.new_tokens)),
        sampler=sampler, seed=found.get("seed", secrets.randbelow(2**31)), stops=stops, stop=stop,
        constraint=constraint, alternatives=alternatives, stream=stream,
        include_usage=found.get("stream_options", False), return_token_ids=found.get("return_token_ids", False))


def requests_of(served: Served, asked: Asked, prompts: Sequence[tuple[int, ...]]) -> list[Request]:
    """n requests of each prompt, in order: choice i of a prompt is drawn as row i, whatever else is asked beside it."""
    return [Request(prompt_ids=prompt, max_new_tokens=asked.max_new_tokens, sampler=asked.sampler, seed=asked.seed,
                    index=index, stop_id=served.stop_ids, stop=asked.stop, constraint=asked.constraint,
                    alternatives=asked.alternatives, seconds=served.limits.seconds)
            for prompt in prompts for index in range(asked.n)]


def check_prompt(served: Served, prompt: Sequence[int], name: str) -> tuple[int, ...]:
    """Raises ApiError for a prompt that is too long."""
    most = served.limits.prompt_tokens
    if len(prompt) > most:
        raise wrong(name, f"has {len(prompt)} tokens; {most} at most", code="context_length_exceeded")
    return tuple(int(i) for i in prompt)


def _sampler(served: Served, found: Mapping[str, Any]) -> Sampler:
    names = {"temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
             "logit_bias"}
    options = {name: found[name] for name in names if name in found}
    if "top_k" in found and found["top_k"] > 0:  # vLLM's -1 keeps all.
        options["top_k"] = found["top_k"]
    if "min_tokens" in found:
        options["min_new_tokens"] = found["min_tokens"]
    try:
        sampler = Sampler(**options)
        check_ids(sampler, served.vocabulary_size)
    except UserError as error:
        field = str(error).partition(" ")[0]
        raise wrong(field if field in found else None, str(error), code="invalid_value") from error
    return sampler


async def _constraint(request: HttpRequest, kind: Kind, text: str) -> TokenAutomaton:
    """Compiled, if it is not kept, when its turn comes: that may take seconds, which others do not wait for."""
    served: Served = request.app.state.served
    found = served.automata.kept(kind, text)
    if found is None:
        found = await compute(request, lambda: naming(kind, lambda: served.automata.get(kind, text)),
                              turn=served.compiling)
    if found is None:
        raise ApiError(400, "the client went away")
    return found


def _logit_bias(value: Any, name: str) -> tuple[tuple[int, float], ...]:
    biases = fields.mapping(value, name)
    if len(biases) > _MOST_BIASES:
        raise wrong(name, f"has {len(biases)} tokens; {_MOST_BIASES} at most", code="invalid_value")
    found = []
    for key, bias in biases.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise wrong(name, f"has the key {fields.shown(key)}; keys are token ids", code="invalid_value")
        found.append((int(key), fields.number(-100, 100)(bias, f"{name}.{key}")))
    return tuple(sorted(found))


def _stream_options(value: Any, name: str) -> bool:
    options = fields.read_fields(fields.mapping(value, name), {"include_usage": fields.boolean}, refused={},
                                 accepted={"include_obfuscation": (False,)}, where=f"{name}.")
    return "include_usage" in options and options["include_usage"]


def _schema(value: Any, name: str) -> str:
    """A JSON schema as text: an object, or already a string."""
    return fields.string(value, name) if isinstance(value, str) else json.dumps(fields.mapping(value, name))
