"""Which family of published models each config and preset can be written as, or what is in the way."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import pathlib
from collections.abc import Iterator

from purelm.config import ModelConfig, from_flag, presets, resolve_model
from purelm.config.shapes import TRANSFORMERS
from purelm.errors import UserError
from purelm.interop.choosing import choose_family, export_task

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
# What is no config of one run: studies of many, and tasks of another program.
_OTHERS = ("ablations", "lm_eval")
# Of a config whose argument is a size, the one to take: all have the same switches.
_SIZES = {"gpt2": ["124m"], "llama": ["tiny"]}
# Of a model whose config leaves them to its data.
_VOCABULARY, _CLASSES = 512, 3
_PRESETS = {
    "gpt2()": (presets.gpt2("124m"), "language_modeling"),
    "llama()": (presets.llama("tiny"), "language_modeling"),
    "nanogpt_cpu()": (presets.nanogpt_cpu(), "language_modeling"),
    "nanogpt_gpu()": (presets.nanogpt_gpu(), "language_modeling"),
    "purelm_fast()": (presets.purelm_fast(), "language_modeling"),
    "bert()": (presets.bert("tiny"), "masked_language_modeling"),
    "vaswani()": (presets.vaswani("tiny"), "sequence_to_sequence"),
    't5(version="1.0")': (presets.t5("tiny"), "sequence_to_sequence"),
    't5(version="1.1")': (presets.t5("tiny", version="1.1"), "sequence_to_sequence"),
    "bart()": (presets.bart("base"), "sequence_to_sequence"),
}


def measure() -> list[dict[str, object]]:
    """A row a recipe of configs/ and a preset; nothing is computed with any of the models."""
    configs = [_row(name, model, task) for name, model, task in _models()]
    return configs + [_row(f"presets.{name}", model, task) for name, (model, task) in _PRESETS.items()]


def _models() -> Iterator[tuple[str, ModelConfig, str]]:
    """(name, model, task) of every recipe."""
    for path in sorted(CONFIGS.rglob("*.py")):
        if path.parent.name in _OTHERS:
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for recipe in _SIZES.get(path.stem) or _recipes(path):
            config = from_flag(module.get_config(*recipe and [recipe]))
            name = str(path.relative_to(CONFIGS)) + (f":{recipe}" if recipe else "")
            yield name, config.model, config.task.name


def _recipes(path: pathlib.Path) -> list[str]:
    """The names that a config file's `choose({...}, recipe)` offers, or an empty one alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "choose"
        if called and isinstance(node.args[0], ast.Dict):
            return [key.value for key in node.args[0].keys]
    return [""]


def _row(name: str, model: ModelConfig, task: str) -> dict[str, object]:
    row = {"model": f"`{name}`", "task": task}
    if model.architecture not in TRANSFORMERS:
        return {**row, "family": "none", "written otherwise, or in the way": f"architecture={model.architecture}"}
    if task in ("classification", "tagging"):
        model = dataclasses.replace(model, num_classes=_CLASSES)
    model = resolve_model(model, _VOCABULARY)
    try:
        choice = choose_family(model, export_task(task, model), None, None, None)
    except UserError as error:
        reason = str(error).partition("hold this model: ")[2].replace("config.model.", "")
        return {**row, "family": "none", "written otherwise, or in the way": reason}
    return {**row, "family": choice.family.MODEL_TYPES[0],
            "written otherwise, or in the way": "; ".join(step.note for step in choice.steps) or "as it is"}
