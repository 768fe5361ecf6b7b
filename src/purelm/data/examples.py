"""From a config to a task's records on disk: rows -> examples -> splits -> tokenizer, labels -> records, each once."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from purelm.config import Config, DataConfig
from purelm.data.augmentation import Augmenter, parse_steps
from purelm.data.cache import Cache, cache_root, hash_key
from purelm.data.example_batches import TrainingOrder, evaluation_batches, training_batches
from purelm.data.example_reading import Part, collect_examples
from purelm.data.example_recipe import Batch, Example, Recipe, Record, config_values
from purelm.data.example_store import Examples, ExampleSplit, RecordWriter
from purelm.data.mixture import parts_of
from purelm.data.sources import source_summary
from purelm.data.splits import SPLITS
from purelm.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer, train_tokenizer
from purelm.errors import UserError, did_you_mean

__all__ = ["Batch", "Example", "ExampleSplit", "PreparedExamples", "Recipe", "Record", "prepare_examples"]

# Part of every key: raise it when the same config would give other examples or records.
_VERSION = 1
_CHUNK = 1000

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedExamples:
    """What training and evaluation read, of a task on examples; its methods are those of data.prepared.Prepared.

    Attributes:
        tokenizer: turns text into the ids of records.
        labels: the label vocabulary, sorted, or None where the task has none.
        splits: "train", "validation", "test", those that exist.
        fingerprint: JSON; equal fingerprints mean equal records.
        counts: what cleaning did ("cleaning") and what the task counted in each split.
        recipe: the task's.
        notes: lines on how the data was chosen and divided.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...] | None
    splits: dict[str, ExampleSplit]
    fingerprint: dict[str, Any]
    counts: dict[str, dict[str, int]]
    recipe: Recipe
    notes: tuple[str, ...]

    @property
    def vocabulary_size(self) -> int:
        """The tokenizer's ids and the task's special ones, which follow them."""
        return self.tokenizer.vocabulary_size + self.recipe.num_specials

    def tokens_per_epoch(self, config: Config) -> int:
        """Positions of the batches of an epoch, were none shorter than the context."""
        batch_size = config.training.batch_size
        return -(-self._train().num_records // batch_size) * batch_size * config.model.context_length

    def training_batches(self, config: Config, *, start_step: int, process_index: int = 0,
                         process_count: int = 1) -> Iterator[Batch]:
        """Batches from `start_step` on, without end; ValueError where processes do not divide the batch."""
        split = self._train()
        return training_batches(
            split, TrainingOrder(split, config), self.recipe, config,
            Augmenter(config, self.tokenizer, self.recipe), start_step=start_step, process_index=process_index,
            process_count=process_count)

    def evaluation_batches(self, split_name: str, config: Config, *, batch_size: int, process_index: int = 0,
                           process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
        """Every record of the split once; `limit` takes so many of these batches, spread over all lengths."""
        return evaluation_batches(self.splits[split_name], self.recipe, config, batch_size=batch_size,
                                  process_index=process_index, process_count=process_count, limit=limit)

    def describe(self) -> str:
        """A line a split, and then what was chosen, dropped, repaired or cut."""
        lines = []
        for name, split in self.splits.items():
            tokens = int(split.lengths.sum())
            lines.append(f"{name:<10} {len(split.examples):>9,} examples {split.num_records:>9,} records "
                         f"{tokens:>12,} tokens {tokens / max(split.num_records, 1):7.1f} a record, "
                         f"{int(split.lengths.max(initial=0)):,} at most")
        if self.labels is not None:
            shown = ", ".join(self.labels[:8]) + (", ..." if len(self.labels) > 8 else "")
            lines.append(f"labels: {len(self.labels)} ({shown})")
        return "\n".join([*lines, *self.notes])

    def locate(self, config: Config, step: int) -> str:
        """Where the examples stand of the batch that `training_batches(start_step=step)` gives first."""
        split = self._train()
        _, rows = TrainingOrder(split, config).rows(step)
        where = [split.examples[int(split.example_of[row])]["where"] for row in rows[:8]]
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        return f"the examples of {'; '.join(where)}{more}"

    def num_bytes(self, split_name: str) -> None:
        """None: the loss is not that of the whole text."""
        del split_name

    def _train(self) -> ExampleSplit:
        if "train" not in self.splits:
            raise UserError("config.data: there is no training split; give a file to train on")
        return self.splits["train"]


def prepare_examples(config: Config, recipe: Recipe, *, tokenizer: Tokenizer | None = None,
                     labels: Sequence[str] | None = None, progress: Progress | None = None) -> PreparedExamples:
    """The data of `config` as a task's records; from the cache where it was prepared before.

    Args:
        tokenizer: to take, such as a run's own; else it is read from config.data.tokenizer_path, or made: trained on
            recipe.texts of the training split. Where it is given, there need be no training split.
        labels: the label vocabulary to take; else it is that of the training split (and of what is cut from it).
        progress: called with one line at the start of each long part.

    Raises UserError for whatever is wrong with the data, most of it with file, line and field: see data.formats; for a
    label in held-out data that training does not have; and for a cache folder that cannot be written.
    """
    data, report = config.data, progress or (lambda line: None)
    cache = Cache(cache_root(data.cache_dir))
    parse_steps(data.augmentation)  # What is wrong with them is said before anything long.
    parts = parts_of(config, recipe, need_train=tokenizer is None)
    label = ", ".join(part.source.label for part in parts)
    identities = [part.source.identity(cache) for part in parts]
    examples_key = hash_key([_VERSION, "examples", identities, [part.reading_key() for part in parts]])
    meta = _ensure(cache, examples_key, lambda folder: _build_examples(parts, folder, label, report))
    examples = {name: Examples.open(cache.tokens_folder(examples_key), name) for name in SPLITS
                if name in meta["splits"]}
    if tokenizer is None and "train" not in examples:
        raise UserError(f"{label}: no training example is left; all are without text, or copies of held-out ones")
    given = {name for part in meta["parts"] for name in part["given"]}
    trained = {name: examples[name] for name in examples if name == "train" or name not in given}
    own_key = [examples_key, config.task.name, recipe.version]
    tokenizer = tokenizer or _make_tokenizer(data, recipe, cache, own_key, examples, report)
    if data.end_of_text and not tokenizer.special.every_id:
        raise UserError("config.data.end_of_text is true, but the given tokenizer has no end-of-text token; set "
                        "--config.data.end_of_text=false or take another tokenizer")
    given_labels = None if labels is None else tuple(labels)
    labels = given_labels or _make_labels(recipe, cache, own_key, trained, label)
    records_key = hash_key([_VERSION, "records", own_key, config_values(config, recipe.config_fields),
                            tokenizer.fingerprint, labels, recipe.num_specials])
    unchecked = examples if given_labels else {name: examples[name] for name in examples if name not in trained}
    records = _ensure(cache, records_key, lambda folder: _build_records(
        config, recipe, tokenizer, labels, examples, unchecked, folder, report))
    splits = {name: ExampleSplit(
        name, examples[name], cache.tokens_folder(records_key), records["fields"][name],
        [part["splits"].get(name, 0) for part in meta["parts"]] if data.mixture else None) for name in examples}
    if "train" in splits and not splits["train"].num_records:
        raise UserError(f"{label}: no training example is left as a record of the task {config.task.name}"
                        f"{_counted(records['counts']['train'])}")
    cleaning = {what: count for part in meta["parts"] for what, count in _named(part, part["cleaning"]).items()}
    fingerprint = {"source": source_summary(_identity(parts, identities)), "cleaning": cleaning,
                   "splits": records["splits"], "counts": records["counts"],
                   "labels": None if labels is None else list(labels), "tokenizer": tokenizer.fingerprint,
                   "key": records_key}
    counts = {"cleaning": cleaning, **records["counts"]}
    notes = [line for part, found in zip(parts, meta["parts"], strict=True)
             for line in [*part.source.notes, *_notes(found, part.data)]] + _count_notes(records["counts"])
    return PreparedExamples(tokenizer, labels, splits, fingerprint, counts, recipe, tuple(notes))


def _ensure(cache: Cache, key: str, build: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """meta.json of the entry, which `build` makes in a folder where there is none that is sound."""
    meta = cache.tokens_meta(key)
    if meta is not None:
        return meta
    with cache.building_tokens() as folder:
        with cache.writing():
            content = build(folder)
        cache.publish_tokens(folder, key, content)
    meta = cache.tokens_meta(key)
    if meta is None:
        raise UserError(f"data cache {cache.root}: {cache.tokens_folder(key)} was removed or damaged while it was "
                        "being made; try again, or name another folder by --config.data.cache_dir")
    return meta


def _build_examples(parts: Sequence[Part], folder: str, label: str, report: Progress) -> dict[str, Any]:
    report(f"reading {label}")
    return collect_examples(parts, folder)


def _build_records(config: Config, recipe: Recipe, tokenizer: Tokenizer, labels: tuple[str, ...] | None,
                   examples: dict[str, Examples], unchecked: dict[str, Examples], folder: str,
                   report: Progress) -> dict[str, Any]:
    if labels is not None and recipe.labels is not None:
        for split in unchecked.values():
            _check_labels(split, recipe, labels)
    splits, counts, fields = {}, {}, {}
    for name, split in examples.items():
        report(f"encoding {name}: {len(split):,} examples")
        writer, found = RecordWriter(folder, name, recipe.length), collections.Counter()
        for start in range(0, len(split), _CHUNK):
            chunk = split[start:start + _CHUNK]
            rows = recipe.encode(config, tokenizer, labels, chunk, found)
            for number, records in enumerate(rows, start):
                for record in records:
                    writer.append(number, record)
        splits[name] = {"examples": len(split), **writer.close()}
        counts[name] = {what: count for what, count in sorted(found.items()) if count}
        fields[name] = writer.fields
    return {"splits": splits, "counts": counts, "fields": fields}


def _make_tokenizer(data: DataConfig, recipe: Recipe, cache: Cache, own_key: list[Any], examples: dict[str, Examples],
                    report: Progress) -> Tokenizer:
    if data.tokenizer_path:
        return load_tokenizer(os.path.expanduser(data.tokenizer_path))
    if data.tokenizer == "bytes":
        return ByteTokenizer(data.end_of_text)
    key = hash_key([*own_key, data.tokenizer, data.tokenizer_vocabulary_size, data.end_of_text])
    if (kept := cache.tokenizer(key)) is not None:
        return kept
    if data.tokenizer == "characters":
        tokenizer: Tokenizer = CharacterTokenizer.train(_texts(examples.values(), recipe), data.end_of_text)
    else:
        report(f"training a {data.tokenizer} tokenizer of {data.tokenizer_vocabulary_size:,} tokens")
        tokenizer = train_tokenizer(data.tokenizer, _texts([examples["train"]], recipe),
                                    data.tokenizer_vocabulary_size, end_of_text=data.end_of_text)
    cache.keep_tokenizer(key, tokenizer)
    return tokenizer


def _texts(splits: Iterable[Examples], recipe: Recipe) -> Iterator[str]:
    return (text for split in splits for example in split for text in recipe.texts(example))


def _make_labels(recipe: Recipe, cache: Cache, own_key: list[Any], trained: dict[str, Examples],
                 source_label: str) -> tuple[str, ...] | None:
    if recipe.labels is None:
        return None
    if not trained:
        raise UserError(f"{source_label}: there is no training split, from which the labels would be known")
    if (kept := cache.read_record("labels", own_key)) is not None:
        return tuple(kept)
    found = sorted({label for split in trained.values() for example in split for label in recipe.labels(example)})
    cache.write_record("labels", own_key, found)
    return tuple(found)


def _check_labels(examples: Examples, recipe: Recipe, labels: tuple[str, ...]) -> None:
    known = set(labels)
    for example in examples:
        for label in recipe.labels(example):
            if label not in known:
                raise UserError(f"{example['where']}: label '{label}' is not in the training data"
                                f"{did_you_mean(label, labels)}")


def _identity(parts: Sequence[Part], identities: list[dict[str, Any]]) -> dict[str, Any]:
    """One identity of all parts."""
    if len(parts) == 1:
        return identities[0]
    return {"components": [part.reading_key() for part in parts],
            "files": [{**file, "name": f"{part.name}/{file['name']}"}
                      for part, identity in zip(parts, identities, strict=True) for file in identity["files"]]}


def _named(part: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values under names that tell the components of a mixture apart."""
    return values if part["name"] is None else {f"{part['name']}: {what}": value for what, value in values.items()}


def _notes(part: dict[str, Any], data: DataConfig) -> list[str]:
    """Lines on what was cut off for validation, dropped and repaired."""
    notes, splits = [], part["splits"]
    if "validation" in splits and "validation" not in part["given"]:
        how = "by their order" if data.split == "contiguous" else "by a hash of each example"
        pool = sum(count for name, count in splits.items() if name not in part["given"] or name == "train")
        notes.append(f"no validation file: {splits['validation']:,} of {pool:,} training examples are taken for it, "
                     f"{how}")
    counts, first = part["cleaning"], part["first"]
    wrong = "wrong answer offsets"
    said = {"empty": "examples without text dropped", "duplicates": "duplicates dropped from the training data",
            wrong: "answers do not stand where their offset says: "
                   + ", ".join(f"{counts[f'{wrong} {what}']:,} {what}" for what in ("repaired", "dropped", "kept")
                               if f"{wrong} {what}" in counts),
            "without an answer left": "training examples dropped with their last answer"}
    notes += [f"{counts[what]:,} {line} (first: {first[what]})" for what, line in said.items() if what in counts]
    return notes if part["name"] is None else [f"{part['name']}: {line}" for line in notes]


def _count_notes(counts: dict[str, dict[str, int]]) -> list[str]:
    return [f"{name}:{_counted(found).removeprefix(';')}" for name, found in counts.items() if found]


def _counted(found: dict[str, int]) -> str:
    return "; " + ", ".join(f"{what} {count:,}" for what, count in found.items()) if found else ""
