"""A config as JSON and as the ConfigDict behind the absl flag; both ways, exactly."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import types
import typing
from typing import TYPE_CHECKING, Any

from purelm.config.schema import Config
from purelm.config.validate import check_fields, hints_of
from purelm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import ml_collections


def to_json(config: Config) -> str:
    """The config as indented JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"


def from_dict(values: dict[str, Any], kind: type = Config, where: str = "config") -> Any:
    """The dataclass `kind` from nested dictionaries; lists become tuples and whole numbers floats where declared.

    Raises:
      UserError: a field that does not exist ("did you mean").
    """
    hints = hints_of(kind)
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{where}.{name} does not exist{did_you_mean(name, hints)}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise UserError(f"{where}.{name}: wants a section of fields, not {value!r}")
            arguments[name] = from_dict(value, hints[name], f"{where}.{name}")
        else:
            arguments[name] = coerce(value, hints[name])
    return kind(**arguments)


def load_json(path: str | pathlib.Path) -> Config:
    """A config that `to_json` wrote.

    Raises:
      UserError: the file is missing or is not such a config.
    """
    try:
        values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a JSON config ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON config (wants an object)")
    return from_dict(values)


def as_flag(config: Config) -> ml_collections.ConfigDict:
    """The mutable, typed ConfigDict that the absl flag holds; a config file's get_config returns it.

    Raises:
      UserError: a field of another type than declared, or out of its bounds.
    """
    from ml_collections import config_dict

    check_fields(from_dict(dataclasses.asdict(config)))

    def convert(section: Any) -> config_dict.ConfigDict:
        result = config_dict.ConfigDict()
        hints = hints_of(type(section))
        for field in dataclasses.fields(section):
            value = getattr(section, field.name)
            if dataclasses.is_dataclass(value):
                result[field.name] = convert(value)
            else:
                result[field.name] = config_dict.placeholder(_plain_type(hints[field.name]))
                result[field.name] = coerce(value, hints[field.name])
        return result

    return convert(config)


def from_flag(flag: ml_collections.ConfigDict) -> Config:
    """The frozen config that a ConfigDict says."""
    return from_dict(flag.to_dict())


def _plain_type(hint: Any) -> type:
    """The one concrete type behind `X | None`, Literal and tuple hints."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _plain_type(next(argument for argument in arguments if argument is not type(None)))
    if origin is typing.Literal:
        return type(arguments[0])
    return origin or hint


def coerce(value: Any, hint: Any) -> Any:
    """The value as a field of this type holds it: lists as tuples, whole numbers as floats where declared."""
    plain = _plain_type(hint)
    if plain is tuple and isinstance(value, (list, tuple)):
        item = typing.get_args(hint)[0]
        return tuple(coerce(part, item) if not isinstance(part, (list, tuple)) else
                     _coerce_items(part, typing.get_args(item)) for part in value)
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value


def _coerce_items(values: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) != len(hints):
        return tuple(values)  # For check_fields to name.
    return tuple(coerce(value, hint) for value, hint in zip(values, hints))
