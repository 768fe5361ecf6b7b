"""From a text in words to blocks of words with their contexts and negatives, for skip-gram and CBOW.

A block is T consecutive words of an epoch's text with the words around them. Everything random (which frequent words
are left out, how far each word sees, the negatives) is drawn on the host from (seed, purpose, epoch, batch).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from purelm.config import Config, WordVectorsConfig
from purelm.data.packing import TokenSplit

_CHUNK = 1 << 22
# An epoch has room for this many standard deviations more words than are expected to be left.
_DEVIATIONS = 6.0


class Purpose(enum.IntEnum):
    """What a random number is for: no two purposes share a generator."""

    WORDS = 0
    ORDER = 1
    NEGATIVES = 2
    EVALUATION_WORDS = 3
    EVALUATION_NEGATIVES = 4


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """The random numbers of (seed, purpose, epoch, batch, ...)."""
    return np.random.default_rng([seed, int(purpose), *numbers])


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words that are learned, by their tokenizer's ids.

    Attributes:
      counts_V: int64, occurrences in the training split; 0 for ids that are left out: words rarer than
        minimum_count, the unknown word, the end of text.
      keep_V: float32, the probability that an occurrence stays (see keep_probabilities).
      cumulative_V: float64, sums of counts_V ** negative_power over their total.
    """

    counts_V: np.ndarray
    keep_V: np.ndarray
    cumulative_V: np.ndarray

    @property
    def num_words(self) -> int:
        return int(np.count_nonzero(self.counts_V))


def make_vocabulary(counts_V: np.ndarray, left_out: Sequence[int], config: WordVectorsConfig) -> Vocabulary:
    """The vocabulary of a training split with these counts; `left_out` are ids that are no words."""
    counts_V = np.where(counts_V >= config.minimum_count, counts_V, 0).astype(np.int64)
    counts_V[list(left_out)] = 0
    powers_V = np.where(counts_V > 0, counts_V.astype(np.float64) ** config.negative_power, 0.0)
    cumulative_V = np.cumsum(powers_V)
    return Vocabulary(counts_V, keep_probabilities(counts_V, config.subsample),
                      cumulative_V / max(cumulative_V[-1], 1.0))


def keep_probabilities(counts_V: np.ndarray, subsample: float) -> np.ndarray:
    """float32 [V]: the probability that an occurrence of each word stays; 1 for all where subsample is 0.

    sqrt(t / f) + t / f, at most 1, for a word that is a part f of the text and t = subsample: what the authors'
    program (word2vec.c) computes. Their paper has sqrt(t / f) alone (Mikolov et al. 2013, arXiv 1310.4546, equation 5).
    """
    if not subsample:
        return np.ones(len(counts_V), np.float32)
    ratio_V = subsample * counts_V.sum() / np.maximum(counts_V, 1)
    return np.minimum(np.sqrt(ratio_V) + ratio_V, 1.0).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class WordText:
    """One split, without the words that are left out.

    Attributes:
      words: [N] the tokenizer's ids, in order.
      starts: int64 [documents + 1], where each document begins, and N.
    """

    words: np.ndarray
    starts: np.ndarray


def word_text(split: TokenSplit, vocabulary: Vocabulary) -> WordText:
    """The split's words that are in the vocabulary: the others do not count as neighbors (as in word2vec.c)."""
    known_V = vocabulary.counts_V > 0
    bounds = [*range(0, split.num_tokens, _CHUNK), split.num_tokens]
    known = np.concatenate([known_V[split.tokens[first:last]] for first, last in zip(bounds, bounds[1:])])
    before = np.concatenate([[0], np.cumsum(known)])
    return WordText(np.asarray(split.tokens)[known], np.append(before[split.document_starts], before[-1]))


@dataclasses.dataclass(frozen=True, eq=False)
class EpochText:
    """What one epoch reads of a text.

    Attributes:
      words: [N] ids.
      left, right: uint8 or uint16 [N], neighbors of each word on either side, documents' ends taken into account.
    """

    words: np.ndarray
    left: np.ndarray
    right: np.ndarray


def epoch_text(text: WordText, vocabulary: Vocabulary, window: int, random: np.random.Generator) -> EpochText:
    """Leaves out frequent words at random, then draws how far each word sees, 1 to `window` words with equal chance.

    Mikolov et al. 2013 (arXiv 1301.3781, section 3.2): so the nearer of two neighbors is the likelier.
    """
    kept = np.empty(len(text.words), bool)
    for first in range(0, len(kept), _CHUNK):
        words = text.words[first:first + _CHUNK]
        kept[first:first + _CHUNK] = random.random(len(words), np.float32) < vocabulary.keep_V[words]
    starts = np.concatenate([[0], np.cumsum(kept)])[text.starts]
    words, lengths = text.words[kept], np.diff(starts)
    place = np.arange(len(words)) - np.repeat(starts[:-1], lengths)
    kind = np.uint8 if window < 256 else np.uint16
    reach = random.integers(1, window, len(words), kind, endpoint=True)
    left = np.minimum(reach, place).astype(kind)
    right = np.minimum(reach, np.repeat(lengths, lengths) - 1 - place).astype(kind)
    return EpochText(words, left, right)


def blocks_of(text: WordText, vocabulary: Vocabulary, block_length: int) -> int:
    """Blocks of an epoch: enough for what is expected to be left, and six standard deviations more.

    So every epoch has the same number; its last blocks may be empty.
    """
    keep = vocabulary.keep_V[text.words].astype(np.float64)
    expected = keep.sum() + _DEVIATIONS * np.sqrt((keep * (1 - keep)).sum())
    return max(int(np.ceil(min(expected, len(keep)) / block_length)), 1)


def gather_blocks(text: EpochText, numbers: np.ndarray, block_length: int, window: int) -> dict[str, np.ndarray]:
    """Blocks number `numbers` [B]; a negative number, or one past the end, is a block without pairs.

    Returns:
      int32 arrays: words [B, W + T + W], left [B, T] and right [B, T], where W = window. The words of block b that
      are learned from are words[b, W:W + T].
    """
    first_B = np.where(numbers < 0, len(text.words), numbers.astype(np.int64) * block_length)
    index_BS = first_B[:, None] + np.arange(-window, block_length + window)
    words_BS = text.words[np.clip(index_BS, 0, len(text.words) - 1)].astype(np.int32)
    inside_BT = index_BS[:, window:window + block_length]
    real_BT = inside_BT < len(text.words)
    inside_BT = np.minimum(inside_BT, len(text.words) - 1)
    return {"words": words_BS, "left": text.left[inside_BT].astype(np.int32) * real_BT,
            "right": text.right[inside_BT].astype(np.int32) * real_BT}


def draw_negatives(vocabulary: Vocabulary, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """int32 ids, each drawn by count ** negative_power (Mikolov et al. 2013, arXiv 1310.4546, section 2.2)."""
    return np.searchsorted(vocabulary.cumulative_V, random.random(shape), side="right").astype(np.int32)


def pool_size(config: Config) -> int:
    """Negatives that a block shares: one a word of it, and no fewer than each pair asks for."""
    return max(config.model.context_length, config.word_vectors.negatives)
