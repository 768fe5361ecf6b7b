"""What decides a cell's result, as hashes: its configs and the code. Versions of libraries are not part of them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from purelm.ablation.spec import Evaluation
from purelm.config import Config
from purelm.config.applies import RECURRENT
from purelm.config.changes import flatten
from purelm.config.shapes import TWO_STACKS, encoder_layers
from purelm.config.validate import resolve_model, resolve_optimizer

TRAINING_ROOMS = ("config", "data", "models", "tasks", "training")
EVALUATION_ROOMS = (*TRAINING_ROOMS, "inference", "evaluation")
# Where things lie, what is shown, and how the same numbers are computed. data.path is not here: another path is other
# data, as far as a plan can know.
WITHOUT_EFFECT = frozenset({
    "data.cache_dir", "data.tfds_dir", "model.attention_implementation", "model.remat", "model.scan_layers",
    "training.log_every", "training.checkpoint_every", "training.keep_last", "training.loss_chunk",
    "parallel.engine", "parallel.data", "parallel.fsdp", "parallel.tensor"})
# With these the best checkpoint is another; the latest is not.
OF_THE_BEST = frozenset({"training.evaluate_every", "training.evaluate_batches", "training.keep_best"})
# How answers are written, and by what they are judged: read after training alone.
_OF_ANSWERS = ("decoding.", "task.metrics", "task.bleu_tokenizer", "task.longest_answer")


def canonical(config: Config) -> Config:
    """The config with what is derived when left at none filled in, so that two ways to say the same are equal.

    A vocabulary that the data will decide is 0.
    """
    model = resolve_model(config.model, 0)
    if model.architecture in TWO_STACKS:
        model = dataclasses.replace(model, encoder_layers=encoder_layers(model))
    if model.architecture in RECURRENT:
        model = dataclasses.replace(model, hidden_size=model.hidden_size or model.width)
    optimizer = resolve_optimizer(config.optimizer)
    if optimizer.name == "muon":
        optimizer = dataclasses.replace(
            optimizer, adam_learning_rate=optimizer.adam_learning_rate or optimizer.learning_rate)
    return dataclasses.replace(config, model=model, optimizer=optimizer)


def fields_of_answers(config: Config) -> dict[str, Any]:
    """path -> value, of the fields that training does not read: how answers are written and judged."""
    return {path: value for path, value in flatten(config).items() if path.startswith(_OF_ANSWERS)}


def training_fingerprint(stages: Sequence[tuple[str, Config]], *, best: bool) -> str:
    """Of what training made: the stages' configs and the code that trains.

    Args:
      stages: (name, config), the seed included.
      best: whether a checkpoint is chosen by validation loss.
    """
    without = WITHOUT_EFFECT if best else WITHOUT_EFFECT | OF_THE_BEST
    configs = [(name, {path: value for path, value in flatten(canonical(config)).items()
                       if path not in without and not path.startswith(_OF_ANSWERS)}) for name, config in stages]
    return _hash([configs, code_fingerprint(TRAINING_ROOMS)])


def evaluation_fingerprint(training: str, config: Config, evaluations: Sequence[Evaluation]) -> str:
    """Of the metrics: the training's fingerprint, how answers are written, the evaluations and the code of both."""
    return _hash([training, fields_of_answers(config), [dataclasses.asdict(evaluation) for evaluation in evaluations],
                  code_fingerprint(EVALUATION_ROOMS)])


@functools.cache
def code_fingerprint(rooms: tuple[str, ...] = EVALUATION_ROOMS) -> str:
    """Of all modules in these rooms of the package, without comments, docstrings and the documentation of fields."""
    package = pathlib.Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()} {_file_fingerprint(path)}\n".encode())
    return digest.hexdigest()[:16]


def source_fingerprint(source: str) -> str:
    """Of a module's syntax tree; comments, docstrings, line breaks and the documentation of the config's fields have no
    part in it."""
    return hashlib.sha256("".join(_pieces(ast.parse(source))).encode()).hexdigest()


@functools.cache
def _file_fingerprint(path: pathlib.Path) -> str:
    return source_fingerprint(path.read_text(encoding="utf-8"))


def _pieces(node: Any) -> Iterator[str]:
    """A syntax tree as text. Unlike ast.dump's, it leaves out what is empty, which differs between Pythons."""
    if isinstance(node, list):
        yield "["
        for item in node:
            yield from _pieces(item)
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and _has_docstring(node):
                value = value[1:]
            elif name == "args" and _is_knob(node):
                value = value[:1]
            if value is not None and value != []:
                yield f" {name}="
                yield from _pieces(value)
        yield ")"
    else:
        yield repr(node)


def _has_docstring(node: ast.AST) -> bool:
    return (isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node, clean=False) is not None)


def _is_knob(node: ast.AST) -> bool:
    """Whether it declares a field of the config, whose second argument is its documentation (config/knob.py)."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "knob"


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
