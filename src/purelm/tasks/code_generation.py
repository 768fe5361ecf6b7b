"""Code generation: a language model of programs, tried on problems with tests (HumanEval: Chen et al. 2021).

The model is trained as language_modeling is, on the train and validation files of the folder where it has any, else on
the running interpreter's own library. The split "test" is the problems: of each, the loss counts the canonical solution
after its prompt, so that even a model that solves none is measured, in bits per byte of solution.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from purelm.config import Config, DataConfig
from purelm.data import PreparedData, Tokenizer
from purelm.data.cache import Cache, cache_root, hash_key
from purelm.data.example_batches import evaluation_batches
from purelm.data.example_recipe import Batch, Recipe
from purelm.data.examples import prepare_examples
from purelm.data.files import file_sha256, jsonl_rows, text_documents
from purelm.data.formats import FORMATS
from purelm.data.sources import SourceFile, find_files
from purelm.errors import UserError
from purelm.tasks import language_modeling
from purelm.tasks.learned_parts import collate, length

UNIT = "tokens"
_VERSION = 1

batch_shapes = language_modeling.batch_shapes
initialize = language_modeling.initialize
loss_sums = language_modeling.loss_sums


def split_prompt(prompt: str) -> tuple[str, str]:
    """(what the model is given, the white space at its end, which the model writes itself).

    A tokenizer of words puts a line's end together with the next line's indentation, so a prompt that ends with the
    first alone is nothing that it was trained on.
    """
    given = prompt.rstrip()
    return given, prompt[len(given):]


def prompt_ids(tokenizer: Any, prompt: str) -> np.ndarray:
    """int32 [T]: the start of a document, where the tokenizer marks it, and the prompt without its last white space."""
    return np.concatenate([tokenizer.special.start, tokenizer.encode(split_prompt(prompt)[0])]).astype(np.int32)


def encode(config: Config, tokenizer: Any, labels: None, examples: Sequence[Mapping[str, Any]],
           counts: collections.Counter) -> list[list[dict[str, Any]]]:
    """One record a problem: `ids` of prompt and solution, `learned`, 1 on the solution's, and `bytes`, how many UTF-8
    bytes those stand for. Of what is longer than the context, the prompt's start is left out, then the solution's end;
    both are counted."""
    rows, room = [], config.model.context_length + 1
    for example in examples:
        prompt_T = prompt_ids(tokenizer, example["prompt"])
        white = split_prompt(example["prompt"])[1]
        solution_T = tokenizer.encode(white + example["canonical_solution"])[:room - 1]
        kept_T = prompt_T[max(len(prompt_T) + len(solution_T) - room, 0):]
        counts["prompts cut at their start"] += len(kept_T) < len(prompt_T)
        size = sum(len(tokenizer.token_bytes[token]) for token in solution_T.tolist())
        counts["solutions cut at their end"] += size < len((white + example["canonical_solution"]).encode())
        rows.append([{"ids": np.concatenate([kept_T, solution_T]).astype(np.int32), "bytes": size,
                      "learned": np.repeat([0, 1], [len(kept_T), len(solution_T)]).astype(np.int32)}])
    return rows


RECIPE = Recipe(format="code", texts=lambda example: [example["prompt"] + example["canonical_solution"]],
                encode=encode, length=length, collate=collate, version=1, config_fields=("model.context_length",))


@dataclasses.dataclass(frozen=True, eq=False)
class ProblemSplit:
    """Problems as a split: examples to be answered, and solutions whose loss is measured.

    Attributes:
        examples: of the format code.
        tokens: of all canonical solutions, one after the other.
        num_bytes: UTF-8 bytes that they stand for.
    """

    records: Any

    @property
    def examples(self) -> Any:
        return self.records.examples

    @property
    def tokens(self) -> np.ndarray:
        return np.concatenate([record["ids"][record["learned"] == 1] for record in self._each()])

    @property
    def num_bytes(self) -> int:
        return sum(int(record["bytes"]) for record in self._each())

    def _each(self) -> Iterator[Mapping[str, Any]]:
        return (self.records.record(number) for number in range(self.records.num_records))


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedCode:
    """Text to train and validate on, and problems to test on; as data.prepared.Prepared."""

    text: PreparedData
    problems: ProblemSplit | None
    problems_description: str
    splits: dict[str, Any]
    fingerprint: dict[str, Any]
    labels: None = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.tokenizer

    @property
    def vocabulary_size(self) -> int:
        return self.text.vocabulary_size

    def tokens_per_epoch(self, config: Config) -> int:
        return self.text.tokens_per_epoch(config)

    def training_batches(self, config: Config, **options: Any) -> Iterator[Batch]:
        return self.text.training_batches(config, **options)

    def evaluation_batches(self, split_name: str, config: Config, *, batch_size: int, process_index: int = 0,
                           process_count: int = 1, limit: int | None = None) -> Iterator[Batch]:
        split = self.splits[split_name]
        options = {"batch_size": batch_size, "process_index": process_index, "process_count": process_count,
                   "limit": limit}
        if isinstance(split, ProblemSplit):
            return evaluation_batches(split.records, RECIPE, config, **options)
        return self.text.evaluation_batches(split_name, config, **options)

    def describe(self) -> str:
        return "\n".join(filter(None, [self.text.describe(), self.problems_description]))

    def locate(self, config: Config, step: int) -> str:
        return self.text.locate(config, step)

    def num_bytes(self, split_name: str) -> int | None:
        return self.splits[split_name].num_bytes


def prepare(config: Config, *, tokenizer: Tokenizer | None = None, labels: None = None,
            progress: Any = None) -> PreparedCode:
    """The data of `config`.

    config.data.path is a folder, whose train and validation files are text, or rows with a text or with prompt and
    canonical_solution, and whose test file has problems (format code); or a file of problems. Without train files, and
    without a path, the text is the interpreter's library. Raises UserError as `data.prepare` and `prepare_examples`.
    """
    data, notes = config.data, []
    files: list[SourceFile] = []
    if data.path is not None:
        if data.source not in ("auto", "jsonl", "text"):
            raise UserError(f"config.data.path={data.path} is set, but config.data.source is {data.source}; leave the "
                            "source at auto")
        files, notes = find_files(data.path, "auto", need_train=False)
    text_data = _text_data(data, [file for file in files if file.split in ("train", "validation")])
    text = language_modeling.prepare(dataclasses.replace(config, data=text_data), tokenizer=tokenizer,
                                     progress=progress)
    problem_files = [file for file in files if file.split == "test" or (len(files) == 1 and file.split is None)]
    if not problem_files:
        return PreparedCode(text, None, "", text.splits, text.fingerprint)
    path = problem_files[0].path
    found = prepare_examples(
        dataclasses.replace(config, data=dataclasses.replace(
            data, path=path, source="jsonl", format="code", cleaning=(), validation_fraction=0.0, test_fraction=0.0)),
        RECIPE, tokenizer=text.tokenizer, progress=progress)
    problems = ProblemSplit(found.splits["train"])
    lines = [f"test       {len(problems.examples):>9,} problems of {path}, {problems.num_bytes:,} bytes of solutions",
             *(f"test: {what} {count:,}" for what, count in found.counts["train"].items()), *notes]
    splits = {name: split for name, split in text.splits.items() if name != "test"} | {"test": problems}
    return PreparedCode(text, problems, "\n".join(lines), splits,
                        {**text.fingerprint, "problems": found.fingerprint["key"]})


def _text_data(data: DataConfig, files: Sequence[SourceFile]) -> DataConfig:
    """The data config of the text: the interpreter's library, or these files, as JSON lines in the cache."""
    if not files:
        if data.tfds_name is not None or (data.path is None and data.source != "auto"):
            return data
        return dataclasses.replace(data, path=None, source="python_stdlib", format="auto")
    cache = Cache(cache_root(data.cache_dir))
    key = hash_key([_VERSION, data.text_field, data.document,
                    [[file.split, file.kind, file.name, file_sha256(file.path)] for file in files]])
    found = dataclasses.replace(data, path=cache.tokens_folder(f"code-text-{key}"), source="jsonl", text_field="text",
                                format="auto")
    if cache.tokens_meta(f"code-text-{key}") is None:
        with cache.building_tokens() as folder:
            with cache.writing():
                for split in sorted({file.split for file in files}):
                    with open(os.path.join(folder, f"{split}.jsonl"), "w", encoding="utf-8") as output:
                        for text in (text for file in files if file.split == split for text in _texts(file, data)):
                            output.write(json.dumps({"text": text}) + "\n")
            cache.publish_tokens(folder, f"code-text-{key}", {})
    return found


def _texts(file: SourceFile, data: DataConfig) -> Iterator[str]:
    if file.kind != "jsonl":
        yield from text_documents(file.path, data.document)
        return
    for number, row in jsonl_rows(file.path):
        where = f"{file.path}, line {number}"
        if data.text_field not in row and "prompt" in row:
            example = FORMATS["code"]({"test": "", "task_id": "", "entry_point": "", **row}, data, where, answered=True)
            yield example["prompt"] + example["canonical_solution"]
        else:
            yield FORMATS["text"](row, data, where, answered=False)["text"]
