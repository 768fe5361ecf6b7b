"""How a knob of the config is declared."""

from __future__ import annotations

import dataclasses
from typing import Any


def knob(default: Any, doc: str, *, minimum: float | None = None, above: float | None = None,
         maximum: float | None = None) -> Any:
    """A dataclass field with its documentation and its bounds (`above` is exclusive)."""
    return dataclasses.field(
        default=default, metadata={"doc": doc, "minimum": minimum, "above": above, "maximum": maximum})
