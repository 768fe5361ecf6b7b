"""TFDS sets by name, read without TensorFlow.

Sets that are prepared on disk as array_record are read; none is downloaded or built here, because most sets need
TensorFlow for that (https://www.tensorflow.org/datasets/tfless_tfds). The extra `prepare` holds what builds them.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import importlib
import json
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from purelm.config import DataConfig
from purelm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from purelm.data.sources import FileIndex, SourceRow

_logger = logging.getLogger("purelm")
_SPLITS = {"test": "test", "validation": "validation", "valid": "validation", "dev": "validation", "train": "train"}


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """The `text_field` feature of a prepared TFDS set; its own train, validation and test splits are used."""

    name: str
    data_dir: str | None
    text_field: str
    need_train: bool = True
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"tfds {self.name}"

    def identity(self, index: FileIndex) -> dict[str, Any]:
        """The set's folder listing (names, sizes) and a hash of its JSON files.

        `index` remembers the folder, so that a later start recognises the set without importing TFDS.
        """
        key = [self.name, os.path.abspath(self.data_dir) if self.data_dir else None]
        known = index.read_record("tfds", key)
        if known and os.path.isdir(known["folder"]) and _stamps(known["folder"]) == known["stamps"]:
            return {**known["identity"], "text_field": self.text_field}
        builder = _prepared_builder(self.name, self.data_dir)
        folder = str(builder.data_path)
        identity = {"tfds": builder.info.full_name, "files": _listing(folder)}
        index.write_record("tfds", key, {"folder": folder, "stamps": _stamps(folder), "identity": identity})
        return {**identity, "text_field": self.text_field}

    def documents(self) -> Iterator[tuple[str | None, str]]:
        """(split or None, text). UserError for a missing feature, one that is not text, or rows that are missing."""
        builder = _prepared_builder(self.name, self.data_dir)
        splits = self._splits(builder)
        self._check_feature(builder, self.text_field, "text_field")
        for split, name in splits.items():
            for number, row in self._split_rows(builder, name):
                value = self._plain(row[self.text_field], None, f"split '{name}', example {number}: feature "
                                    f"'{self.text_field}'")
                if not isinstance(value, str):
                    raise UserError(f"TFDS {self.name}: feature '{self.text_field}' is a {type(value).__name__}, not "
                                    "text; name a text feature by config.data.text_field")
                yield split, value

    def rows(self, data: DataConfig, format_name: str) -> Iterator[SourceRow]:
        """The features that the format reads, as JSON would have them: bytes decoded, class labels by name (none
        where TFDS has -1, no label), sequences as lists."""
        from purelm.data.formats import FIELDS
        from purelm.data.sources import SourceRow
        builder = _prepared_builder(self.name, self.data_dir)
        features = builder.info.features
        wanted = {getattr(data, knob): knob for knob in FIELDS[format_name] if knob.endswith("_field")}
        wanted.pop(None, None)
        for feature, knob in wanted.items():
            if knob not in ("id_field", "speaker_field") and not (knob == "text_field" and format_name == "turns"):
                self._check_feature(builder, feature, knob)
        names = [name for name in features if name in wanted or format_name == "code"]
        for split, name in self._splits(builder).items():
            if format_name == "labels" and split == "test" and self._is_unlabeled(builder, name, data.label_field):
                _logger.warning("TFDS %s: split '%s' has no '%s' (it is not published) and is left aside", self.name,
                                name, data.label_field)
                continue
            for number, row in self._split_rows(builder, name):
                where = f"split '{name}', example {number}"
                yield SourceRow(split, where, f"TFDS {self.name}, {where}", {
                    key: self._plain(row[key], features[key], f"{where}: feature '{key}'") for key in names})

    def _splits(self, builder: Any) -> dict[str, str]:
        """Our names of its splits and its own, held-out ones first."""
        if "train" not in builder.info.splits and self.need_train:
            raise UserError(f"TFDS {self.name} has no split 'train', only {', '.join(builder.info.splits)}")
        given = {split: name for name, split in _SPLITS.items() if name in builder.info.splits}
        return {split: given[split] for split in ("test", "validation", "train") if split in given}

    def _is_unlabeled(self, builder: Any, name: str, label: str) -> bool:
        """Whether the first example's class is -1, which is how TFDS says that it is not known."""
        for _, row in self._split_rows(builder, name):
            return self._plain(row[label], builder.info.features[label], name) is None
        return False

    def _check_feature(self, builder: Any, feature: str, knob: str) -> None:
        if feature not in builder.info.features:
            raise UserError(f"TFDS {self.name}: no feature '{feature}' (config.data.{knob})"
                            f"{did_you_mean(feature, builder.info.features)}")

    def _split_rows(self, builder: Any, name: str) -> Iterator[tuple[int, Any]]:
        source = builder.as_data_source(split=name)
        expected = builder.info.splits[name].num_examples
        if len(source) != expected:
            raise UserError(f"TFDS {self.name}: split '{name}' has {len(source)} of {expected} examples on disk; "
                            "prepare it again with file_format='array_record'")
        for number in range(expected):
            yield number, source[number]

    def _plain(self, value: Any, feature: Any, where: str) -> Any:
        """A feature's value as JSON; `feature` is its description, where class labels and nesting are known."""
        inner = getattr(feature, "feature", feature)
        if isinstance(value, dict):
            return {key: self._plain(item, inner[key] if inner is not None else None, where)
                    for key, item in value.items()}
        if isinstance(value, (list, tuple)) or getattr(value, "ndim", 0):
            return [self._plain(item, inner, where) for item in value]
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"TFDS {self.name}, {where} is not UTF-8 at byte {error.start}") from error
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, int) and hasattr(feature, "int2str"):
            return feature.int2str(value) if value >= 0 else None
        return value


