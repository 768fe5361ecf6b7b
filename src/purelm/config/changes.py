"""A config's fields by their paths, such as "model.num_heads": changed, listed, and compared."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from purelm.config.schema import Config
from purelm.config.serialization import coerce
from purelm.config.validate import check_fields, hints_of
from purelm.errors import UserError, did_you_mean


def apply_changes(config: Config, changes: Mapping[str, Any], where: str = "") -> Config:
    """The config with each path's field set; lists become tuples and whole numbers floats where declared.

    Args:
      where: what comes before an error's message, such as "table.py: row 'A1': ".

    Raises:
      UserError: a path that does not exist ("did you mean"), or a value of another type or out of bounds.
    """
    sections: dict[str, dict[str, Any]] = {}
    for path, value in coerced(changes, where).items():
        section, _, name = path.rpartition(".")
        sections.setdefault(section, {})[name] = value
    for section, values in sections.items():
        config = dataclasses.replace(config, **(
            {section: dataclasses.replace(getattr(config, section), **values)} if section else values))
    try:
        check_fields(config)
    except UserError as error:
        raise UserError(f"{where}{error}") from error
    return config


def coerced(changes: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """path -> value as its field holds it; UserError ("did you mean") for a path that does not exist."""
    return {path: coerce(value, field_type(path, where)) for path, value in changes.items()}


def field_type(path: str, where: str = "") -> Any:
    """The declared type of the field that a path names; UserError ("did you mean") where there is none."""
    kinds = field_types()
    if not isinstance(path, str) or path not in kinds:
        shown = str(path).removeprefix("config.")
        if shown in kinds:
            raise UserError(f"{where}'{path}': fields are named without 'config.', as '{shown}'")
        near = [name for name in kinds if name.rpartition(".")[2] == shown.rpartition(".")[2]]
        hint = f"; did you mean '{near[0]}'?" if near else did_you_mean(shown, kinds)
        hint = hint if "did you mean" in hint else "; train.py --help_config lists them all"
        raise UserError(f"{where}config.{shown} does not exist{hint}")
    return kinds[path]


@functools.cache
def field_types() -> dict[str, Any]:
    """path -> declared type, of every field."""
    found: dict[str, Any] = {}
    for name, hint in hints_of(Config).items():
        if dataclasses.is_dataclass(hint):
            found |= {f"{name}.{inner}": kind for inner, kind in hints_of(hint).items()}
        else:
            found[name] = hint
    return found


def flatten(config: Config) -> dict[str, Any]:
    """path -> value, of every field."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{inner.name}": getattr(value, inner.name) for inner in dataclasses.fields(value)}
        else:
            found[field.name] = value
    return found


def diff_configs(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """path -> (value before, value after), where they differ."""
    old, new = flatten(before), flatten(after)
    return {path: (old[path], new[path]) for path in old if old[path] != new[path]}
