"""BPE, WordPiece and Unigram over bytes, trained and run by the `tokenizers` library.

All three see the text as UTF-8 bytes, each written as one printable character (the table of GPT-2, Radford et al.
2019), and hold all 256 of them, so that nothing is unknown and every text comes back exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from purelm.data.tokenizers.base import Tokenizer, check_encodable
from purelm.errors import UserError

if TYPE_CHECKING:
    import tokenizers

TRAINED_KINDS = ("bpe", "wordpiece", "unigram")

# GPT-2's division into words, with a bound on every run: WordPiece's greedy search is cubic in a word's length.
# Digits go in threes, as in GPT-4's tokenizer.
_WORDS = (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,24}| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]{1,24}|\s{1,24}(?!\S)|\s{1,24}")
_MAX_WORD_BYTES = 4 * 24 + 1
# Marks a WordPiece that continues a word, as "##" does in BERT. "##" itself will not do: a text may hold it, and
# this character is none of the 256 that bytes are written as.
_CONTINUATION = "\u203f"
# No word of _WORDS goes from a visible character to a newline, so cutting there changes no token.
_CUT = re.compile(r"(?<=\S)\n")
_CHUNK_CHARACTERS = 1 << 15


def byte_characters() -> list[str]:
    """The printable character that stands for each byte, 0 to 255 (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


class TrainedTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, given by its JSON. The library is loaded at the first encode."""

    def __init__(self, kind: str, backend_json: dict[str, Any], end_of_text: bool):
        super().__init__(end_of_text)
        self.kind = kind
        self._json = backend_json
        self._tokens = _token_strings(backend_json["model"])
        self.base_size = len(self._tokens)
        self._backend: tokenizers.Tokenizer | None = None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Long texts are encoded in pieces, cut where no token can lie across, on all cores."""
        import tokenizers
        for text in texts:
            check_encodable(text)
        if self._backend is None:
            self._backend = tokenizers.Tokenizer.from_str(json.dumps(self._json))
        pieces = [list(chunks(text)) for text in texts]
        encoded = iter(self._backend.encode_batch_fast([piece for row in pieces for piece in row],
                                                       add_special_tokens=False))
        return [np.concatenate([np.asarray(next(encoded).ids, np.int32) for _ in row] or [np.zeros(0, np.int32)])
                for row in pieces]

    def _base_bytes(self) -> list[bytes]:
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        return [bytes(byte_of[c] for c in token.removeprefix(_CONTINUATION)) for token in self._tokens]

    def payload(self) -> dict[str, Any]:
        return {"tokenizer": self._json}


def chunks(text: str, size: int = _CHUNK_CHARACTERS) -> Iterator[str]:
    """`text` in pieces of at least `size` characters, cut so that their tokens are those of the whole."""
    start = 0
    while len(text) - start > size:
        match = _CUT.search(text, start + size)
        if match is None:
            break
        yield text[start:match.start()]
        start = match.start()
    if start < len(text):
        yield text[start:]


def train_subwords(kind: str, texts: Iterable[str], vocabulary_size: int, *, end_of_text: bool,
                   show_progress: bool = False) -> TrainedTokenizer:
    """Trains a BPE (Sennrich et al. 2016), WordPiece (Schuster & Nakajima 2012) or Unigram (Kudo 2018) tokenizer.

    `vocabulary_size` counts the end-of-text token; a small text may give fewer. Raises UserError where it cannot
    hold every byte.
    """
    smallest = {"bpe": 256, "wordpiece": 512, "unigram": 257}[kind] + int(end_of_text)
    if vocabulary_size < smallest:
        raise UserError(f"config.data.tokenizer_vocabulary_size={vocabulary_size} is too small for a {kind} tokenizer "
                        f"over bytes{' with end of text' if end_of_text else ''}; give at least {smallest}")
    trainers = {"bpe": _train_bpe, "wordpiece": _train_wordpiece, "unigram": _train_unigram}
    pieces = (piece for text in texts for piece in chunks(text))
    backend = trainers[kind](pieces, vocabulary_size - int(end_of_text), show_progress)
    return TrainedTokenizer(kind, json.loads(backend.to_str()), end_of_text)


def _with_bytes(model: Any) -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.Sequence([decoders.Replace(_CONTINUATION, ""), decoders.ByteLevel()])
    return backend


def _train_bpe(texts: Iterator[str], size: int, show_progress: bool) -> tokenizers.Tokenizer:
    from tokenizers import models, trainers
    backend = _with_bytes(models.BPE())
    backend.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, show_progress=show_progress, initial_alphabet=sorted(byte_characters())))
    return backend


def _train_wordpiece(texts: Iterator[str], size: int, show_progress: bool) -> tokenizers.Tokenizer:
    from tokenizers import models, trainers
    alphabet = sorted(byte_characters())
    backend = _with_bytes(models.WordPiece(unk_token="[UNK]"))
    # Named as special tokens, all continuations are in the vocabulary, in this order, seen in the text or not.
    # They must not stay special, or text holding the mark would match them: so the vocabulary moves to a new model.
    backend.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=size, show_progress=show_progress, initial_alphabet=alphabet,
        special_tokens=[_CONTINUATION + character for character in alphabet],
        continuing_subword_prefix=_CONTINUATION))
    return _with_bytes(models.WordPiece(backend.get_vocab(), unk_token="[UNK]",
                                        max_input_chars_per_word=_MAX_WORD_BYTES,
                                        continuing_subword_prefix=_CONTINUATION))


def _train_unigram(texts: Iterator[str], size: int, show_progress: bool) -> tokenizers.Tokenizer:
    from tokenizers import models, trainers
    alphabet = set(byte_characters())
    backend = _with_bytes(models.Unigram())
    backend.train_from_iterator(texts, trainers.UnigramTrainer(
        vocab_size=size, show_progress=show_progress, initial_alphabet=sorted(alphabet)))
    pieces = {piece: round(score, 6) for piece, score in json.loads(backend.to_str())["model"]["vocab"]}
    # The library adds missing bytes in an order that differs from run to run, and its sums differ in the last
    # digits; rounded scores, one score for all rare bytes, and this order make runs agree. On texts so small that
    # pieces tie exactly, which of them is kept may still differ: the cache and the run folder keep the first.
    lowest = min((score for piece, score in pieces.items() if len(piece) > 1), default=0.0)
    pieces = {piece: score if score >= lowest else lowest - 1.0 for piece, score in pieces.items()}
    return _with_bytes(models.Unigram(sorted(pieces.items(), key=lambda item: (-item[1], item[0])), None, False))


def _token_strings(model: dict[str, Any]) -> list[str]:
    """The model's tokens, in the order of their ids."""
    if model["type"] == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    tokens = [""] * len(model["vocab"])
    for token, number in model["vocab"].items():
        tokens[number] = token
    return tokens
