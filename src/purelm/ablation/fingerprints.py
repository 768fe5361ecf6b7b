"""What decides a cell's result, as hashes: its configs and the code. Versions of libraries are not part of them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from purelm.ablation.spec import Evaluation
from purelm.config import Config
from purelm.config.changes import flatten

TRAINING_ROOMS = ("config", "data", "models", "tasks", "training")
EVALUATION_ROOMS = (*TRAINING_ROOMS, "inference", "evaluation")
# What changes neither the parameters that are evaluated nor how: where things lie, what is shown, and how the same
# numbers are computed. data.path is not here: another path is other data, as far as a plan can know.
_WITHOUT_EFFECT = frozenset({
    "data.cache_dir", "data.tfds_dir", "model.attention_implementation", "model.remat",
    "model.scan_layers", "training.log_every", "training.checkpoint_every", "training.keep_last",
    "training.loss_chunk", "parallel.engine", "parallel.data", "parallel.fsdp", "parallel.tensor"})
# With these the best checkpoint is another; the latest is not.
_OF_THE_BEST = frozenset({"training.evaluate_every", "training.evaluate_batches", "training.keep_best"})
# How answers are written, and which words judge them: read after training alone.
_OF_ANSWERS = ("decoding.", "task.metrics", "task.bleu_tokenizer", "task.longest_answer")


def training_fingerprint(stages: Sequence[tuple[str, Config]], *, best: bool) -> str:
    """Of what training made: the stages' configs and the code that trains.

    Args:
      best: whether a checkpoint is chosen by validation loss.
    """
    without = _WITHOUT_EFFECT if best else _WITHOUT_EFFECT | _OF_THE_BEST
    configs = [(name, {path: value for path, value in flatten(config).items()
                       if path not in without and not path.startswith(_OF_ANSWERS)}) for name, config in stages]
    return _hash([configs, code_fingerprint(TRAINING_ROOMS)])


def evaluation_fingerprint(training: str, config: Config, evaluations: Sequence[Evaluation]) -> str:
    """Of the metrics: the training's fingerprint, how answers are written, the evaluations and the code of both."""
    answers = {path: value for path, value in flatten(config).items() if path.startswith(_OF_ANSWERS)}
    return _hash([training, answers, [dataclasses.asdict(evaluation) for evaluation in evaluations],
                  code_fingerprint(EVALUATION_ROOMS)])


@functools.cache
def code_fingerprint(rooms: tuple[str, ...]) -> str:
    """Of the syntax trees of all modules in these rooms of the package, without docstrings and comments."""
    package = pathlib.Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
            digest.update(source_fingerprint(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def source_fingerprint(source: str) -> str:
    """Of a module's text; comments, docstrings and line breaks have no part in it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body
                and ast.get_docstring(node, clean=False) is not None):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
