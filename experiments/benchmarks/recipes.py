"""The project's own configs, loaded for a measurement."""

from __future__ import annotations

import importlib.util
import pathlib

from purelm.config import Config, from_flag

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def load(path: str, *arguments: str) -> Config:
    """The config of configs/`path`."""
    spec = importlib.util.spec_from_file_location("recipe", CONFIGS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_flag(module.get_config(*arguments))


def shakespeare_char(recipe: str) -> Config:
    """configs/lm/shakespeare_char.py:`recipe`."""
    return load("lm/shakespeare_char.py", recipe)
