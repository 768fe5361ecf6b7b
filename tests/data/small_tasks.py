"""Small tasks on examples, and folders of rows, for the tests of data."""

from __future__ import annotations

import gzip
import json

import numpy as np

from purelm.config import Config, DataConfig, ModelConfig, TrainingConfig
from purelm.data import Recipe


def encode(config, tokenizer, labels, examples, counts):
    number_of = {label: number for number, label in enumerate(labels)}
    rows = []
    for example, ids in zip(examples, tokenizer.encode_batch([example["text"] for example in examples])):
        counts["cut"] += len(ids) > config.model.context_length
        rows.append([{"tokens": ids[:config.model.context_length], "label": number_of[example["label"]]}])
    return rows


def collate(config, records, length):
    batch = {"tokens": np.zeros((len(records), length), np.int32), "labels": np.zeros(len(records), np.int32),
             "weights": np.zeros(len(records), np.float32)}
    for row, record in enumerate(records):
        if record is not None:
            batch["tokens"][row, :len(record["tokens"])] = record["tokens"]
            batch["labels"][row], batch["weights"][row] = record["label"], 1
    return batch


CLASSES = Recipe(
    format="labels", texts=lambda example: [example["text"]], labels=lambda example: [example["label"]], encode=encode,
    length=lambda record: len(record["tokens"]), collate=collate, augmented=("tokens",),
    config_fields=("model.context_length",))


def plain_recipe(format_name, texts):
    """A recipe of a format, with all texts of an example as one record."""
    def encode_all(config, tokenizer, labels, examples, counts):
        return [[{"tokens": tokenizer.encode("\n".join(texts(example)))[:config.model.context_length], "label": 0}]
                for example in examples]
    return Recipe(format=format_name, texts=texts, encode=encode_all, length=lambda record: len(record["tokens"]),
                  collate=collate, config_fields=("model.context_length",))


PAIRS = plain_recipe("pairs", lambda example: [example["source"], *example["targets"]])
SQUAD = plain_recipe("squad", lambda example: [example["question"], example["context"]])
TAGS = plain_recipe("tags", lambda example: example["tokens"])
TURNS = plain_recipe("turns", lambda example: [turn["text"] for turn in example["turns"]])
TEXT = plain_recipe("text", lambda example: [example["text"]])


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(content)
    return str(path)


def labeled(count, begin=0):
    """Rows of different lengths, in three classes."""
    return [{"text": f"text {i} " + "word " * (i * 7 % 23), "label": "abc"[i % 3]} for i in range(begin, begin + count)]


def config(folder, *, context_length=64, batch_size=8, seed=0, **fields):
    fields = {"path": str(folder / "rows"), "tokenizer": "bytes", "cache_dir": str(folder / "cache"), **fields}
    return Config(seed=seed, model=ModelConfig(context_length=context_length), data=DataConfig(**fields),
                  training=TrainingConfig(num_steps=1, batch_size=batch_size))
