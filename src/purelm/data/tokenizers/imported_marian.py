"""Marian's tokenizers of translation models: a SentencePiece model for each language and one vocabulary for both."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from purelm.data.tokenizers.base import check_encodable
from purelm.data.tokenizers.imported import ImportedTokenizer, joined, special_splitter
from purelm.data.tokenizers.imported_sentencepiece import SPACE
from purelm.data.tokenizers.libraries import sentencepiece_processor
from purelm.errors import UserError

SOURCE, TARGET, VOCABULARY = "source.spm", "target.spm", "vocab.json"
# A source of a model for several languages begins with the one it is to be put into.
_LANGUAGE = re.compile(r">>[^<]*<<")


class MarianTokenizer(ImportedTokenizer):
    """`encode` cuts sources by source.spm, `encode_targets` targets by target.spm; the pieces' ids are vocab.json's,
    and a piece that is not there is the unknown token, the option "unknown_id".

    Punctuation is taken as it stands: what transformers does where sacremoses is not installed.
    """

    kind = "marian"

    @cached_property
    def _ids(self) -> dict[str, int]:
        return json.loads(self.file(VOCABULARY))

    @cached_property
    def _models(self) -> dict[str, Any]:
        return {name: sentencepiece_processor(self.file(name), name) for name in (SOURCE, TARGET)}

    @cached_property
    def _splitter(self) -> re.Pattern[str]:
        return special_splitter(self.settings.special_tokens)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text, SOURCE) for text in texts]

    def encode_targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text, TARGET) for text in texts]

    def _encode(self, text: str, model: str) -> np.ndarray:
        check_encodable(text)
        match = _LANGUAGE.match(text)
        pieces = [] if match is None else [match.group()]
        pieces += self._models[model].encode(text[match.end():] if match else text, out_type=str)
        unknown = self.settings.options["unknown_id"]
        return np.asarray([self._ids.get(piece, unknown) for piece in pieces], np.int32)

    def encode_with_specials(self, text: str) -> np.ndarray:
        """Of a source."""
        parts = self._splitter.split(text)
        return joined([[self.settings.special_tokens[part]] if number % 2 else self._encode(part, SOURCE)
                       for number, part in enumerate(parts) if part])

    def spans(self, text: str) -> np.ndarray:
        raise UserError("marian tokenizers do not keep where their tokens stood; extractive_qa takes a BERT-like "
                        "checkpoint")

    @cached_property
    def _pieces(self) -> list[str | None]:
        pieces: list[str | None] = [None] * self.vocabulary_size
        for piece, number in self._ids.items():
            pieces[number] = piece
        return pieces

    def _decode(self, ids: list[int]) -> str:
        """As transformers with use_source_tokenizer=False: text in stretches, each special token as its text with a
        space after it."""
        special = self.settings.special_tokens
        stretch: list[str] = []
        text = ""
        for number in ids:
            piece = self._pieces[number]
            if piece in special:
                text += self._models[TARGET].decode_pieces(stretch) + piece + " "
                stretch = []
            elif piece is not None:
                stretch.append(piece)
        return (text + self._models[TARGET].decode_pieces(stretch)).replace(SPACE, " ").strip()

    def _base_bytes(self) -> list[bytes]:
        return [b"" if piece is None else piece.replace(SPACE, " ").encode("utf-8") for piece in self._pieces]
