"""The libraries of the extra `interop` that tokenizers are run by, loaded where one is first needed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from purelm.errors import UserError


def library(name: str, needed_for: str) -> ModuleType:
    """The module; UserError that says how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{needed_for} needs {name}: pip install -e '.[interop]'") from error


def sentencepiece_processor(model: bytes, name: str, *, dummy_prefix: bool = True) -> Any:
    """A SentencePieceProcessor of the bytes of a model file.

    Without `dummy_prefix` it writes no space before a text, whatever the model says. `name` of the file is for the
    UserError about one that is no SentencePiece model.
    """
    sentencepiece = library("sentencepiece", name)
    # Fields of protocol buffers that come later win: normalizer_spec (3) { add_dummy_prefix (3): false }.
    model = model if dummy_prefix else model + b"\x1a\x02\x18\x00"
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(f"{name}: not a SentencePiece model") from error
    if not processor.get_piece_size():
        raise UserError(f"{name}: not a SentencePiece model (it has no pieces)")
    return processor
