"""The families of published checkpoints: one module each, a translation of its config and a table of its tensors.

A family's module has

    MODEL_TYPES    values of config.json's model_type
    TASKS          names of transformers' classes that can be taken -> config.task.name
    BASE           prefix of tensors' names that files saved from the class without a head lack, or ""
    KEPT           regular expressions of names (without BASE) of tensors that are known and not read: kept for export
    read_config(fields, task) -> changes of ModelConfig, every switch that the family decides
    write_config(model, task) -> fields of config.json, or None where the family cannot hold the model
    tensors(model, task) -> the table (mapping.py)
    aliases(model, task) -> {name that may be in a file: name of the tensor that it is tied to}
    RENAMED        optional: (pattern, replacement) of names in old files
"""

from __future__ import annotations

import importlib
from types import ModuleType

from purelm.errors import UserError, did_you_mean

_MODULES = {
    "gpt2": "gpt2", "gpt_neox": "gpt_neox", "opt": "opt", "llama": "llama", "mistral": "mistral", "qwen2": "qwen2",
    "qwen3": "qwen3", "gemma2": "gemma2", "gemma3_text": "gemma3", "gemma3": "gemma3", "olmo2": "olmo2",
    "bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta", "distilbert": "distilbert", "t5": "t5",
    "mt5": "t5", "bart": "bart", "marian": "marian",
}
NAMES = tuple(dict.fromkeys(_MODULES.values()))


def family_of(model_type: str, where: str) -> ModuleType:
    """The module of a model_type; UserError, which names `where`, for one that is not known."""
    if not isinstance(model_type, str) or model_type not in _MODULES:
        raise UserError(f"{where}: model_type={model_type!r} is no family that can be taken over"
                        f"{did_you_mean(str(model_type), sorted(_MODULES))}; known are {', '.join(sorted(_MODULES))}")
    return importlib.import_module(f"purelm.interop.families.{_MODULES[model_type]}")


def family_named(name: str) -> ModuleType:
    """The module of one of NAMES."""
    return importlib.import_module(f"purelm.interop.families.{name}")
