"""Evaluation of a run as a record: which model, which split, what it lost and what it scored."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import lzma
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.config.applies import TASKS_OF_FIELD, change_decoding
from purelm.errors import UserError
from purelm.evaluation import evaluator_of
from purelm.tasks import task_of
from purelm.training.load import LoadedRun, load_run
from purelm.training.run_folder import check_has_data, check_same_data, write_atomically

Progress = Callable[[str], None]


class NotFinite(UserError):
    """A loss that is no number."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`metrics` are JSON-able; `files` are what was written besides, in the run folder."""

    metrics: dict[str, Any]
    files: tuple[pathlib.Path, ...]


def evaluate_run(workdir: str | None, *, split: str = "validation", checkpoint: str = "latest",
                 data_path: str | None = None, batch_size: int | None = None, compressors: bool = False,
                 decoding: dict[str, Any] | None = None, num_examples: int | None = None,
                 quantize: str | None = None, progress: Progress | None = None) -> Evaluation:
    """The loss of a run's model on a whole split, and where the task has answers, their score by the field's metrics.

    Predictions go to predictions_SPLIT.jsonl in the run folder, one line an example, pictures beside them.

    Args:
      workdir: the run folder.
      split: "train", "validation" or "test".
      checkpoint: "latest", "best" or a step.
      data_path: other data than the run was trained on: a file or files, scored whole (and called "train"), or a
        folder with a file for the split. Of word vectors: a file of analogies or of similarities.
      batch_size: rows at once; None is the run's.
      compressors: adds `gzip_bits_per_byte` and `xz_bits_per_byte`, both at level 9 on the split as one text.
      decoding: fields of config.decoding to change.
      num_examples: answers are scored for so many examples of the split alone, its first; None is all.
      quantize: weights in bfloat16, int8 or int4; adds `quantized_loss_difference`, nats, to the weights as they are.
      progress: called with one line at the start of each long part.

    Raises:
      UserError: no run, no checkpoint, no such split, data that changed since the run was trained on it, or compressors
        where the split is no text.
    """
    from purelm.runtime import start_jax

    start_jax()
    report = progress or (lambda line: None)
    run = with_decoding(load_run(workdir, checkpoint, quantize=quantize), decoding)
    evaluator = evaluator_of(run.config)
    if data_path is not None and hasattr(evaluator, "score_file_of"):
        return Evaluation({"task": run.config.task.name, "step": run.step, "file": data_path,
                           **evaluator.score_file_of(run, data_path)}, ())
    data, split = _data_of(run, split, data_path)
    if hasattr(data, "counts") and data.counts.keys() & {split} and data.counts[split]:
        report(f"{split}: " + ", ".join(f"{what} {count:,}" for what, count in data.counts[split].items()))
    batch_size = batch_size or run.config.training.batch_size // run.config.training.accumulation_steps
    metrics = {"task": run.config.task.name, "split": split, "step": run.step,
               **({} if data_path is None else {"data_path": data_path}),
               **loss_of(run, data, split, batch_size), **_sizes(data.splits[split])}
    if quantize is not None:
        exact = loss_of(load_run(workdir, checkpoint), data, split, batch_size)
        metrics.update({"quantize": quantize, "quantized_loss_difference": metrics["loss"] - exact["loss"]})
    if compressors:
        if data.num_bytes(split) is None:
            raise UserError(f"--compressors: the examples of task {run.config.task.name} are no text to compress")
        metrics.update(compressed_bits_per_byte(text_of(data.splits[split], run.tokenizer).encode()))
    files: list[pathlib.Path] = []
    if hasattr(data.splits[split], "examples") and hasattr(evaluator, "predict"):
        examples = list(data.splits[split].examples)[:num_examples]
        scores, files = _answers(run, split, examples, batch_size, report)
        metrics.update(scores)
    return Evaluation(metrics, tuple(files))


def with_decoding(run: LoadedRun, changes: dict[str, Any] | None) -> LoadedRun:
    """The run with fields of config.decoding changed; UserError for one that its task does not read."""
    if not changes:
        return run
    task = run.config.task.name
    for name in changes:
        tasks = TASKS_OF_FIELD[f"decoding.{name}"]
        if "." not in task and task not in tasks:  # A task of the user's own knows by itself.
            raise UserError(f"--{name} has no effect on task {task}; it is for {' or '.join(sorted(tasks))}")
    return dataclasses.replace(run, config=change_decoding(run.config, changes))


