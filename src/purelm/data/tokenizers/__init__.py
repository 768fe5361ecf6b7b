"""Tokenizers: bytes, characters, words, trained BPE, WordPiece and Unigram, and those of published checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from purelm.data.tokenizers.base import END_OF_TEXT, FORMAT, Tokenizer
from purelm.data.tokenizers.imported import ImportedSettings, ImportedTokenizer
from purelm.data.tokenizers.imported_json import HuggingFaceTokenizer
from purelm.data.tokenizers.imported_marian import MarianTokenizer
from purelm.data.tokenizers.imported_sentencepiece import SentencePieceTokenizer
from purelm.data.tokenizers.imported_tiktoken import TiktokenTokenizer
from purelm.data.tokenizers.simple import ByteTokenizer, CharacterTokenizer
from purelm.data.tokenizers.special import SpecialIds
from purelm.data.tokenizers.trained import TRAINED_KINDS, TrainedTokenizer, train_subwords
from purelm.data.tokenizers.words import WordTokenizer
from purelm.errors import UserError

__all__ = ["END_OF_TEXT", "TRAINED_KINDS", "ByteTokenizer", "CharacterTokenizer", "ImportedTokenizer", "SpecialIds",
           "Tokenizer", "TrainedTokenizer", "WordTokenizer", "load_tokenizer", "train_tokenizer"]

_IMPORTED = {kind.kind: kind for kind in (HuggingFaceTokenizer, SentencePieceTokenizer, TiktokenTokenizer,
                                          MarianTokenizer)}


def train_tokenizer(kind: str, texts: Iterable[str], vocabulary_size: int, *, end_of_text: bool,
                    show_progress: bool = False) -> Tokenizer:
    """A tokenizer of `kind` (words, bpe, wordpiece, unigram) made from `texts`; both raise UserError for a vocabulary
    that is too small (`WordTokenizer.train`, `train_subwords`)."""
    if kind == WordTokenizer.kind:
        return WordTokenizer.train(texts, vocabulary_size, end_of_text=end_of_text)
    return train_subwords(kind, texts, vocabulary_size, end_of_text=end_of_text, show_progress=show_progress)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote; UserError where the file is missing, cut short, changed or foreign."""
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise UserError(f"{path}: the tokenizer cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a tokenizer.json (not UTF-8 at byte {error.start})") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not whole JSON ({error.msg} at line {error.lineno}); the file was truncated or is no "
                        "tokenizer.json") from error
    if not isinstance(content, dict) or "format" not in content or content["format"] != FORMAT:
        foreign = isinstance(content, dict) and "model" in content and "pre_tokenizer" in content
        what = "a Hugging Face tokenizer, not" if foreign else "not"
        raise UserError(f"{path}: {what} a purelm tokenizer.json (format {FORMAT}); give one from a run folder")
    damaged = UserError(f"{path}: the tokenizer does not match its own fingerprint; the file was changed, so take it "
                        "again from the run that wrote it")
    try:
        tokenizer = _from_content(content)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged from error
    if tokenizer.fingerprint != content["fingerprint"]:
        raise damaged
    return tokenizer


def _from_content(content: dict[str, Any]) -> Tokenizer:
    kind, end_of_text = content["type"], content["end_of_text"]
    if kind == "bytes":
        return ByteTokenizer(end_of_text)
    if kind == "characters":
        return CharacterTokenizer(content["characters"], end_of_text)
    if kind == "words":
        return WordTokenizer(content["words"], end_of_text)
    if kind in TRAINED_KINDS:
        return TrainedTokenizer(kind, content["tokenizer"], end_of_text)
    if kind in _IMPORTED:
        return _IMPORTED[kind](content["files"], ImportedSettings.from_json(content["settings"]))
    raise KeyError(kind)
