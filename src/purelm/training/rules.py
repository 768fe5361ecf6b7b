"""Ordered rules over parameters: (regular expression, value) pairs, of which the first that matches counts.

A parameter is named by its path, such as "layers/attention/query/kernel"; an expression may match anywhere in it
(`re.search`), so anchor it with ^ and $ where that matters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax

from purelm.errors import UserError

Value = TypeVar("Value")


def path_name(path: Sequence[Any]) -> str:
    """The name of a leaf by its key path: the keys joined by "/"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def first_match(rules: Sequence[tuple[str, Value]], name: str, field: str) -> Value:
    """The value of the first rule that matches the parameter `name`.

    Raises:
      UserError: no rule matches, or one is no regular expression; `field` says where the rules stand.
    """
    for pattern, value in rules:
        try:
            found = re.search(pattern, name)
        except re.error as error:
            raise UserError(f"{field}: '{pattern}' is not a regular expression ({error})") from error
        if found:
            return value
    raise UserError(f"{field}: no rule matches the parameter '{name}'; add one, such as ('.*', ...) at the end")


def match_rules(rules: Sequence[tuple[str, Value]], tree: Any, field: str) -> Any:
    """The tree with each leaf replaced by the value of its rule. Raises as `first_match`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: first_match(rules, path_name(path), field), tree)
