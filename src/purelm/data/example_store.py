"""Examples and their records on disk: JSON lines with offsets, and flat arrays; both read where they lie.

An entry of examples in the cache has examples.jsonl, ends.npy (where each line ends) and SPLIT.npy (the numbers of a
split's lines). An entry of records has, a split, SPLIT.example_of.npy, SPLIT.lengths.npy, and for each field
SPLIT.FIELD.npy, with SPLIT.FIELD.ends.npy beside it where the field is an array in each record.
"""

from __future__ import annotations

import array
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from purelm.data.example_recipe import Example, Record

_HEADER_ROOM = 128


class ExampleWriter:
    """Writes examples.jsonl, one example after another."""

    def __init__(self, folder: str):
        self._folder = folder
        self._file = open(os.path.join(folder, "examples.jsonl"), "wb")  # noqa: SIM115 (closed by close)
        self._ends = array.array("q")

    def append(self, example: Example) -> None:
        self._file.write(json.dumps(example, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
        self._ends.append(self._file.tell())

    def __len__(self) -> int:
        return len(self._ends)

    def close(self) -> None:
        self._file.close()
        np.save(os.path.join(self._folder, "ends.npy"), np.array(self._ends, np.int64))


class Examples(Sequence[Example]):
    """Some examples of an entry, parsed when they are asked for."""

    def __init__(self, path: str, ends: np.ndarray, numbers: np.ndarray):
        self._path, self._ends, self._numbers = path, ends, numbers
        self._bytes: mmap.mmap | None = None

    @classmethod
    def open(cls, folder: str, split: str) -> Examples:
        return cls(os.path.join(folder, "examples.jsonl"), np.load(os.path.join(folder, "ends.npy")),
                   np.load(os.path.join(folder, f"{split}.npy")))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = int(self._numbers[index])
        if self._bytes is None:
            with open(self._path, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return json.loads(self._bytes[int(self._ends[number - 1]) if number else 0:int(self._ends[number])])

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))


class RecordWriter:
    """Writes the records of one split as flat arrays."""

    def __init__(self, folder: str, split: str, length: Callable[[Record], int]):
        self._folder, self._split, self._length = folder, split, length
        self._columns: dict[str, _Column] | None = None
        self._example_of, self._lengths = array.array("q"), array.array("q")

    @property
    def fields(self) -> list[str]:
        """The keys of the records; empty before the first."""
        return list(self._columns or {})

    def append(self, example: int, record: Record) -> None:
        """Adds a record of the example with this number; all records must have the same keys."""
        if self._columns is None:
            self._columns = {name: _Column(os.path.join(self._folder, f"{self._split}.{name}"), np.ndim(value))
                             for name, value in record.items()}
        if record.keys() != self._columns.keys():
            raise ValueError(f"a record has the fields {sorted(record)}, others have {sorted(self._columns)}")
        for name, column in self._columns.items():
            column.append(record[name])
        self._example_of.append(example)
        self._lengths.append(self._length(record))

    def close(self) -> dict[str, int]:
        """Ends the files; the split's counts."""
        for column in (self._columns or {}).values():
            column.close()
        lengths = np.array(self._lengths, np.int64)
        np.save(os.path.join(self._folder, f"{self._split}.example_of.npy"), np.array(self._example_of, np.int64))
        np.save(os.path.join(self._folder, f"{self._split}.lengths.npy"), lengths)
        return {"records": len(lengths), "tokens": int(lengths.sum()), "longest": int(lengths.max(initial=0))}


class _Column:
    """One field of all records, end to end, as int32."""

    def __init__(self, path: str, dimensions: int):
        self._path, self._ends = path, array.array("q") if dimensions else None
        self._length = 0
        self._file = open(f"{path}.npy", "wb")  # noqa: SIM115 (closed by close)
        self._file.write(_header(0))

    def append(self, value: Any) -> None:
        data = np.asarray(value, np.int32)
        self._file.write(data.tobytes())
        self._length += data.size
        if self._ends is not None:
            self._ends.append(self._length)

    def close(self) -> None:
        self._file.seek(0)
        self._file.write(_header(self._length))
        self._file.close()
        if self._ends is not None:
            np.save(f"{self._path}.ends.npy", np.array(self._ends, np.int64))


def _header(length: int) -> bytes:
    """A one-dimensional .npy header of int32, of one size whatever the length."""
    description = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
    text = repr(description).ljust(_HEADER_ROOM - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + (len(text)).to_bytes(2, "little") + text.encode("ascii")


class ExampleSplit:
    """One split: its examples, and the records that the task made of them.

    Attributes:
        name: train, validation or test.
        examples: the examples, read when asked for.
        example_of: [N] int64, the number of each record's example in `examples`.
        lengths: [N] int64, the recipe's length of each record.
        component_of: [N] int64, of a mixture: the component of each record; else None.
    """

    def __init__(self, name: str, examples: Sequence[Example], folder: str, fields: Iterable[str],
                 component_sizes: Sequence[int] | None):
        """`component_sizes`: of a mixture, how many of the examples each component has, in their order."""
        self.name, self.examples = name, examples
        self.example_of = np.load(os.path.join(folder, f"{name}.example_of.npy"))
        self.lengths = np.load(os.path.join(folder, f"{name}.lengths.npy"))
        self._columns = {field: _open_column(os.path.join(folder, f"{name}.{field}")) for field in fields}
        self.component_of = None
        if component_sizes is not None:
            self.component_of = np.repeat(np.arange(len(component_sizes)), component_sizes)[self.example_of]

    @property
    def num_records(self) -> int:
        return len(self.lengths)

    def record(self, i: int) -> Record:
        """Record `i`; its arrays are read-only views of the file."""
        row: Record = {}
        for field, (values, ends) in self._columns.items():
            row[field] = int(values[i]) if ends is None else values[int(ends[i - 1]) if i else 0:int(ends[i])]
        return row


def _open_column(path: str) -> tuple[np.ndarray, np.ndarray | None]:
    ends = np.load(f"{path}.ends.npy") if os.path.exists(f"{path}.ends.npy") else None
    values = np.load(f"{path}.npy", mmap_mode="r") if os.path.getsize(f"{path}.npy") > _HEADER_ROOM else \
        np.zeros(0, np.int32)
    return values.view(np.ndarray), ends
