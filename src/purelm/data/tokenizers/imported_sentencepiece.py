"""Tokenizers of SentencePiece (Kudo & Richardson 2018), given by a model file alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from purelm.data.tokenizers.base import check_encodable
from purelm.data.tokenizers.imported import ImportedTokenizer, joined, special_splitter
from purelm.data.tokenizers.libraries import sentencepiece_processor

SPACE = "\u2581"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_REPLACEMENT = "\ufffd"


class SentencePieceTokenizer(ImportedTokenizer):
    """The model's ids are the tokenizer's. Options: "file" names the model; "added" has the text and id of tokens after
    the model's, such as T5's <extra_id_99> .. <extra_id_0>; "legacy" says that each stretch of text between special
    tokens gets a space of its own, as transformers did at first.

    Pieces that users of SentencePiece define are found in every text; those of them that are special tokens are not.
    `decode` is SentencePiece's, which special tokens part, shown as their text, the unknown token too.
    """

    kind = "sentencepiece"

    @cached_property
    def _model(self) -> Any:
        name = self.settings.options["file"]
        return sentencepiece_processor(self.file(name), name)

    @cached_property
    def _without_prefix(self) -> Any:
        name = self.settings.options["file"]
        return sentencepiece_processor(self.file(name), name, dummy_prefix=False)

    @cached_property
    def _splitter(self) -> re.Pattern[str]:
        return special_splitter(self.settings.special_tokens)

    @cached_property
    def _spellable(self) -> re.Pattern[str] | None:
        """Special tokens that the model itself would find in a text, cut after their first character."""
        found = [text for text, number in self.settings.special_tokens.items()
                 if number < self._model.get_piece_size() and not self._model.is_control(number)
                 and not self._model.is_unknown(number)]
        choices = "|".join(f"(?<={re.escape(text[0])})(?={re.escape(text[1:])})" for text in found if len(text) > 1)
        return re.compile(choices) if choices else None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        for text in texts:
            check_encodable(text)
        return [self._encode(text, self._model) for text in texts]

    def _encode(self, text: str, model: Any) -> np.ndarray:
        if self._spellable is None:
            return np.asarray(model.encode(text), np.int32)
        first, *others = self._spellable.split(text)
        return joined([model.encode(first), *(self._without_prefix.encode(other) for other in others)])

    def encode_with_specials(self, text: str) -> np.ndarray:
        check_encodable(text)
        ids_of = self.settings.special_tokens
        later = self._model if self.settings.options["legacy"] else self._without_prefix
        parts = self._splitter.split(text)
        return joined([[ids_of[part]] if number % 2 else self._encode(part, self._model if number == 0 else later)
                       for number, part in enumerate(parts) if part])

    def spans(self, text: str) -> np.ndarray:
        """int64 [T, 2]: the characters [start, stop) of `text` that each token came from; empty for a part of one."""
        check_encodable(text)
        stretches = [text] if self._spellable is None else self._spellable.split(text)
        found, start = [np.zeros((0, 2), np.int64)], 0
        for number, stretch in enumerate(stretches):
            model = self._without_prefix if number else self._model
            offsets = np.asarray(model.encode_as_offset_mapping(stretch)["offsets"], np.int64).reshape(-1, 2)
            found.append(offsets + start)
            start += len(stretch)
        return np.concatenate(found)

    @cached_property
    def _text_of_special(self) -> dict[int, str]:
        return {number: text for text, number in self.settings.special_tokens.items()}

    def _decode(self, ids: list[int]) -> str:
        """The text up to the first special token is the library's; after it no space is taken away. Ids between the
        model's and added ones that stand for nothing are left out."""
        ids = [number for number in ids if number in self._text_of_special or number < self._model.get_piece_size()]
        length = next((place for place, number in enumerate(ids) if number in self._text_of_special), len(ids))
        return self._model.decode(ids[:length]) + self._text_after(ids[length:])

    def _text_after(self, ids: list[int]) -> str:
        text, broken = [], b""
        for number in ids:
            content = self.token_bytes[number]
            if number not in self._text_of_special and _BYTE_TOKEN.fullmatch(self._model.id_to_piece(number)):
                broken += content
                continue
            text += [_of_bytes(broken), content.decode("utf-8")]
            broken = b""
        return "".join([*text, _of_bytes(broken)])

    def _base_bytes(self) -> list[bytes]:
        return [self._bytes_of(number) for number in range(self.vocabulary_size)]

    def _bytes_of(self, number: int) -> bytes:
        if number in self._text_of_special:
            return self._text_of_special[number].encode("utf-8")
        if number >= self._model.get_piece_size():
            return b""
        piece = self._model.id_to_piece(number)
        match = _BYTE_TOKEN.fullmatch(piece) if self._model.is_byte(number) else None
        return piece.replace(SPACE, " ").encode("utf-8") if match is None else bytes([int(match[1], 16)])


def _of_bytes(content: bytes) -> str:
    """UTF-8 with U+FFFD for each byte, not each run of bytes, that is none: SentencePiece's way."""
    text = ""
    while content:
        try:
            return text + content.decode("utf-8")
        except UnicodeDecodeError as error:
            text += content[:error.start].decode("utf-8") + _REPLACEMENT
            content = content[error.start + 1:]
    return text
