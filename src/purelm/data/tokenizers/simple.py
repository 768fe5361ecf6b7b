"""Tokenizers whose tokens are bytes or characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from purelm.data.tokenizers.base import Tokenizer, check_encodable
from purelm.errors import UserError


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8 (ByT5, Xue et al. 2022): nothing is unknown."""

    kind = "bytes"
    base_size = 256

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        for text in texts:
            check_encodable(text)
        return [np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) for text in texts]

    def _base_bytes(self) -> list[bytes]:
        return [bytes([value]) for value in range(256)]

    def payload(self) -> dict[str, Any]:
        return {}


class CharacterTokenizer(Tokenizer):
    """One token a character of a fixed alphabet, in the order of code points."""

    kind = "characters"

    def __init__(self, characters: str, end_of_text: bool):
        super().__init__(end_of_text)
        self.characters = "".join(sorted(set(characters)))
        self.base_size = len(self.characters)
        code_points = _code_points(self.characters)
        self._id_of = np.full(int(code_points.max(initial=0)) + 2, -1, np.int32)
        self._id_of[code_points] = np.arange(self.base_size, dtype=np.int32)

    @classmethod
    def train(cls, texts: Iterable[str], end_of_text: bool) -> CharacterTokenizer:
        """The alphabet is every character of `texts`."""
        alphabet: set[str] = set()
        for text in texts:
            alphabet.update(text)
        return cls("".join(alphabet), end_of_text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Raises UserError that names the characters that are not in the alphabet."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        check_encodable(text)
        ids = self._lookup(text)
        if ids.min(initial=0) < 0:
            unknown = self.unknown_characters(text)
            named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in unknown[:5])
            raise UserError(f"the character tokenizer has no token for {named}{', ...' if len(unknown) > 5 else ''}; "
                            f"it knows the {self.base_size} characters of the data it was made from")
        return ids

    def _lookup(self, text: str) -> np.ndarray:
        # The last entry of the table is -1: every code point beyond the alphabet's largest reads it.
        return self._id_of[np.minimum(_code_points(text), len(self._id_of) - 1)]

    def unknown_characters(self, text: str) -> list[str]:
        return [character for character in dict.fromkeys(text) if character not in self.characters]

    def _base_bytes(self) -> list[bytes]:
        return [character.encode("utf-8") for character in self.characters]

    def payload(self) -> dict[str, Any]:
        return {"characters": self.characters}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