def _data_of(run: LoadedRun, split: str, data_path: str | None) -> tuple[Any, str]:
    """(prepared data, the split's name there)."""
    config = run.config
    if data_path is not None:  # A file by itself is scored whole: nothing of it is cut off for other splits.
        config = dataclasses.replace(config, data=dataclasses.replace(
            config.data, path=data_path, source="auto", mixture=(), validation_fraction=0.0, test_fraction=0.0))
    else:
        check_has_data(run.folder)
    data = task_of(config).prepare(config, tokenizer=run.tokenizer, labels=run.labels)
    if data_path is None:
        check_same_data(run.folder, data.fingerprint)
    elif set(data.splits) == {"train"}:
        split = "train"
    if split not in data.splits:
        raise UserError(f"--split={split}: the data has no such split; it has {', '.join(data.splits)}")
    return data, split


def loss_of(run: LoadedRun, data: Any, split: str, batch_size: int) -> dict[str, float]:
    """The loss on a whole split and what follows from it (see training.evaluation.metrics_of); nothing where nothing
    weighs anything.

    Raises:
      NotFinite: the loss.
    """
    import jax

    from purelm.training.evaluation import metrics_of, sum_batches

    config, params = run.config, jax.device_put(run.params)
    # Without dropout no task of ours reads the seed: runs that differ by it alone share the program.
    step = _loss_step(config if "." in config.task.name else dataclasses.replace(config, seed=0))
    totals = sum_batches(lambda batch: step(params, batch),
                         data.evaluation_batches(split, config, batch_size=batch_size))
    if not totals["weight"]:
        return {}
    if not math.isfinite(totals["cross_entropy"]):
        raise NotFinite(f"{run.folder.checkpoints}: the loss of step {run.step} is not finite; give another "
                        "--checkpoint")
    unit = task_of(config).UNIT
    return {**metrics_of(totals, unit=unit, num_bytes=data.num_bytes(split)), unit: int(totals["weight"])}


@functools.lru_cache(maxsize=4)
def _loss_step(config: Config) -> Callable[[Any, Any], dict[str, Any]]:
    """loss_sums of (params, batch), compiled."""
    import jax

    loss_sums = task_of(config).loss_sums
    return jax.jit(lambda params, batch: loss_sums(config, params, batch, None))


def _sizes(split: Any) -> dict[str, int]:
    names = {"num_bytes": "bytes", "num_documents": "documents"}
    return {shown: getattr(split, name) for name, shown in names.items() if hasattr(split, name)}


def _answers(run: LoadedRun, split: str, examples: Sequence[dict[str, Any]], batch_size: int,
             report: Progress) -> tuple[dict[str, Any], list[pathlib.Path]]:
    """(scores, files written)."""
    evaluator = evaluator_of(run.config)
    report(f"answering {len(examples):,} examples of {split}")
    path = run.folder.path / f"predictions_{split}.jsonl"
    scores, predictions = answer_scores(run, examples, batch_size, path, report)
    files = [path]
    if hasattr(evaluator, "pictures"):
        files += evaluator.pictures(run, examples, predictions, run.folder.path)
    return scores, files


def answer_scores(run: LoadedRun, examples: Sequence[dict[str, Any]], batch_size: int, path: pathlib.Path,
                  report: Progress) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(scores, predictions) of the run's answers to examples; the predictions go to `path`."""
    evaluator = evaluator_of(run.config)
    started = time.monotonic()
    predictions = evaluator.predict(run, examples, batch_size=batch_size, progress=report)
    seconds = time.monotonic() - started
    write_predictions(path, predictions)
    return {**evaluator.score(run, examples, predictions), "seconds_to_answer": round(seconds, 2)}, predictions


def write_predictions(path: pathlib.Path, predictions: Sequence[dict[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions))


def write_evaluation(workdir: str, result: dict[str, Any]) -> pathlib.Path:
    """Writes evaluation.json in the run folder and returns its path."""
    path = pathlib.Path(workdir) / "evaluation.json"
    write_atomically(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return path


def text_of(split: Any, tokenizer: Any) -> str:
    """The split's whole text, decoded from its tokens."""
    ids = split.tokens[:]
    return tokenizer.decode(ids[~np.isin(ids, list(tokenizer.special_ids))])


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """What gzip -9 and xz -9 make of `text`, in bits for each of its bytes."""
    return {"gzip_bits_per_byte": 8 * len(gzip.compress(text, 9)) / len(text),
            "xz_bits_per_byte": 8 * len(lzma.compress(text, preset=9)) / len(text)}


def summary_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without what is nested, for one line on a terminal."""
    return {name: value for name, value in metrics.items() if not isinstance(value, (dict, list))}
