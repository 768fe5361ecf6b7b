"""Whether every field of a spec is of the type that it declares."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from purelm.ablation.spec import Ablation, Evaluation, Metric, Row, Stage
from purelm.config.validate import hints_of
from purelm.errors import UserError, did_you_mean

_PARTS = {"rows": (Row, "row"), "metrics": (Metric, "metric"), "evaluations": (Evaluation, "evaluation"),
          "stages": (Stage, "stage")}
_WANTED = {int: "a whole number", float: "a number", str: "text", bool: "True or False", type(None): "None",
           tuple: "a tuple such as (1, 2)", Mapping: "a mapping such as {'model.width': 64}"}


def check_types(ablation: Ablation, where: str) -> None:
    """Raises UserError for the first field of another type than declared; `where` comes first, then the part."""
    for name, (kind, noun) in _PARTS.items():
        parts = getattr(ablation, name)
        if not isinstance(parts, tuple):
            raise UserError(f"{where}: {name}: wants a tuple of {kind.__name__}(...), not {type(parts).__name__}")
        for number, part in enumerate(parts):
            if not isinstance(part, kind):
                raise UserError(f"{where}: {name}[{number}]: wants {kind.__name__}(...), not {part!r:.60}")
            _check_fields(part, f"{where}: {noun} '{part.name}'")
    _check_fields(ablation, where, skip=_PARTS)


def _check_fields(part: Any, where: str, skip: Mapping[str, Any] = types.MappingProxyType({})) -> None:
    for field in dataclasses.fields(part):
        value, hint = getattr(part, field.name), hints_of(type(part))[field.name]
        if field.name in skip:
            continue
        if typing.get_origin(hint) is typing.Literal:
            if value not in typing.get_args(hint):
                choices = typing.get_args(hint)
                raise UserError(f"{where}: {field.name}={value!r} is not known{did_you_mean(str(value), choices)}")
        elif not _fits(value, hint):
            raise UserError(f"{where}: {field.name}={value!r:.60}: wants {_wanted(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(name, arguments[0]) and _fits(item, arguments[1]) for name, item in value.items())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and isinstance(value, bool) == (hint is bool)


def _wanted(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_wanted(argument) for argument in arguments)
    if origin is Mapping:
        inner = arguments[1]
        if typing.get_origin(inner) is tuple:
            return "a mapping to tuples such as {'model.width': (64, 128)}"
        if typing.get_origin(inner) is Mapping:
            return "a mapping such as {'STAGE': {'model.width': 64}}"
        return "a mapping such as {'test/loss': 2.5}" if inner is float else _WANTED[Mapping]
    if origin is tuple:
        return "a tuple such as ('a', 'b')" if arguments[0] is str else _WANTED[tuple]
    return _WANTED.get(hint, f"{hint.__name__}(...)")
