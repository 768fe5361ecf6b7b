"""Stochastic gradient descent inside a batch, for tables of which each example reads a few rows.

The trainer makes one update a batch, of every row there is. word2vec.c and gensim update after every pair, and only the
rows of that pair: over tables of 10^4 to 10^6 rows this is much quicker, and each pair sees what the pairs before it
changed. Here a batch goes through the tables in small parts, one after the other; what the trainer gets as
the gradient is the way that the tables have gone, so that its SGD makes just that step (times its schedule).
Several devices, or micro-batches of an accumulation, each go their own way, and the mean of these is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

Tables = tuple[jax.Array, ...]
Batch = Mapping[str, jax.Array]
Places = Callable[[Batch], tuple[jax.Array, ...]]
Sums = Callable[[Tables, Batch], tuple[jax.Array, jax.Array]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def online_sums(places: Places, sums: Sums, learning_rate: float, part_rows: int, tables: Tables,
                batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(loss, weight) of the batch, summed.

    Differentiated, the loss is that which each part had when its turn came, and its gradient by the tables is
    weight / learning_rate times the way from where the tables end to where they began: divided by the weight and
    multiplied by the rate, as the trainer does, the step goes to that end.

    Args:
      places: the ids [B, ...] of the rows that a batch reads, for each table.
      sums: (loss, weight) of those rows, float32 [B, ..., D], and the batch.
      learning_rate: of the steps inside, each of the summed loss of one part.
      part_rows: rows of the batch in a part at most; a part has the largest number that divides the batch evenly.
      tables: [V, D] each.
      batch: arrays [B, ...].
    """
    return sums(tuple(map(_take, tables, places(batch))), batch)


def _forward(places: Places, sums: Sums, learning_rate: float, part_rows: int, tables: Tables,
             batch: Batch) -> tuple[tuple[jax.Array, jax.Array], Tables]:
    def one(moved: Tables, part: Batch) -> tuple[Tables, tuple[jax.Array, jax.Array]]:
        index = places(part)
        (loss, weight), steps = jax.value_and_grad(sums, has_aux=True)(tuple(map(_take, moved, index)), part)
        moved = tuple(table.at[ids].add((-learning_rate * step).astype(table.dtype), mode="drop")
                      for table, ids, step in zip(moved, index, steps))
        return moved, (loss, weight)

    rows = len(next(iter(batch.values())))
    size = max(count for count in range(1, max(part_rows, 1) + 1) if rows % count == 0)
    parts = jax.tree.map(lambda leaf: leaf.reshape(rows // size, size, *leaf.shape[1:]), dict(batch))
    moved, totals = jax.lax.scan(one, tables, parts)
    loss, weight = (jnp.sum(total) for total in totals)
    scale = weight / learning_rate
    way = tuple((before - after).astype(before.dtype) * scale.astype(before.dtype)
                for before, after in zip(tables, moved))
    return (loss, weight), way


def _backward(places: Places, sums: Sums, learning_rate: float, part_rows: int, way: Tables,
              tangents: tuple[jax.Array, jax.Array]) -> tuple[Tables, None]:
    return tuple(leaf * tangents[0].astype(leaf.dtype) for leaf in way), None


online_sums.defvjp(_forward, _backward)


def _take(table_VD: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take(table_VD, index, axis=0, mode="clip").astype(jnp.float32)
