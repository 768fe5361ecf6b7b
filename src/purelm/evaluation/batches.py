"""Examples through a model, and each one's answer back in the order that they came in."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.data.example_batches import padded_length
from purelm.data.example_recipe import Recipe

Progress = Callable[[str], None]


def answers(config: Config, recipe: Recipe, tokenizer: Any, labels: tuple[str, ...] | None,
            examples: Sequence[Mapping[str, Any]], compute: Callable[[Mapping[str, np.ndarray]], Any], *,
            batch_size: int, progress: Progress | None = None) -> list[tuple[Mapping[str, Any], Any]]:
    """(record, its row of `compute(batch)`) of each example, for recipes with one record an example.

    Args:
      compute: arrays with rows first, or a tuple or dict of them, of a batch; called with few different shapes.
      batch_size: rows at once; the last batch is padded with rows of weight zero.
      progress: called with a line a tenth of the way.

    Raises:
      UserError: what `recipe.encode` raises.
    """
    import jax

    records = [rows[0] for rows in recipe.encode(config, tokenizer, labels, examples, collections.Counter())]
    found: list[Any] = [None] * len(records)
    tenth, done = max(len(records) // 10, 1), 0
    for members, batch in in_batches(config, recipe, records, batch_size):
        outputs = jax.tree.map(np.asarray, compute(batch))
        for row, index in enumerate(members):
            found[index] = (records[index], jax.tree.map(lambda leaf, row=row: leaf[row], outputs))
        if progress is not None and done // tenth != (done + len(members)) // tenth:
            progress(f"predicted {done + len(members):,} of {len(records):,}")
        done += len(members)
    return found


def in_batches(config: Config, recipe: Recipe, records: Sequence[Mapping[str, Any]],
               batch_size: int) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """(numbers of the records, their batch of `batch_size` rows), longest first, so that rows need little padding."""
    order = sorted(range(len(records)), key=lambda index: -recipe.length(records[index]))
    for start in range(0, len(order), batch_size):
        members = order[start:start + batch_size]
        rows = [records[index] for index in members] + [None] * (batch_size - len(members))
        length = padded_length(recipe.length(records[members[0]]), config.model.context_length, config.data.bucketing)
        yield members, recipe.collate(config, rows, length)
