"""What every tokenizer offers, and the one file format, tokenizer.json, that they are saved in."""

from __future__ import annotations

import abc
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from purelm.data.tokenizers.special import SpecialIds, around
from purelm.errors import UserError

END_OF_TEXT = "<|endoftext|>"
FORMAT = "purelm-tokenizer-1"


class Tokenizer(abc.ABC):
    """Text to token ids and back: `decode(encode(text)) == text` for every text that can be encoded (but see words).

    Ids 0 .. base_size-1 stand for text. The end-of-text token, where there is one, is the id after them: no text
    encodes to it, least of all the text "<|endoftext|>", which is ordinary text.

    Attributes:
        kind: the name that `data.tokenizer` gives it.
        separator: UTF-8 that `decode` puts between tokens; empty where nothing is lost (all but words).
        base_size: number of ids that stand for text.
        end_of_text: whether there is an end-of-text token.
        chat_template: Jinja source that makes a prompt of the messages of a chat (see data.chat_templates), or None.
    """

    kind: str
    separator: bytes = b""
    base_size: int
    chat_template: str | None = None

    def __init__(self, end_of_text: bool):
        self.end_of_text = end_of_text

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, the end-of-text token included."""
        return self.base_size + int(self.end_of_text)

    @property
    def end_of_text_id(self) -> int | None:
        """The id of the end-of-text token, or None."""
        return self.base_size if self.end_of_text else None

    @property
    def special(self) -> SpecialIds:
        """What stands around texts."""
        return around(self.end_of_text_id)

    @property
    def special_ids(self) -> frozenset[int]:
        """Every id that stands for no text."""
        return frozenset(() if self.end_of_text_id is None else (self.end_of_text_id,))

    @property
    def named_tokens(self) -> Mapping[str, str]:
        """Text of the special tokens that chat templates know by a name: "bos_token", "eos_token", ..."""
        return {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT} if self.end_of_text else {}

    def encode(self, text: str) -> np.ndarray:
        """int32 ids of `text`, no special token added; UserError for text that has none (see unknown_characters)."""
        return self.encode_batch([text])[0]

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode` of each text."""

    def encode_targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`encode_batch` of what a decoder is to write, where that is another language than the sources'."""
        return self.encode_batch(texts)

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """The ids of each word of a sentence that is cut into words: all but the first have a space before them."""
        return self.encode_batch([word if number == 0 else " " + word for number, word in enumerate(words)])

    def encode_with_specials(self, text: str) -> np.ndarray:
        """`encode`, but special tokens that stand in the text, as a chat template writes them, are their ids."""
        return self.encode(text)

    def spans(self, text: str) -> np.ndarray:
        """int64 [T, 2]: the characters [start, stop) of `text` that each token of `encode(text)` has a byte of.

        Tokens are bytes of UTF-8, so one may hold only a part of a character (of an emoji, say); it has the whole of
        it. UserError for a tokenizer that does not keep where its tokens stood.
        """
        if self.separator:
            raise UserError(f"config.data.tokenizer={self.kind}: extractive_qa needs each token's place in the text, "
                            f"which {self.kind} do not keep; take bpe, wordpiece, unigram, characters or bytes")
        data = np.frombuffer(text.encode("utf-8"), np.uint8)
        character_of = np.cumsum((data & 0xC0) != 0x80) - 1
        stops = np.cumsum([len(self.token_bytes[number]) for number in self.encode(text).tolist()], dtype=np.int64)
        if len(stops) == 0:
            return np.zeros((0, 2), np.int64)
        assert stops[-1] == len(data), "the tokenizer does not give the text back"
        starts = np.concatenate([[0], stops[:-1]])
        return np.stack([character_of[starts], character_of[stops - 1] + 1], axis=1)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; the end-of-text token shows as "<|endoftext|>".

        Where ids do not end a UTF-8 character, as sampled ones may not, U+FFFD stands for it. UserError for an id
        out of the vocabulary.
        """
        texts = [self.token_bytes[number] for number in self._checked(ids).tolist()]
        return self.separator.join(texts).decode("utf-8", errors="replace")

    def _checked(self, ids: Iterable[int]) -> np.ndarray:
        """int64 [T]; UserError for an id out of the vocabulary."""
        ids = np.asarray(list(ids) if not isinstance(ids, np.ndarray) else ids, np.int64).reshape(-1)
        outside = ids[(ids < 0) | (ids >= self.vocabulary_size)]
        if outside.size:
            raise UserError(f"token id {outside[0]} is not in the vocabulary; ids are 0 to {self.vocabulary_size - 1}")
        return ids

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The UTF-8 bytes that each id stands for (END_OF_TEXT for that token)."""
        return [*self._base_bytes(), *([END_OF_TEXT.encode()] if self.end_of_text else [])]

    @abc.abstractmethod
    def _base_bytes(self) -> list[bytes]:
        """Bytes of ids 0 .. base_size-1."""

    def unknown_characters(self, text: str) -> list[str]:
        """The characters of `text` that have no token, each once, in order."""
        return []

    @abc.abstractmethod
    def payload(self) -> dict[str, Any]:
        """JSON from which the tokenizer can be made again, `kind` and `end_of_text` excepted."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides ids: equal fingerprints give equal ids."""
        return content_hash({"type": self.kind, "end_of_text": self.end_of_text, **self.payload()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes tokenizer.json, whole or not at all; UserError where that cannot be done."""
        content = {"format": FORMAT, "type": self.kind, "fingerprint": self.fingerprint,
                   "vocabulary_size": self.vocabulary_size, "end_of_text": self.end_of_text, **self.payload()}
        path = os.fspath(path)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=os.path.dirname(path) or ".", delete=False,
                                             prefix=".tokenizer-") as file:
                temporary = file.name
                json.dump(content, file, ensure_ascii=False, indent=1)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError as error:
            if temporary and os.path.exists(temporary):
                os.unlink(temporary)
            raise UserError(f"{path}: the tokenizer cannot be written ({error.strerror or error})") from error


def check_encodable(text: str) -> None:
    """UserError for half a surrogate pair, as comes from a command line that is not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the text has no valid Unicode at character {error.start} (U+{ord(text[error.start]):04X}); "
                        "give it in UTF-8") from error


def content_hash(content: Any) -> str:
    """32 hexadecimal digits of what is JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
