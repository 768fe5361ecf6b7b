"""From a config to tokens on disk: source -> clean -> split -> tokenizer -> tokens, each done once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from purelm.config import Config, DataConfig
from purelm.data.cache import Cache, cache_root, hash_key
from purelm.data.cleaning import Cleaner
from purelm.data.packing import Batch, TokenSplit
from purelm.data.pipeline import batch_starts, evaluation_batches, training_batches
from purelm.data.sources import Source, make_source, source_summary
from purelm.data.splits import SPLITS, Piece
from purelm.data.store import DocumentStore, assign_pieces
from purelm.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer, train_tokenizer
from purelm.data.tokenizers.special import document_marks
from purelm.errors import UserError

# Part of every key: raise it when the same config would give other tokens.
_VERSION = 1
_BATCH_CHARACTERS = 1 << 22

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedData:
    """What training reads.

    Attributes:
        tokenizer: turns text into the tokens of `splits`.
        splits: "train", "validation", "test", those that exist.
        fingerprint: JSON: the source and its files (a summary where they are over 1,000), what cleaning did,
            documents, bytes and tokens a split, and the tokenizer's hash. Equal fingerprints mean equal tokens.
        context_length: of the config, for `describe`.
        labels: none.

    Its methods are those of data.prepared.Prepared.
    """

    tokenizer: Tokenizer
    splits: dict[str, TokenSplit]
    fingerprint: dict[str, Any]
    context_length: int
    labels: None = None

    @property
    def vocabulary_size(self) -> int:
        return self.tokenizer.vocabulary_size

    def tokens_per_epoch(self, config: Config) -> int:
        context_length = config.model.context_length
        return self.splits["train"].num_windows(context_length) * context_length

    def training_batches(self, config: Config, *, start_step: int, process_index: int = 0,
                         process_count: int = 1) -> Iterator[Batch]:
        return training_batches(self.splits["train"], config=config, batch_size=config.training.batch_size,
                                start_step=start_step, process_index=process_index, process_count=process_count)

    def evaluation_batches(self, split_name: str, config: Config, *, batch_size: int, process_index: int = 0,
                           process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
        return evaluation_batches(
            self.splits[split_name], context_length=config.model.context_length, packing=config.data.packing,
            batch_size=batch_size, process_index=process_index, process_count=process_count, limit=limit)

    def describe(self) -> str:
        return describe(self)

    def locate(self, config: Config, step: int) -> str:
        starts = batch_starts(self.splits["train"], config, config.training.batch_size, step)
        shown = ", ".join(str(start) for start in starts[:8]) + (f" and {len(starts) - 8} more" if starts[8:] else "")
        return f"the windows that begin at tokens {shown} of the training split"

    def num_bytes(self, split_name: str) -> int | None:
        # The words tokenizer does not keep all of a text: the loss of its tokens is not that of the text.
        return None if self.tokenizer.kind == "words" else self.splits[split_name].num_bytes


def prepare(config: Config, *, tokenizer: Tokenizer | None = None, progress: Progress | None = None) -> PreparedData:
    """The data of `config`, tokenized; from the cache where it was prepared before.

    Args:
        tokenizer: to take, such as a run's own; else it is read from config.data.tokenizer_path, or made:
            trained (bpe, wordpiece, unigram) on the training split, while the alphabet of "characters" is that
            of all splits, so that held-out text never has a character without a token.
        progress: called with one line at the start of each long part.

    Raises UserError for whatever is wrong with the config's data (missing, empty, binary, not UTF-8, truncated), for an
    empty split, for less training text than one window, and for a cache folder that cannot be written.
    """
    data = config.data
    report = progress or (lambda line: None)
    source, cleaner, cache = make_source(data), Cleaner(data.cleaning), Cache(cache_root(data.cache_dir))
    identity = source.identity(cache)
    text_key = {"version": _VERSION, "source": identity, "cleaning": data.cleaning, "split": data.split,
                "validation_fraction": data.validation_fraction, "test_fraction": data.test_fraction}
    recipe_key = hash_key([text_key, data.tokenizer, data.tokenizer_vocabulary_size, data.end_of_text])
    tokenizer = tokenizer or _ready_tokenizer(data) or cache.tokenizer(recipe_key)
    if tokenizer is not None:
        _check_end_of_text(data, tokenizer)
        key = _tokens_key(text_key, tokenizer, data)
        meta = cache.tokens_meta(key)
        if meta is not None:
            return _open(config, cache, key, meta, tokenizer, source, identity)
    with cache.building_tokens() as folder:
        with cache.writing():
            store = DocumentStore(os.path.join(folder, "documents.bin"))
            try:
                report(f"reading {source.label}")
                pieces = _collect(source, cleaner, data, store)
                if tokenizer is None:
                    tokenizer = _train(data, store, pieces, report)
                    cache.keep_tokenizer(recipe_key, tokenizer)
                splits = {}
                for split in SPLITS:
                    if pieces[split]:
                        report(f"tokenizing {split}: {len(pieces[split]):,} documents")
                        splits[split] = _write_split(folder, split, store, pieces[split], tokenizer, data.end_of_text)
            finally:
                store.close()
            os.unlink(os.path.join(folder, "documents.bin"))
        key = _tokens_key(text_key, tokenizer, data)
        cache.publish_tokens(folder, key, {"cleaning": cleaner.counts, "splits": splits})
    meta = cache.tokens_meta(key)
    if meta is None:
        raise UserError(f"data cache {cache.root}: {cache.tokens_folder(key)} was removed or damaged while it was "
                        "being made; try again, or name another folder by --config.data.cache_dir")
    return _open(config, cache, key, meta, tokenizer, source, identity)


def describe(prepared: PreparedData) -> str:
    """One line a split: documents, bytes, tokens, bytes a token, windows of an epoch."""
    lines = []
    for name, split in prepared.splits.items():
        windows = (split.num_windows if name == "train" else split.num_evaluation_windows)(prepared.context_length)
        lines.append(f"{name:<10} {split.num_documents:>9,} documents {split.num_bytes:>13,} bytes "
                     f"{split.num_tokens:>12,} tokens {split.num_bytes / split.num_tokens:6.2f} bytes a token "
                     f"{windows:>9,} windows of {prepared.context_length}")
    return "\n".join(lines)


def _ready_tokenizer(data: DataConfig) -> Tokenizer | None:
    if data.tokenizer_path:
        return load_tokenizer(os.path.expanduser(data.tokenizer_path))
    return ByteTokenizer(data.end_of_text) if data.tokenizer == "bytes" else None


def _check_end_of_text(data: DataConfig, tokenizer: Tokenizer) -> None:
    if data.end_of_text and not any(document_marks(tokenizer)):
        raise UserError("config.data.end_of_text is true, but the given tokenizer has no end-of-text token; set "
                        "--config.data.end_of_text=false or take another tokenizer")


def _tokens_key(text_key: dict[str, Any], tokenizer: Tokenizer, data: DataConfig) -> str:
    return hash_key([text_key, tokenizer.fingerprint, data.end_of_text])


def _collect(source: Source, cleaner: Cleaner, data: DataConfig, store: DocumentStore) -> dict[str, list[Piece]]:
    """Cleaned documents into the store; the pieces of each split."""
    given: list[str | None] = []
    for split, text in source.documents():
        cleaned = cleaner(text)
        if cleaned is not None:
            store.append(cleaned)
            given.append(split)
    if not len(store):
        raise UserError(f"{source.label}: no document with text in it (of {cleaner.counts['documents_read']:,} read)")
    pieces = assign_pieces(store, given, data.split, data.validation_fraction, data.test_fraction)
    wanted = {"train": 1.0, "validation": data.validation_fraction,
              "test": 0.0 if any(given) else data.test_fraction}
    for split, fraction in wanted.items():
        if fraction and not pieces[split]:
            raise UserError(f"{source.label}: the {split} split is empty ({len(store):,} documents, "
                            f"config.data.validation_fraction={data.validation_fraction}, "
                            f"config.data.test_fraction={data.test_fraction}); change a fraction, set "
                            "config.data.split=contiguous, or give files for it")
    return pieces


def _train(data: DataConfig, store: DocumentStore, pieces: dict[str, list[Piece]], report: Progress) -> Tokenizer:
    if data.tokenizer == "characters":
        every = [piece for split in SPLITS for piece in pieces[split]]
        return CharacterTokenizer.train(store.texts(every), data.end_of_text)
    report(f"training a {data.tokenizer} tokenizer of {data.tokenizer_vocabulary_size:,} tokens")
    return train_tokenizer(data.tokenizer, store.texts(pieces["train"]), data.tokenizer_vocabulary_size,
                           end_of_text=data.end_of_text)


def _write_split(folder: str, name: str, store: DocumentStore, pieces: list[Piece], tokenizer: Tokenizer,
                 end_of_text: bool) -> dict[str, Any]:
    """Writes SPLIT.tokens.npy and SPLIT.documents.npy; returns the split's counts."""
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32)
    before, after = (np.array(ids, dtype) for ids in (document_marks(tokenizer) if end_of_text else ((), ())))
    starts: list[int] = []
    num_tokens = num_bytes = 0
    with open(os.path.join(folder, f"{name}.tokens.npy"), "w+b") as file:
        _write_header(file, dtype, 0)
        data_begins = file.tell()
        for texts in _in_batches(store.texts(pieces)):
            for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
                starts.append(num_tokens)
                file.write(before.tobytes() + ids.astype(dtype).tobytes() + after.tobytes())
                num_tokens += len(before) + len(ids) + len(after)
                num_bytes += len(text.encode("utf-8"))
        if not len(after):  # The last document's end is learned as all others' are: by what comes next.
            file.write(before.tobytes())
            num_tokens += len(before)
        file.seek(0)
        _write_header(file, dtype, num_tokens)
        assert file.tell() == data_begins, "the .npy header changed its length"
    np.save(os.path.join(folder, f"{name}.documents.npy"), np.array(starts, np.int64))
    return {"documents": len(pieces), "bytes": num_bytes, "tokens": num_tokens}


