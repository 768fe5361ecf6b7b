"""Tokenizers as the files that transformers loads: our own as tokenizer.json, imported ones as they came."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from purelm.data.tokenizers.base import END_OF_TEXT, Tokenizer
from purelm.data.tokenizers.imported import ImportedTokenizer
from purelm.data.tokenizers.simple import ByteTokenizer, CharacterTokenizer
from purelm.data.tokenizers.trained import TrainedTokenizer, byte_characters
from purelm.errors import UserError

_SEQUENCE_TASKS = ("sequence_to_sequence", "span_corruption")
_MASKED = "masked_language_modeling"
# The task's own id, the first after the tokenizer's.
_MASK = "<mask>"
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def write_tokenizer_files(tokenizer: Tokenizer, folder: pathlib.Path,
                          task: str = "language_modeling") -> list[pathlib.Path]:
    """Writes a tokenizer's files into a checkpoint's folder and gives their paths.

    An imported tokenizer's own files come back byte for byte. Of ours, tokenizer.json, tokenizer_config.json and
    special_tokens_map.json are written: transformers gives text the same ids, and what `Tokenizer.special` puts around
    texts of `task` it adds with add_special_tokens; "<mask>" is the id that masked_language_modeling has for it. But
    there "<|endoftext|>" in a text is the special token unless split_special_tokens is set; for us it is text.

    Raises UserError for a words tokenizer, and where a file cannot be written.
    """
    folder = pathlib.Path(folder)
    if isinstance(tokenizer, ImportedTokenizer):
        contents = {name: tokenizer.file(name) for name in tokenizer.file_names}
    else:
        end = {"eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
        named = (end if tokenizer.end_of_text else {}) | ({"mask_token": _MASK} if task == _MASKED else {})
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                  "model_max_length": int(1e30), **named}
        contents = {name: json.dumps(content, ensure_ascii=False, indent=2).encode("utf-8") for name, content in (
            ("tokenizer.json", tokenizer_json(tokenizer, task)), ("tokenizer_config.json", config),
            ("special_tokens_map.json", named))}
    paths = []
    for name, content in contents.items():
        path = folder / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise UserError(f"{path}: the tokenizer cannot be written ({error.strerror or error})") from error
        paths.append(path)
    return paths


def tokenizer_json(tokenizer: Tokenizer, task: str) -> dict[str, Any]:
    """The content of a tokenizer.json of the `tokenizers` library that gives text our ids; UserError for words."""
    if isinstance(tokenizer, TrainedTokenizer):
        content = tokenizer.payload()["tokenizer"]
    elif isinstance(tokenizer, ByteTokenizer):
        vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
        content = {"pre_tokenizer": _BYTE_LEVEL, "decoder": _BYTE_LEVEL, "model": _pieces_alone(vocabulary)}
    elif isinstance(tokenizer, CharacterTokenizer):
        vocabulary = {character: number for number, character in enumerate(tokenizer.characters)}
        every = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        content = {"pre_tokenizer": every, "decoder": {"type": "Fuse"}, "model": _pieces_alone(vocabulary)}
    else:
        raise UserError(f"config.data.tokenizer={tokenizer.kind}: a {tokenizer.kind} tokenizer cannot be exported "
                        "exactly, as no tokenizer.json divides text into our words; to export, train with bpe, "
                        "wordpiece, unigram, characters or bytes")
    special = {END_OF_TEXT: tokenizer.end_of_text_id} if tokenizer.end_of_text else {}
    special |= {_MASK: tokenizer.vocabulary_size} if task == _MASKED else {}
    added = [{"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for text, number in special.items()]
    return {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, **content,
            "added_tokens": added, "post_processor": _frame(tokenizer, task)}


def _pieces_alone(vocabulary: dict[str, int]) -> dict[str, Any]:
    """BPE without merges: every piece stays alone."""
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary, "merges": []}


def _frame(tokenizer: Tokenizer, task: str) -> dict[str, Any] | None:
    """What stands around texts: every special id of ours is the end of text."""
    special = tokenizer.special
    source = task in _SEQUENCE_TASKS
    start = special.source_start if source else special.start
    end = special.source_end if source else special.end
    if not start and not end:
        return None

    def marks(ids: tuple[int, ...], side: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": END_OF_TEXT, "type_id": side}} for _ in ids]

    def text(name: str, side: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": side}}

    second = special.pair_type
    return {"type": "TemplateProcessing",
            "single": [*marks(start, 0), text("A", 0), *marks(end, 0)],
            "pair": [*marks(start, 0), text("A", 0), *marks(special.between, second if special.pair_type_from_between
                                                            else 0), text("B", second), *marks(end, second)],
            "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [tokenizer.end_of_text_id],
                                             "tokens": [END_OF_TEXT]}}}