def _prepared_builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"config.data.tfds_name={name} needs tensorflow-datasets ({error}); run pip install "
                        "tensorflow-datasets") from error
    set_name = name.split("/")[0].split(":")[0]
    logging.getLogger("absl").setLevel(logging.ERROR)  # A set that is not there is said below, in one line.
    # Not every set is in the registry until its module is imported (wmt14, c4, glue, ...).
    _import_module_of(set_name, os.path.dirname(tfds.__file__))
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        choices = tfds.list_builders(with_community_datasets=False)
        longer = [choice for choice in choices if choice.startswith(set_name)]
        near = did_you_mean(set_name, choices)
        hint = (f"; did you mean '{longer[0]}'?" if longer else near if "did you mean" in near
                else "; see tensorflow.org/datasets/catalog")
        raise UserError(f"config.data.tfds_name={name}: TFDS has no set '{set_name}'{hint}") from error
    except (ValueError, AssertionError, ImportError) as error:
        raise UserError(f"config.data.tfds_name={name}: {_one_line(error)}") from error
    if builder.is_prepared() and builder.info.splits:
        return builder
    folder = os.path.dirname(str(builder.data_path))
    raise UserError(
        f"config.data.tfds_name={name}: not prepared as array_record in {folder}; where a network and TensorFlow are "
        f"at hand run: pip install 'purelm[prepare]' && python -c \"import tensorflow_datasets as tfds; "
        f"tfds.builder('{name}', file_format='array_record', data_dir='DIR').download_and_prepare()\", copy DIR here "
        "and give --config.data.tfds_dir=DIR; or give the same data as files by --config.data.path=FOLDER")


def _import_module_of(set_name: str, root: str) -> None:
    """Imports the module named as the set, or as the set's first words (wmt14.py defines wmt14_translate)."""
    words = set_name.split("_")
    for count in range(len(words), 0, -1):
        stem = glob.escape("_".join(words[:count]))
        for path in sorted(glob.glob(f"{root}/*/{stem}.py") + glob.glob(f"{root}/*/{stem}/{stem}.py")):
            module = os.path.relpath(path, root)[: -len(".py")].replace(os.sep, ".")
            if not module.startswith(("core.", "scripts.", "testing.", "datasets.")):
                try:
                    importlib.import_module(f"tensorflow_datasets.{module}")
                except ImportError as error:
                    raise UserError(f"config.data.tfds_name={set_name}: its TFDS module needs a missing package "
                                    f"({_one_line(error)})") from error
                return


def _files(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.is_file()), key=lambda entry: entry.name)


def _stamps(folder: str) -> list[list[Any]]:
    return [[entry.name, entry.stat().st_size, entry.stat().st_mtime_ns] for entry in _files(folder)]


def _listing(folder: str) -> list[dict[str, Any]]:
    """Record files are known by name and size (they may be huge), the JSON that describes them by content."""
    rows: list[dict[str, Any]] = []
    for entry in _files(folder):
        row: dict[str, Any] = {"name": entry.name, "bytes": entry.stat().st_size}
        if entry.name.endswith(".json"):
            with open(entry.path, "rb") as file:
                row["sha256"] = hashlib.sha256(json.dumps(json.load(file), sort_keys=True).encode()).hexdigest()
        rows.append(row)
    return rows


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
