"""A table's spec as JSON, and back exactly."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

from purelm.ablation.spec import Ablation, Evaluation, Metric, Row, Stage
from purelm.config import Config, from_dict
from purelm.config.changes import field_types
from purelm.config.serialization import coerce
from purelm.errors import UserError

_PARTS = {"rows": Row, "metrics": Metric, "evaluations": Evaluation, "stages": Stage}
# Which fields hold path -> value, path -> values, and stage -> (path -> value).
_CHANGES, _CHOICES, _NESTED = ("changes",), ("grid", "search"), ("stage_changes",)


def to_json(ablation: Ablation) -> str:
    """Indented JSON text."""
    return json.dumps(dataclasses.asdict(ablation), indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Ablation:
    """What `to_json` wrote.

    Raises:
      KeyError, TypeError, ValueError: it did not.
      UserError: a field of the config that does not exist.
    """
    values = json.loads(text)
    for name, kind in _PARTS.items():
        values[name] = tuple(_part(kind, part) for part in values[name])
    seeds = values["seeds"]
    return Ablation(**{
        **values, "base": from_dict(values["base"], Config), "seeds": seeds if isinstance(seeds, int) else tuple(seeds),
        "search": _choices(values["search"]), "search_seeds": tuple(values["search_seeds"]),
        "expected_order": tuple(values["expected_order"])})


def read(workdir: str) -> Ablation:
    """The spec that a work folder holds.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = pathlib.Path(workdir) / "ablation.json"
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--workdir={workdir}: no table was begun here (no ablation.json); give "
                        "--ablation=configs/ablations/....py with it, or another folder") from None
    except (OSError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path}: not a table of this version ({' '.join(str(error).split())}); give --ablation "
                        "again") from error


def check_same_table(workdir: str, ablation: Ablation) -> None:
    """Nothing, where no table was begun in the work folder.

    Raises:
      UserError: it holds another table, whose finished base would be set aside for this one's.
    """
    path = pathlib.Path(workdir) / "ablation.json"
    try:
        before = read(workdir)
    except UserError:  # None yet, or one of an older version, whose cells then speak for themselves.
        return
    if before.title != ablation.title:
        raise UserError(f"--workdir={workdir}: holds the table '{before.title}', not '{ablation.title}'; give another "
                        f"folder (or, where it is the same under another title, remove {path})")


def evaluation_of(values: Mapping[str, Any]) -> Evaluation:
    """An Evaluation from JSON."""
    return _part(Evaluation, values)


def _part(kind: type, values: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(kind)}
    found = {}
    for name, value in values.items():
        if name not in names:
            raise ValueError(f"{kind.__name__} has no field {name}")
        if name in _CHANGES:
            value = _changes(value)
        elif name in _CHOICES and value is not None:
            value = _choices(value)
        elif name in _NESTED:
            value = {stage: _changes(changes) for stage, changes in value.items()}
        found[name] = value
    return kind(**found)


def _changes(values: Mapping[str, Any]) -> dict[str, Any]:
    kinds = field_types()
    return {path: _as_given(value, kinds.get(path)) for path, value in values.items()}


def _choices(values: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    kinds = field_types()
    return {path: tuple(_as_given(value, kinds.get(path)) for value in options) for path, options in values.items()}


def _as_given(value: Any, kind: Any) -> Any:
    """Only lists need the field's type: JSON keeps numbers, texts and none as they were."""
    if isinstance(value, list):
        return coerce(value, kind) if kind is not None and typing.get_origin(kind) is tuple else tuple(value)
    return value
