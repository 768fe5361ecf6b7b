"""Prepared data of word vectors: a text in words, the batches made of it, and their order."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.data.cache import Cache, cache_root, hash_key
from purelm.data.cooccurrence import count_pairs
from purelm.data.packing import Batch, TokenSplit
from purelm.data.preparation import PreparedData
from purelm.data.tokenizers import Tokenizer
from purelm.data.tokenizers.words import UNKNOWN_ID
from purelm.data.word_pairs import (
    EpochText,
    Purpose,
    Vocabulary,
    WordText,
    blocks_of,
    draw_negatives,
    epoch_text,
    gather_blocks,
    generator,
    make_vocabulary,
    pool_size,
    word_text,
)
from purelm.errors import UserError

# Part of the key of cached counts: raise it when the same text would give others.
_VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedWords:
    """What training of word vectors reads; its methods are those of data.prepared.Prepared.

    Attributes:
      tokenizer, fingerprint: as of PreparedData; the fingerprint has the number of words that are learned besides.
      splits: those that are read: GloVe, whose counts are of one text, reads "train" alone.
      vocabulary: the words that are learned.
      rows: the training split's rows of batches (`Blocks` or `Counts`).
      labels: none.
    """

    tokenizer: Tokenizer
    splits: dict[str, TokenSplit]
    fingerprint: dict[str, Any]
    vocabulary: Vocabulary
    rows: Blocks | Counts
    labels: None = None

    @property
    def vocabulary_size(self) -> int:
        return self.tokenizer.vocabulary_size

    def tokens_per_epoch(self, config: Config) -> int:
        """Places of an epoch's batches, padding included."""
        return self._batches(config) * config.training.batch_size * config.model.context_length

    def training_batches(self, config: Config, *, start_step: int, process_index: int = 0,
                         process_count: int = 1) -> Iterator[Batch]:
        """Every row once an epoch, in an order drawn from (seed, epoch); an epoch's last batch may have empty rows."""
        step, order_of = start_step, _Latest(lambda epoch: self._order(config, epoch))
        while True:
            epoch, number = divmod(step, self._batches(config))
            numbers = order_of(epoch)[number * config.training.batch_size:(number + 1) * config.training.batch_size]
            yield self.rows.batch(epoch, number, numbers, process_index, process_count)
            step += 1

    def evaluation_batches(self, split_name: str, config: Config, *, batch_size: int, process_index: int = 0,
                           process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
        """Every row of the split, in order, with the same draws each time, whatever the size of a batch."""
        rows = self.rows
        if isinstance(rows, Blocks):
            rows = evaluation_blocks(word_text(self.splits[split_name], self.vocabulary), self.vocabulary, config)
        num_batches = -(-rows.number // batch_size)
        for number in range(num_batches if limit is None else min(limit, num_batches)):
            numbers = np.arange(number * batch_size, (number + 1) * batch_size)
            yield rows.batch(None, number, np.where(numbers < rows.number, numbers, -1), process_index, process_count)

    def describe(self) -> str:
        lines = [f"{name:<10} {split.num_documents:>9,} documents {split.num_bytes:>13,} bytes "
                 f"{split.num_tokens:>12,} tokens" for name, split in self.splits.items()]
        vocabulary = self.vocabulary
        return "\n".join([*lines, f"vocabulary {vocabulary.num_words:,} words, which are {vocabulary.counts_V.sum():,} "
                          f"tokens of train; {self.rows.describe()}"])

    def locate(self, config: Config, step: int) -> str:
        epoch, number = divmod(step, self._batches(config))
        numbers = self._order(config, epoch)[number * config.training.batch_size:][:config.training.batch_size]
        more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
        return f"the rows {', '.join(str(row) for row in numbers[:8])}{more} of epoch {epoch} of the training split"

    def num_bytes(self, split_name: str) -> None:
        return None

    def _batches(self, config: Config) -> int:
        return -(-self.rows.number // config.training.batch_size)

    def _order(self, config: Config, epoch: int) -> np.ndarray:
        """Rows of the epoch's batches, -1 for an empty row."""
        order = generator(config.seed, Purpose.ORDER, epoch).permutation(self.rows.number)
        missing = self._batches(config) * config.training.batch_size - len(order)
        return np.concatenate([order, np.full(missing, -1, order.dtype)])


class _Latest:
    """A function of one number that remembers its last value."""

    def __init__(self, function: Callable[[Any], Any]):
        self._function, self._last = function, None

    def __call__(self, number: Any) -> Any:
        if self._last is None or self._last[0] != number:
            self._last = (number, self._function(number))
        return self._last[1]


class Blocks:
    """Blocks of words with negatives (skip-gram, CBOW); `number` of them an epoch. See `word_pairs`."""

    def __init__(self, config: Config, vocabulary: Vocabulary, number: int, text_of: Callable[[int | None], EpochText],
                 negatives_of: Callable[[int | None, int, np.ndarray], np.ndarray]):
        self.number = number
        self._length, self._window = config.model.context_length, config.word_vectors.window
        self._text_of, self._negatives_of, self._vocabulary = _Latest(text_of), negatives_of, vocabulary

    def batch(self, epoch: int | None, number: int, rows: np.ndarray, process_index: int, process_count: int) -> Batch:
        """words [B, W + T + W], left [B, T], right [B, T] (see gather_blocks) and negatives [B, pool_size]."""
        negatives = self._negatives_of(epoch, number, rows)[process_index::process_count]
        return {**gather_blocks(self._text_of(epoch), rows[process_index::process_count], self._length, self._window),
                "negatives": negatives}

    def describe(self) -> str:
        return f"{self.number:,} blocks of {self._length} words an epoch"


def training_blocks(text: WordText, vocabulary: Vocabulary, config: Config) -> Blocks:
    """Blocks whose words, reaches and negatives are drawn anew each epoch."""
    def text_of(epoch: int) -> EpochText:
        return epoch_text(text, vocabulary, config.word_vectors.window, generator(config.seed, Purpose.WORDS, epoch))

    def negatives_of(epoch: int, number: int, rows: np.ndarray) -> np.ndarray:
        return draw_negatives(vocabulary, (len(rows), pool_size(config)),
                              generator(config.seed, Purpose.NEGATIVES, epoch, number))

    number = blocks_of(text, vocabulary, config.model.context_length)
    return Blocks(config, vocabulary, number, text_of, negatives_of)


def evaluation_blocks(text: WordText, vocabulary: Vocabulary, config: Config) -> Blocks:
    """Blocks that are the same every time."""
    drawn = epoch_text(text, vocabulary, config.word_vectors.window, generator(config.seed, Purpose.EVALUATION_WORDS))
    number = max(-(-len(drawn.words) // config.model.context_length), 1)
    negatives = draw_negatives(vocabulary, (number, pool_size(config)),
                               generator(config.seed, Purpose.EVALUATION_NEGATIVES))
    return Blocks(config, vocabulary, number, lambda epoch: drawn, lambda epoch, batch, rows: negatives[rows])


class Counts:
    """Entries of the co-occurrence matrix that are not zero (GloVe), T to a row of a batch.

    `rows`, `columns` and `counts` are [entries]; each epoch reads them in another order.
    """

    def __init__(self, config: Config, rows: np.ndarray, columns: np.ndarray, counts: np.ndarray):
        self._length = config.model.context_length
        self._entries = (rows, columns, counts)
        self.number = -(-len(counts) // self._length)
        self._order_of = _Latest(
            lambda epoch: generator(config.seed, Purpose.WORDS, epoch).permutation(len(counts)).astype(np.int64))

    def batch(self, epoch: int | None, number: int, rows: np.ndarray, process_index: int, process_count: int) -> Batch:
        """rows, columns (int32) and counts (float32), each [B, T]; a count of 0 is padding."""
        places_BT = rows[process_index::process_count, None] * self._length + np.arange(self._length)
        real_BT = (places_BT >= 0) & (places_BT < len(self._entries[2]))
        places_BT = np.where(real_BT, places_BT, 0)
        entries_BT = places_BT if epoch is None else self._order_of(epoch)[places_BT]
        taken = (values[entries_BT] for values in self._entries)
        i_BT, j_BT, counts_BT = taken
        return {"rows": i_BT.astype(np.int32), "columns": j_BT.astype(np.int32),
                "counts": np.where(real_BT, counts_BT, 0).astype(np.float32)}

    def describe(self) -> str:
        return f"{len(self._entries[2]):,} pairs of words that occur together"


def prepare_words(config: Config, data: PreparedData, report: Callable[[str], None]) -> PreparedWords:
    """The batches of config.word_vectors, from text in words.

    Raises:
      UserError: the tokens are no words, fewer than two words occur often enough, or no two of them stand near each
        other.
    """
    settings, train, tokenizer = config.word_vectors, data.splits["train"], data.tokenizer
    if tokenizer.kind != "words":
        raise UserError(f"config.data.tokenizer='{tokenizer.kind}': the task word_vectors wants "
                        "--config.data.tokenizer=words")
    counts_V = np.bincount(train.tokens, minlength=tokenizer.vocabulary_size)
    left_out = [UNKNOWN_ID] + ([] if tokenizer.end_of_text_id is None else [tokenizer.end_of_text_id])
    vocabulary = make_vocabulary(counts_V, left_out, settings)
    if vocabulary.num_words < 2:
        raise UserError(f"config.word_vectors.minimum_count={settings.minimum_count}: {vocabulary.num_words} words of "
                        "the training text occur so often; give more text or a smaller count")
    text = word_text(train, vocabulary)
    if settings.method == "glove":
        rows, splits = _cached_counts(config, data.fingerprint, vocabulary, text, report), {"train": train}
    else:
        rows, splits = training_blocks(text, vocabulary, config), data.splits
    if np.diff(text.starts).max() < 2 or not rows.number:
        raise UserError("config.data: no document of the training text has two words of the vocabulary; set "
                        "config.data.document=file, or give longer texts")
    fingerprint = {**data.fingerprint, "words": vocabulary.num_words}
    return PreparedWords(tokenizer, splits, fingerprint, vocabulary, rows)


def _cached_counts(config: Config, fingerprint: dict[str, Any], vocabulary: Vocabulary, text: WordText,
                   report: Callable[[str], None]) -> Counts:
    cache, settings = Cache(cache_root(config.data.cache_dir)), config.word_vectors
    key = hash_key(["cooccurrence", _VERSION, fingerprint["key"], settings.window, settings.minimum_count])
    names = ("rows", "columns", "counts")
    if cache.tokens_meta(key) is None:
        report(f"counting pairs of {vocabulary.num_words:,} words")
        matrix = count_pairs(text, len(vocabulary.counts_V), settings.window).tocoo()
        with cache.building_tokens() as folder:
            with cache.writing():
                for name, values in zip(names, (matrix.row, matrix.col, matrix.data)):
                    np.save(os.path.join(folder, f"{name}.npy"), values)
            cache.publish_tokens(folder, key, {"fingerprint": fingerprint["key"]})
    folder = cache.tokens_folder(key)
    return Counts(config, *(np.load(os.path.join(folder, f"{name}.npy"), mmap_mode="r") for name in names))
