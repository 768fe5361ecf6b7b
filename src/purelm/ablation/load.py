"""A file of configs/ablations/, loaded with errors that name that file and line."""

from __future__ import annotations

from purelm.ablation.spec import Ablation
from purelm.config.config_file import check_argument, load_module, returned
from purelm.errors import UserError


def load_ablation(value: str) -> Ablation:
    """What get_ablation() of `file.py[:argument]` returns.

    Raises:
      UserError: whatever is wrong with the file, which is named, with the line where there is one.
    """
    path, *argument = value.split(":", 1)
    get = getattr(load_module(path), "get_ablation", None)
    if get is None:
        raise UserError(f"{path}: has no function get_ablation(); a table's file returns Ablation(...) from it")
    check_argument(get, value, argument)
    ablation = returned(path, lambda: get(*argument))
    if not isinstance(ablation, Ablation):
        raise UserError(f"{path}: get_ablation() returned {type(ablation).__name__}; return Ablation(...)")
    return ablation
