"""A request's body: read within limits, and taken apart field by field."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from purelm.errors import UserError, did_you_mean
from purelm.serving.errors import ApiError, wrong
from purelm.serving.served import Limits

# (value, name) -> what it means; raises ApiError.
Check = Callable[[Any, str], Any]
# A body that is too long is read on so far, so that the client has sent it and listens to the answer.
_READ_ON = 2**24
_MOST_LEVELS = 200


async def read_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object that a request holds.

    Raises ApiError: 415 for another type, 413 for a longer body, 408 for one that does not arrive, 400 for what is no
    JSON object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type is {kind or 'missing'}; it must be application/json")
    try:
        async with asyncio.timeout(limits.seconds):
            content = await _read(request, limits.body_bytes)
    except TimeoutError as error:
        raise ApiError(408, f"the body did not arrive within {limits.seconds:g} s") from error
    try:
        value = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError.
        raise wrong(None, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise wrong(None, f"the body is {kind_of(value)}; it must be a JSON object", code="invalid_json")
    if _is_deep(value):
        raise wrong(None, f"the body has more than {_MOST_LEVELS} levels of lists and objects", code="invalid_json")
    return value


async def _read(request: Request, most: int) -> bytes:
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > most + _READ_ON:
                break
    except ClientDisconnect as error:
        raise ApiError(400, "the client went away") from error
    if size > most:
        raise ApiError(413, f"the body is longer than {most // 1024} KiB", code="body_too_large")
    return b"".join(parts)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects lie inside each other so deep that writing them again could go too deep."""
    level, depth = [value], 0
    while level and depth <= _MOST_LEVELS:
        level, depth = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)
                        if isinstance(inner, dict | list)], depth + 1
    return depth > _MOST_LEVELS


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def read_fields(body: Mapping[str, Any], checks: Mapping[str, Check], *, refused: Mapping[str, str],
                accepted: Mapping[str, tuple[Any, ...] | None], where: str = "") -> dict[str, Any]:
    """The fields of a body that are given and not null, each as its check makes it.

    Args:
      body: of the request.
      checks: of the fields that are read.
      refused: fields of OpenAI's API that are not served, and why or what to give in their place.
      accepted: fields of OpenAI's API that change no answer, and the values that they may have; None is any.
      where: of an object inside of the body, what stands before the names of its fields in messages.

    Raises ApiError 400 for every other field, for a refused one, and for a wrong value.
    """
    found = {}
    for name, value in body.items():
        if value is None and (name in accepted or name in refused or name in checks) or _is_accepted(
                name, value, accepted):
            continue
        if name in refused:
            raise wrong(where + name, refused[name], code="unsupported_parameter")
        if name in accepted:
            raise wrong(where + name, f"{shown(value)} is not served; leave it out", code="unsupported_value")
        if name not in checks:
            raise wrong(where + name, f"there is no such field{did_you_mean(name, checks)}", code="unknown_parameter")
        found[name] = checks[name](value, where + name)
    return found


def _is_accepted(name: str, value: Any, accepted: Mapping[str, tuple[Any, ...] | None]) -> bool:
    return name in accepted and (accepted[name] is None or any(type(value) is type(v) and value == v
                                                               for v in accepted[name]))


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list",
             dict: "an object", type(None): "null"}
    return kinds[type(value)]


def shown(value: Any) -> str:
    """A JSON value for a message, short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def number(low: float, high: float) -> Check:
    """A number from low to high."""
    def check(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong(name, f"is {kind_of(value)}; it must be a number from {low:g} to {high:g}", code="invalid_type")
        if not low <= value <= high:
            raise wrong(name, f"is {shown(value)}; it must be from {low:g} to {high:g}", code="invalid_value")
        return float(value)
    return check


def integer(low: int, high: int) -> Check:
    """A whole number from low to high."""
    def check(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(name, f"is {shown(value)}; it must be a whole number from {low} to {high}", code="invalid_type")
        if not low <= value <= high:
            raise wrong(name, f"is {shown(value)}; it must be from {low} to {high}", code="invalid_value")
        return value
    return check


def boolean(value: Any, name: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise wrong(name, f"is {kind_of(value)}; it must be true or false", code="invalid_type")
    return value


def string(value: Any, name: str) -> str:
    """A string of valid Unicode."""
    if not isinstance(value, str):
        raise wrong(name, f"is {kind_of(value)}; it must be a string", code="invalid_type")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise wrong(name, f"has half a surrogate pair at character {error.start}", code="invalid_value") from error
    return value


def mapping(value: Any, name: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(name, f"is {kind_of(value)}; it must be an object", code="invalid_type")
    return value


def strings(most: int) -> Check:
    """A string or a list of up to `most`, none of them empty, as a tuple."""
    def check(value: Any, name: str) -> tuple[str, ...]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list):
            raise wrong(name, f"is {kind_of(value)}; it must be a string or a list of strings", code="invalid_type")
        if len(given) > most:
            raise wrong(name, f"has {len(given)} strings; {most} at most", code="invalid_value")
        found = tuple(string(item, f"{name}[{number}]") for number, item in enumerate(given))
        if "" in found:
            raise wrong(name, "has an empty string; leave it out", code="invalid_value")
        return found
    return check


def naming(param: str, make: Callable[[], Any]) -> Any:
    """`make()`; a UserError that it raises becomes one about the field `param`."""
    try:
        return make()
    except UserError as error:
        raise wrong(param, str(error), code="invalid_value") from error
