"""One token a word: what word vectors, and recurrent networks of the 2010s, are trained on."""

from __future__ import annotations

import collections
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from purelm.data.tokenizers.base import Tokenizer, check_encodable
from purelm.errors import UserError

UNKNOWN = "<unk>"
UNKNOWN_ID = 0
# Zero-width non-joiner and joiner: inside Persian and Indic words.
_JOINERS = "\u200c\u200d"


class WordTokenizer(Tokenizer):
    """The most frequent words; id 0 is "<unk>", which stands for every other word.

    A word is a run of letters, digits, underscores and their combining marks, of any script, with apostrophes between
    them ("don't"); every other visible character is a word by itself. So Chinese is to be segmented first (by spaces):
    a run of characters without one is one word.

    Lossy: `decode` puts one space between words, and "<unk>" for words out of the vocabulary. Up to white space,
    `decode(encode(text)) == text` for text whose words are all known. Text that holds "<unk>" itself, as WikiText
    does, has the unknown word there.
    """

    kind = "words"
    separator = b" "

    def __init__(self, words: Sequence[str], end_of_text: bool):
        super().__init__(end_of_text)
        self.words = (UNKNOWN, *words)
        self.base_size = len(self.words)
        # A missing word reads UNKNOWN_ID without being stored.
        self._id_of = _Ids((word, number) for number, word in enumerate(self.words))
        if len(self._id_of) != self.base_size:
            raise KeyError("a word is there twice")

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int, *, end_of_text: bool) -> WordTokenizer:
        """Keeps the most frequent words of `texts`, and of equally frequent ones those that come first.

        `vocabulary_size` counts "<unk>" and the end-of-text token; a small text gives fewer. Raises UserError where it
        leaves room for no word, or the texts have none.
        """
        num_words = vocabulary_size - 1 - int(end_of_text)
        if num_words < 1:
            raise UserError(f"config.data.tokenizer_vocabulary_size={vocabulary_size} is too small for a words "
                            f"tokenizer; give at least {vocabulary_size + 1 - num_words}")
        counts: collections.Counter[str] = collections.Counter()
        for text in texts:
            counts.update(split_words(text))
        counts.pop(UNKNOWN, None)
        if not counts:
            raise UserError("config.data.tokenizer='words': the training text has no word in it")
        return cls([word for word, _ in counts.most_common(num_words)], end_of_text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        for text in texts:
            check_encodable(text)
        return [np.fromiter(map(self._id_of.__getitem__, split_words(text)), np.int32) for text in texts]

    def _base_bytes(self) -> list[bytes]:
        return [word.encode("utf-8") for word in self.words]

    def payload(self) -> dict[str, Any]:
        return {"words": list(self.words[1:])}


class _Ids(dict[str, int]):
    def __missing__(self, word: str) -> int:
        return UNKNOWN_ID


def split_words(text: str) -> list[str]:
    """The words of `text`, in order (see WordTokenizer)."""
    return _pattern().findall(text)


@functools.cache
def _pattern() -> re.Pattern[str]:
    # Python's \w leaves out combining marks (category M): words of Indic scripts, and with accents apart, would be cut.
    letter = rf"[\w{_combining_marks()}{_JOINERS}]"
    return re.compile(rf"{re.escape(UNKNOWN)}|\w{letter}*(?:['\u2019]\w{letter}*)*|[^\w\s]")


def _combining_marks() -> str:
    """Every character of category M, as ranges for a set of a regular expression."""
    runs: list[list[int]] = []
    for point in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)):
        if unicodedata.category(chr(point)).startswith("M"):
            if runs and point == runs[-1][1] + 1:
                runs[-1][1] = point
            else:
                runs.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)