def _write_header(file: Any, dtype: np.dtype, length: int) -> None:
    """A one-dimensional .npy header; NumPy pads it so that a longer length fits in its place."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)})


def _in_batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _open(config: Config, cache: Cache, key: str, meta: dict[str, Any], tokenizer: Tokenizer, source: Source,
          identity: dict[str, Any]) -> PreparedData:
    folder = cache.tokens_folder(key)
    splits = {}
    for name, counts in meta["splits"].items():
        try:
            tokens = np.load(os.path.join(folder, f"{name}.tokens.npy"), mmap_mode="r")
            starts = np.load(os.path.join(folder, f"{name}.documents.npy"))
        except (OSError, ValueError) as error:
            raise UserError(f"data cache {folder}: cannot be read ({error}); remove that folder and start "
                           "again") from error
        splits[name] = TokenSplit(name, tokens, starts, counts["bytes"], counts["documents"])
    context_length = config.model.context_length
    if splits["train"].num_tokens < context_length + 1:
        raise UserError(f"{source.label}: the train split has {splits['train'].num_tokens:,} tokens, fewer than one "
                        f"window of {context_length:,} + 1; give more text or a smaller model.context_length")
    fingerprint = {"source": source_summary(identity), "cleaning": meta["cleaning"],
                   "splits": meta["splits"], "tokenizer": tokenizer.fingerprint, "key": key}
    return PreparedData(tokenizer, splits, fingerprint, context_length)
