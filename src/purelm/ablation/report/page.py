"""A measured table as one HTML page that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.report.page_data import page_data
from purelm.ablation.table import Table

SCRIPTS = ("page_elements.js", "page_chart.js", "page_columns.js", "page_table.js", "page_detail.js", "page_curves.js",
           "page_main.js")
# What would end the slot, or a line of an old JavaScript, is written as an escape: JSON reads both alike.
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}

Points = Sequence[tuple[int, float]]


def page(table: Table, curves: Mapping[str, Any], configs: Mapping[str, Mapping[str, Mapping[str, Any]]], *,
         errors: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The table, its curves and every row's detail as a self-contained HTML page.

    Args:
      table: what was measured.
      curves: row -> seed -> points (step, loss) of the validation loss; or name of a loss -> the same, where there are
        several.
      configs: row -> seed -> path -> (value in the base, value in the row), where they differ.
      errors: row -> seed -> why the cell failed, where it did.

    Returns:
      The page: style, scripts and data are inside, and its content security policy lets nothing else be loaded or run.
    """
    script = '"use strict";\n(() => {\n' + "\n".join(_part(name) for name in SCRIPTS) + "\n})();\n"
    parts = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{_digest(script)}'",
        "title": html.escape(table.title),
        "style": _part("page.css"),
        "script": script,
        "data": to_slot(page_data(table, curves, configs, errors or {})),
    }
    # The template is cut before anything is put in, so that a label that looks like a slot is no slot.
    pieces = _part("page.html").split("@@")
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def to_slot(data: Any) -> str:
    """JSON that can stand between script tags, whatever its texts are."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _part(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
