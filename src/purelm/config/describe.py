"""The config's fields as text, for --help_config."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Iterator

from purelm.config.schema import Config


def field_lines(kind: type = Config, prefix: str = "--config") -> Iterator[str]:
    """One paragraph a field: its flag, its default, its choices and its documentation."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield f"\n{field.name}: {(hint.__doc__ or '').strip()}"
            yield from field_lines(hint, f"{prefix}.{field.name}")
            continue
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        what = f" One of: {', '.join(choices)}." if choices else ""
        default = "none" if field.default is None else field.default
        text = f"{field.metadata['doc']}.{what} (default: {default})"
        yield f"  {prefix}.{field.name}\n" + textwrap.fill(text, 110, initial_indent=" " * 6,
                                                            subsequent_indent=" " * 6)
