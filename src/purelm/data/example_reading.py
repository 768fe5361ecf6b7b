"""From rows of data to the cleaned examples of each split."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from purelm.config import Config, DataConfig
from purelm.data.example_cleaning import ExampleCleaner
from purelm.data.example_recipe import Example, Recipe
from purelm.data.example_store import ExampleWriter
from purelm.data.formats import AS_PAIR, FIELDS, FORMATS, SPLIT_BY, as_pair
from purelm.data.sources import Source
from purelm.data.splits import SPLITS, contiguous_split, hash_point
from purelm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
    """A source of examples, and how its rows are read: all of a run's data, or a component of a mixture, which has a
    name. Rows of `format_name` become examples of `target_format`."""

    name: str | None
    source: Source
    data: DataConfig
    format_name: str
    target_format: str

    def reading_key(self) -> dict[str, Any]:
        """All of the config that decides what examples are read, the source itself apart."""
        data, key = self.data, {name: getattr(self.data, name) for name in FIELDS[self.format_name]}
        if self.target_format == "pairs":
            key["prompt"] = data.prompt
        return {**key, "name": self.name, "format": [self.format_name, self.target_format], "cleaning": data.cleaning,
                "split": data.split, "validation_fraction": data.validation_fraction,
                "test_fraction": data.test_fraction}


def format_of(config: Config, recipe: Recipe) -> str:
    """The format that rows are read by. UserError where the task cannot use it."""
    chosen = recipe.format if config.data.format == "auto" else config.data.format
    allowed = AS_PAIR if recipe.format == "pairs" else (recipe.format,)
    if chosen not in allowed:
        raise UserError(f"config.data.format='{chosen}': the task {config.task.name} reads {', '.join(allowed)}; leave "
                        "it at auto")
    return chosen


def collect_examples(parts: Sequence[Part], folder: str) -> dict[str, Any]:
    """Writes the cleaned examples of all parts and the numbers of each split's into `folder`.

    Returns what is to be remembered: "splits" with their sizes, and "parts", each with its own splits, those that files
    were "given" for, counts of "cleaning" and where the "first" of those stands.

    Raises UserError for the first row that is wrong, and where no example is left.
    """
    writer = ExampleWriter(folder)
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    found = []
    try:
        for part in parts:
            begin = len(writer)
            divided, remembered = _collect_part(part, writer)
            for name, numbers in divided.items():
                splits[name] += [begin + number for number in numbers]
            found.append(remembered)
    finally:
        writer.close()
    splits = {name: numbers for name, numbers in splits.items() if numbers}
    for name, numbers in splits.items():
        np.save(os.path.join(folder, f"{name}.npy"), np.array(numbers, np.int64))
    return {"splits": {name: len(numbers) for name, numbers in splits.items()}, "parts": found}


def _collect_part(part: Part, writer: ExampleWriter) -> tuple[dict[str, list[int]], dict[str, Any]]:
    data, format_name, label = part.data, part.format_name, part.source.label
    cleaner = ExampleCleaner(data, format_name, offsets=part.target_format == "squad")
    whole = not data.validation_fraction and not data.test_fraction  # Files of no split may be there to be scored.
    prefix = "" if part.name is None else f"{part.name}: "
    given: list[str | None] = []
    points: list[float] = []
    speaks = format_name != "turns"
    for row in part.source.rows(data, format_name):
        example = {**FORMATS[format_name](row.fields, data, row.place, answered=True), "where": prefix + row.where}
        kept = cleaner.keep(example, held_out=row.split in ("validation", "test") or (row.split is None and whole))
        if kept is None:
            continue
        speaks = speaks or any(turn["speaker"] == "assistant" for turn in kept["turns"])
        given.append(row.split)
        points.append(hash_point(_divided_by(kept, format_name)))
        writer.append(_converted(part, kept))
    if not given:
        raise UserError(f"{label}: no example with text in it (of {cleaner.counts['read']:,} read)")
    if not speaks:
        raise UserError(f"{label}: no turn is by '{data.assistant}' (config.data.assistant); name a speaker whose "
                        "turns are to be learned")
    splits = divide(given, points, data)
    return splits, {"name": part.name, "splits": {name: len(numbers) for name, numbers in splits.items()},
                    "given": sorted({name for name in given if name}),
                    "cleaning": dict(sorted(cleaner.counts.items())), "first": cleaner.first}


def divide(given: list[str | None], points: list[float], data: DataConfig) -> dict[str, list[int]]:
    """The numbers of the examples of each split that is not empty.

    Args:
        given: the split that each example's file stands for, or None.
        points: a number in [0, 1) for each, by its content.

    Examples of validation and test files stay there. Without a validation file, the others are divided by `points` (or
    by their order, where config.data.split is contiguous), and test is cut from them too unless files split the data;
    of two examples or more, each fraction that is wanted gets at least one.
    """
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    test_fraction = 0.0 if any(given) else data.test_fraction
    divided = "validation" not in given and (data.validation_fraction or test_fraction) and (
        "train" in given or None in given)
    pool = [i for i, name in enumerate(given) if name not in ("validation", "test")]
    for i, name in enumerate(given):
        if name in ("validation", "test"):
            splits[name].append(i)
    if not divided:
        splits["train"] = pool
    elif data.split == "contiguous":
        for name, pieces in contiguous_split([1] * len(pool), data.validation_fraction, test_fraction).items():
            splits[name] += [pool[piece.document] for piece in pieces]
    else:
        for i in pool:
            validation_end = test_fraction + data.validation_fraction
            splits["test" if points[i] < test_fraction else
                   "validation" if points[i] < validation_end else "train"].append(i)
        for name, fraction in (("validation", data.validation_fraction), ("test", test_fraction)):
            if fraction and not splits[name] and len(splits["train"]) > 1:
                first = min(splits["train"], key=lambda i: (points[i], i))
                splits["train"].remove(first)
                splits[name].append(first)
    return {name: numbers for name, numbers in splits.items() if numbers}


def _converted(part: Part, example: Example) -> Example:
    if part.target_format != part.format_name:
        example = as_pair(part.format_name, example)
        example = {**example, "source": part.data.prompt + example["source"]}
    return example if part.name is None else {**example, "component": part.name}


def _divided_by(example: Example, format_name: str) -> str:
    return json.dumps([example[key] for key in SPLIT_BY[format_name]], ensure_ascii=False)
