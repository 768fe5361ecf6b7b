"""What `--config=FILE` names, a Python config file or a run's config.json, loaded with errors that name that file.

A file of configs/ablations/ is a config too: its table's base.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from purelm.config.schema import Config
from purelm.config.serialization import as_flag, load_json
from purelm.errors import UserError


def get_config(value: str) -> Any:
    """The ConfigDict of `file.py[:argument]` or `file.json`.

    Raises:
      UserError: whatever is wrong with the file, which is named, with the line where there is one.
    """
    path, *argument = value.split(":", 1)
    if path.endswith(".json"):
        return _as_flag(path, returned(path, lambda: load_json(path)))
    module = load_module(path)
    if hasattr(module, "get_ablation") and not hasattr(module, "get_config"):
        get = module.get_ablation
        check_argument(get, value, argument)
        return _as_flag(path, returned(path, lambda: get(*argument).base))
    get = getattr(module, "get_config", None)
    if get is None:
        raise UserError(f"{path}: has no function get_config(); a config file returns as_flag(Config(...)) from it")
    check_argument(get, value, argument)
    return _as_flag(path, returned(path, lambda: get(*argument)))


def check_argument(get: Callable[..., Any], value: str, argument: list[str]) -> None:
    """Raises UserError where what follows the colon of `value` is not what the file's function takes."""
    try:
        inspect.signature(get).bind(*argument)
    except TypeError:
        names = ", ".join(inspect.signature(get).parameters)
        wants = f"does not take one; leave ':{argument[0]}' out" if argument else f"wants one: {value}:..."
        raise UserError(f"{value}: argument after the colon: {get.__name__}({names}) there {wants}") from None


def load_module(path: str) -> ModuleType:
    """The module that a Python file is; UserError names the line of whatever it raises."""
    spec = importlib.util.spec_from_file_location("purelm_config_file", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{error.filename or path}:{error.lineno or 1}: {error.msg}") from error
    except Exception as error:  # A config file is the user's own program: any exception of it is named, with its line.
        raise UserError(_described(error, path)) from error
    return module


def returned(path: str, get: Callable[[], Any]) -> Any:
    """What a function of the file at `path` returns; UserError names the file and line of whatever it raises."""
    try:
        return get()
    except UserError as error:
        raise UserError(str(error) if path in str(error) else f"{path}: {error}") from error
    except Exception as error:  # As above.
        raise UserError(_described(error, path)) from error


def _as_flag(path: str, config: Any) -> Any:
    from ml_collections import ConfigDict

    config = returned(path, lambda: as_flag(config)) if isinstance(config, Config) else config
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returned {type(config).__name__}; return as_flag(Config(...))")
    return config


def _described(error: Exception, path: str) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if os.path.abspath(frame.filename) == os.path.abspath(path)]
    return f"{path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}"
