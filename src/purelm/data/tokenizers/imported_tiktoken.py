"""Tokenizers of tiktoken: ranks of byte sequences, which a file has, and a pattern of words, which it has not."""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from purelm.data.tokenizers.base import Tokenizer, check_encodable
from purelm.data.tokenizers.imported import ImportedTokenizer
from purelm.data.tokenizers.libraries import library
from purelm.errors import UserError, did_you_mean

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_UNCASED = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# How each published vocabulary divides a text into words before it merges bytes.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|"
              r"\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": (rf"{_BEFORE}{_CASED}*{_UNCASED}+{_CONTRACTIONS}?|{_BEFORE}{_CASED}+{_UNCASED}*{_CONTRACTIONS}?|"
              rf"\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"),
    "llama3": rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "qwen": rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
}
PATTERNS["r50k"] = PATTERNS["p50k"] = PATTERNS["gpt2"]
# Qwen's own tokenizers compose characters (Unicode's normal form C) before they divide a text.
NORMAL_FORMS = {name: "NFC" if name == "qwen" else None for name in PATTERNS}
_PATTERN_OF_MODEL = {"gpt2": "gpt2", "llama": "llama3", "qwen": "qwen", "qwen2": "qwen", "qwen3": "qwen"}
_RESERVED = "<|reserved_special_token_{}|>"
# Special tokens by their distance from the last rank.
_FIM = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
_SPECIAL = {
    "gpt2": {0: "<|endoftext|>"},
    "cl100k": {1: "<|endoftext|>", **dict(enumerate(_FIM, start=2)), 20: "<|endofprompt|>"},
    "o200k": {1: "<|endoftext|>", 20: "<|endofprompt|>"},
    "llama3": dict(enumerate([
        "<|begin_of_text|>", "<|end_of_text|>", *(_RESERVED.format(number) for number in range(4)),
        "<|start_header_id|>", "<|end_header_id|>", _RESERVED.format(4), "<|eot_id|>",
        *(_RESERVED.format(number) for number in range(5, 251))])),
    "qwen": dict(enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>",
                            *(f"<|extra_{number}|>" for number in range(205))])),
}
_SPECIAL["r50k"] = _SPECIAL["gpt2"]
# Its ranks go on after the end of text.
_SPECIAL["p50k"] = {-25: "<|endoftext|>"}
# tiktoken panics at white space of a million characters in a row.
_LONGEST_SPACE = 900_000
# Characters of a text from which on a thread for each is worth its while.
_LONG = 20_000


class TiktokenTokenizer(ImportedTokenizer):
    """Byte-level BPE whose ids are the ranks. Options: "file" names the ranks, "pattern" is the regular expression of
    words, "normal_form" the one of Unicode's that a text is put into before, or None. No byte is unknown, and a text in
    that form comes back exactly."""

    kind = "tiktoken"

    @cached_property
    def _encoding(self) -> Any:
        tiktoken = library("tiktoken", self.settings.options["file"])
        ranks = read_ranks(self.file(self.settings.options["file"]), self.settings.options["file"])
        return tiktoken.Encoding(self.kind, pat_str=self.settings.options["pattern"], mergeable_ranks=ranks,
                                 special_tokens=dict(self.settings.special_tokens))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        texts = [self._normal(text) for text in texts]
        if sum(map(len, texts)) < _LONG * len(texts):
            found = map(self._encoding.encode_ordinary, texts)
        else:
            found = self._encoding.encode_ordinary_batch(texts)
        return [np.asarray(ids, np.int32) for ids in found]

    def encode_with_specials(self, text: str) -> np.ndarray:
        return np.asarray(self._encoding.encode(self._normal(text), allowed_special="all"), np.int32)

    def _normal(self, text: str) -> str:
        """`text` as it is divided; UserError where the library cannot."""
        check_encodable(text)
        if len(text) > _LONGEST_SPACE and max(map(len, re.findall(r"\s+", text)), default=0) > _LONGEST_SPACE:
            raise UserError(f"the text has more than {_LONGEST_SPACE} characters of white space in a row, which "
                            "tiktoken cannot divide; take them out")
        form = self.settings.options["normal_form"]
        return text if form is None else unicodedata.normalize(form, text)

    def _decode(self, ids: list[int]) -> str:
        return b"".join(self.token_bytes[number] for number in ids).decode("utf-8", errors="replace")

    def spans(self, text: str) -> np.ndarray:
        """int64 [T, 2]: of `text` as it was given; characters that became one are its place together."""
        normal = self._normal(text)
        found = Tokenizer.spans(self, normal)
        if normal == text:
            return found
        places = _places(text, self.settings.options["normal_form"])
        return np.stack([places[found[:, 0], 0], places[found[:, 1] - 1, 1]], axis=1)

    def _base_bytes(self) -> list[bytes]:
        found = [b""] * self.vocabulary_size
        for content, number in read_ranks(self.file(self.settings.options["file"]), "").items():
            found[number] = content
        for text, number in self.settings.special_tokens.items():
            found[number] = text.encode("utf-8")
        return found


def _places(text: str, form: str) -> np.ndarray:
    """int64 [N, 2]: the characters [start, stop) of `text` that each of its normal form's came from."""

    def normal(part: str) -> str:
        return unicodedata.normalize(form, part)

    found, start = [], 0
    for stop in range(1, len(text) + 1):
        # A mark belongs to what it stands on, and some letters (Korean vowels) join the one before.
        joins = stop < len(text) and (unicodedata.combining(unicodedata.normalize("NFD", text[stop])[0]) or
                                      normal(text[start:stop + 1]) != normal(text[start:stop]) + normal(text[stop]))
        if not joins:
            found += [(start, stop)] * len(normal(text[start:stop]))
            start = stop
    return np.asarray(found, np.int64).reshape(-1, 2)


def is_ranks(content: bytes) -> bool:
    """Whether a file, its first bytes suffice, is one of tiktoken's: lines of base64 and a number."""
    first, _, _ = content.partition(b"\n")
    try:
        token, rank = first.split(b" ")
        base64.b64decode(token, validate=True)
        return int(rank) >= 0
    except ValueError:
        return False


def read_ranks(content: bytes, name: str) -> dict[bytes, int]:
    """Each token's bytes and id; UserError that names the line that is wrong, and bytes without a token."""
    ranks = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split(b" ")
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise UserError(f"{name}: line {number} is no token in base64 and its rank") from error
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if missing:
        raise UserError(f"{name}: the byte {missing[0]} has no token; the file was cut short or is none of tiktoken's")
    return ranks


def pattern_name(model_type: str, named: str | None, file: str) -> str:
    """Which of PATTERNS a file of ranks goes with: the one that is named, or the model's; UserError for neither."""
    if named is None and model_type in _PATTERN_OF_MODEL:
        return _PATTERN_OF_MODEL[model_type]
    if named is None:
        raise UserError(f"{file}: a file of tiktoken does not say how it divides words; name its pattern, one of "
                        f"{', '.join(PATTERNS)}")
    if named not in PATTERNS:
        raise UserError(f"{file}: no pattern is called {named!r}{did_you_mean(named, PATTERNS)}")
    return named


def usual_special_tokens(pattern: str, num_ranks: int) -> dict[str, int]:
    """The special tokens that the vocabulary was published with."""
    return {text: num_ranks + distance for distance, text in _SPECIAL[pattern].items()}
