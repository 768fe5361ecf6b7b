"""Which files of a folder stand for which split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "test": "test"}
# train.txt, train-00001-of-00004.jsonl.gz, valid.1.txt; not train_subset.txt.
_SPLIT_FILE = re.compile(r"(train|validation|valid|val|dev|test)(?:[-_.](\d+)[\w-]*)?(\.[a-z]+)*")


def choose_split_files(names: Sequence[str], folder: str) -> tuple[dict[str, str | None], list[str]]:
    """The split of each file of a folder (None is left aside), and a line on each choice that a person should know.

    Names say it: train.jsonl, test-00000-of-00002.txt, validation/anything. Where others say it, two rules more:
    - without a file for training, the only one whose name begins with "train_" or "train-" is it;
    - of several test sets (test_2016, test_2017: numbers that do not count parts from 0 or 1) the one named plainly
      "test" is it, else the first by name.
    """
    splits = {name: split_of(name) for name in names}
    notes: list[str] = []
    if not any(splits.values()):
        return splits, notes
    _one_test_set(splits, folder, notes)
    if "train" not in splits.values():
        begun = [name for name in names if splits[name] is None and re.match("train[_-]", name.lower())]
        if len(begun) == 1:
            splits[begun[0]] = "train"
            notes.append(f"no train file in {folder}: {begun[0]} is taken for it")
    return splits, notes


def split_of(name: str) -> str | None:
    """The split that a file's path inside its folder names."""
    first = name.split(os.sep)[0].lower()
    if first in SPLIT_NAMES:
        return SPLIT_NAMES[first]
    match = _SPLIT_FILE.fullmatch(first) if first == name.lower() else None
    return SPLIT_NAMES[match.group(1)] if match else None


def _one_test_set(splits: dict[str, str | None], folder: str, notes: list[str]) -> None:
    tests = sorted(name for name, split in splits.items() if split == "test" and os.sep not in name)
    if not tests:
        tests = sorted(name for name, split in splits.items()
                       if split is None and re.match("test[_-]", name.lower()))
    numbers = [match.group(2) if (match := _SPLIT_FILE.fullmatch(name.lower())) else "" for name in tests]
    parts = all(numbers) and sorted(map(int, numbers)) in ([*range(len(tests))], [*range(1, len(tests) + 1)])
    if not tests or parts:
        return
    plain = [name for name, number in zip(tests, numbers, strict=True) if number is None]
    chosen = plain[0] if plain else tests[0]
    for name in tests:
        splits[name] = "test" if name == chosen else None
    if len(tests) > 1:
        others = ", ".join(name for name in tests if name != chosen)
        notes.append(f"several test files in {folder}: {chosen} is taken; evaluate {others} by --data_path")
