"""What of a JSON schema its regular expression cannot hold an answer to, which outlines_core leaves out silently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from purelm.errors import UserError

_LEFT_OUT = frozenset({
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "contains", "minContains",
    "maxContains", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "not",
    "if", "then", "else"})
# Keywords that hold schemas: one, a list, or by names.
_ONE, _LISTS, _NAMED = ("items", "additionalProperties"), ("anyOf", "oneOf", "allOf", "prefixItems"), (
    "properties", "$defs", "definitions")


def check_support(schema: Any) -> None:
    """UserError for the first part that an answer might not fulfill, by where it stands."""
    parts = [("", schema)]
    while parts:
        where, part = parts.pop()
        if not isinstance(part, dict):
            continue
        problem = _problem(part)
        if problem is not None:
            raise UserError(f"json_schema{f' at {where[1:]}' if where else ''}: {problem}")
        parts += _inside(where, part)


def _problem(part: dict[str, Any]) -> str | None:
    for name in part:
        if name in _LEFT_OUT or name == "uniqueItems" and part[name]:
            return f"{name} is not supported, answers could break it; leave it out"
    if "pattern" in part and ("minLength" in part or "maxLength" in part):
        return "pattern does not go with minLength and maxLength; say the length in the pattern"
    if isinstance(part.get("allOf"), list) and len(part["allOf"]) > 1:
        return "allOf of several schemas is not supported; write them as one"
    if part.get("enum") == []:
        return "enum is empty, and no answer fulfills it"
    if isinstance(part.get("required"), list) and isinstance(part.get("properties"), dict):
        missing = [name for name in part["required"] if name not in part["properties"]]
        if missing:
            return f"required has {missing[0]!r}, which is none of the properties"
    return None


def _inside(where: str, part: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in _ONE:
        if name in part:
            yield f"{where}.{name}", part[name]
    for name in _LISTS:
        if isinstance(part.get(name), list):
            yield from ((f"{where}.{name}[{number}]", inner) for number, inner in enumerate(part[name]))
    for name in _NAMED:
        if isinstance(part.get(name), dict):
            yield from ((f"{where}.{name}.{key}", inner) for key, inner in part[name].items())
