"""What tokenizers of published checkpoints have in common: their own files, kept whole, and what was read from them."""

from __future__ import annotations

import abc
import base64
import dataclasses
import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from purelm.data.tokenizers.base import Tokenizer, content_hash
from purelm.data.tokenizers.special import SpecialIds
from purelm.errors import UserError


@dataclasses.dataclass(frozen=True)
class ImportedSettings:
    """What a checkpoint's files say about its tokenizer.

    Attributes:
        vocabulary_size: one more than the largest id; some ids between may stand for nothing.
        special: what stands around texts.
        special_tokens: text and id of every special token: those of `special`, padding, reserved ones.
        named_tokens: "bos_token", "eos_token", ... as chat templates call them, and their text.
        end_of_text_id: stands between documents; None where there is no such token.
        chat_template: Jinja source, or None.
        clean_up: whether decoding takes away spaces before punctuation.
        options: what the kind itself needs to know.
    """

    vocabulary_size: int
    special: SpecialIds
    special_tokens: Mapping[str, int]
    named_tokens: Mapping[str, str]
    end_of_text_id: int | None
    chat_template: str | None
    clean_up: bool
    options: Mapping[str, Any]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ImportedSettings:
        """Of `dataclasses.asdict`, through JSON."""
        special = {name: tuple(value) if isinstance(value, list) else value
                   for name, value in content["special"].items()}
        return cls(**{**content, "special": SpecialIds(**special)})


class ImportedTokenizer(Tokenizer):
    """A published tokenizer, run by its own library: `encode` gives exactly the ids of the original.

    Text never encodes to a special token: `encode` treats "<|endoftext|>" in a text as the library does where it is
    told to split special tokens (transformers: split_special_tokens=True; tiktoken: encode_ordinary).
    `encode_with_specials` gives such text the special token's id, as transformers does unless told otherwise.

    Special tokens may have ids anywhere, so `base_size` is `vocabulary_size`; `special_ids` are those of no text.

    `token_bytes` are what an id adds in the middle of a text. So they put together are `decode` but for the space
    that SentencePiece and WordPiece write before the first word, and for `clean_up`. Normalizing tokenizers (lower
    case, NFKC, WordPiece's words) lose what they normalize, and those with an unknown token what it stands for.

    Args:
      files: the checkpoint's tokenizer files by name, each as `packed`.
      settings: what was read from them.
    """

    def __init__(self, files: Mapping[str, str], settings: ImportedSettings):
        super().__init__(settings.end_of_text_id is not None)
        self._files = dict(files)
        self.settings = settings
        self.base_size = settings.vocabulary_size
        self.chat_template = settings.chat_template

    @property
    def vocabulary_size(self) -> int:
        return self.settings.vocabulary_size

    @property
    def end_of_text_id(self) -> int | None:
        return self.settings.end_of_text_id

    @property
    def special(self) -> SpecialIds:
        return self.settings.special

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self.settings.special_tokens.values())

    @property
    def named_tokens(self) -> Mapping[str, str]:
        return self.settings.named_tokens

    @property
    def file_names(self) -> list[str]:
        """The checkpoint's files that are kept."""
        return list(self._files)

    def file(self, name: str) -> bytes:
        """The bytes of one of the checkpoint's own files."""
        return unpacked(self._files[name])

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """As transformers' is_split_into_words: each has a space before it, the first too, which some tokenizers put
        there themselves."""
        return self.encode_batch(words if self._puts_space else [f" {word}" for word in words])

    @cached_property
    def _puts_space(self) -> bool:
        ids = self.encode("a")
        return bool(len(ids)) and self.token_bytes[int(ids[0])].startswith(b" ")

    @abc.abstractmethod
    def encode_with_specials(self, text: str) -> np.ndarray:
        """`encode`, but special tokens in the text are their ids, as in the original."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` as the original's decode gives it, special tokens shown as their text; UserError for an
        id out of the vocabulary."""
        text = self._decode(self._checked(ids).tolist())
        return _cleaned_up(text) if self.settings.clean_up else text

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Of ids that are in the vocabulary."""

    @cached_property
    def token_bytes(self) -> list[bytes]:
        return self._base_bytes()

    def payload(self) -> dict[str, Any]:
        return {"settings": dataclasses.asdict(self.settings), "files": self._files}

    @cached_property
    def fingerprint(self) -> str:
        """Of the files as they are, however they are compressed."""
        files = {name: hashlib.sha256(self.file(name)).hexdigest() for name in self._files}
        return content_hash({"type": self.kind, "settings": dataclasses.asdict(self.settings), "files": files})


def packed(content: bytes) -> str:
    """Bytes as they stand in JSON: compressed, in base64."""
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def unpacked(text: str) -> bytes:
    """Back from `packed`; UserError where it was damaged."""
    try:
        return zlib.decompress(base64.b64decode(text, validate=True))
    except (ValueError, zlib.error) as error:
        raise UserError(f"the tokenizer's own files are damaged ({error}); take it again from the run that wrote "
                        "it") from error


def special_splitter(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds special tokens in a text, the longest first; `split` gives text and tokens in turns."""
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, ordered)) or '(?!)'})")


def joined(parts: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
    """int32 ids of all parts, one after the other."""
    return np.concatenate([np.zeros(0, np.int32), *(np.asarray(part, np.int32) for part in parts)])


def _cleaned_up(text: str) -> str:
    """Without the spaces that splitting off punctuation and English contractions leaves (transformers' rules)."""
    for before, after in ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"),
                          (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")):
        text = text.replace(before, after)
    return text
