"""table.csv and results.json: the whole table for other programs, in full precision."""

from __future__ import annotations

import collections.abc
import csv
import dataclasses
import io
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from purelm.ablation.table import Costs, Table
from purelm.errors import UserError

_COSTS = tuple(field.name for field in dataclasses.fields(Costs))
COLUMNS = ("row", "label", "group", "metric", "direction", "seeds", "mean", "spread", "difference", "interval_low",
           "interval_high", "p_value", "p_adjusted", "verdict", "published", "published_difference", "reproduced",
           "values", "changes", *_COSTS)
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_csv(table: Table) -> str:
    """A line for each row under each metric (COLUMNS); empty where there is nothing.

    `values` and `changes` are JSON: seed -> value, path -> value. Costs are repeated under each metric.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in table.rows:
        for metric in table.metrics:
            result = row.results[metric.name]
            low, high = result.interval or (None, None)
            writer.writerow((
                row.name, row.label or row.name, row.group, metric.name, metric.direction, len(result.values),
                result.mean, result.spread, result.difference, low, high, result.p_value, result.p_adjusted,
                result.verdict, result.published, result.published_difference,
                None if result.reproduced is None else str(result.reproduced).lower(), _json(result.values),
                _json(row.changes), *(getattr(row.costs, name) for name in _COSTS)))
    return stream.getvalue()


def to_json(table: Table) -> str:
    """The whole table as strict JSON: what is not finite is {"float": "NaN"}, which JSON has no number for."""
    return json.dumps(_plain(table), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str, where: str = "results.json") -> Table:
    """The table that `to_json` wrote: equal to it, sequences as tuples.

    Raises:
      UserError: not such a file; `where` names it.
    """
    try:
        return _read(Table, json.loads(text))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: no measured table ({type(error).__name__}: {str(error).splitlines()[0]}); "
                        "write it again by --report") from error


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """What json.dumps writes without a loss."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays.
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in results.json")


def _read(kind: Any, value: Any) -> Any:
    """`value`, read from JSON, as `kind` says: a dataclass, a union with None, a mapping, a tuple or a plain value."""
    if isinstance(value, dict) and set(value) == {"float"} and value["float"] in _SPECIAL:
        return _SPECIAL[value["float"]]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        if not isinstance(value, dict) or set(value) != set(names):
            raise ValueError(f"{kind.__name__} has the fields {', '.join(names)}")
        return kind(**{name: _read(hints[name], value[name]) for name in names})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _read(next(part for part in arguments if part is not types.NoneType), value)
    if origin is collections.abc.Mapping:
        return {name: _read(arguments[1], part) for name, part in value.items()}
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_read(part_kind, part) for part_kind, part in zip(kinds, value, strict=True))
    if isinstance(value, dict):
        return {name: _read(Any, part) for name, part in value.items()}
    if isinstance(value, list):
        return tuple(_read(Any, part) for part in value)
    if kind is float and isinstance(value, int):
        return float(value)
    return value
