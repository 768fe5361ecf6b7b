"""Rows to be answered: those of a file, in a format of the data or as plain texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from purelm.config import DataConfig
from purelm.data.example_cleaning import ExampleCleaner
from purelm.data.files import jsonl_rows, text_documents, without_compression
from purelm.data.formats import FORMATS
from purelm.data.sources import JSONL_ENDINGS
from purelm.errors import UserError

_ANSWERS = ("label", "tags", "targets", "answers")
# Of files that would be read as texts, one a line, and are none.
_TABLE_ENDINGS = (".csv", ".tsv", ".json", ".parquet", ".arrow", ".xlsx")


def read_new_rows(path: str, data: DataConfig, format_name: str,
                  example_of_text: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """The examples of a file, answers left out.

    JSON lines are rows of the format `format_name`; of any other file each line is a text for `example_of_text`.

    Raises:
      UserError: a file that is missing, empty or cannot be read, or a row without what its format needs.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise UserError(f"--input={path}: " + ("is a folder; give a file" if os.path.isdir(path) else "no such file"))
    name = os.path.basename(path)
    if without_compression(path.lower()).endswith(_TABLE_ENDINGS):
        raise UserError(f"--input={path}: neither JSON lines nor text; give rows as .jsonl, or as .txt one text a line")
    if without_compression(path.lower()).endswith(JSONL_ENDINGS):
        examples = [new_example(row, data, format_name, f"{name}, line {number}") for number, row in jsonl_rows(path)]
    else:
        examples = [example_of_text(text) for text in text_documents(path, "line")]
    if not examples:
        raise UserError(f"--input={path}: no rows in it; give one text a line, or JSON lines")
    return examples


def new_example(row: dict[str, Any], data: DataConfig, format_name: str, where: str) -> dict[str, Any]:
    """A row of the format `format_name`, without the answer that it may hold: it may be one that was never trained on.

    Raises UserError, beginning with `where`, for a row without what its format needs.
    """
    example = FORMATS[format_name](row, data, where, answered=False)
    return {**example, **{key: None for key in _ANSWERS if key in example}}


def clean_examples(examples: list[dict[str, Any]], data: DataConfig, format_name: str) -> list[dict[str, Any]]:
    """The examples with their texts cleaned as the training data's were; none is dropped."""
    cleaner = ExampleCleaner(data, format_name)
    return [cleaner.clean(example) for example in examples]
