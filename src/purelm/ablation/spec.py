"""A paper's table as data: a base, named rows of changes, what is measured, and what was published.

A file of configs/ablations/ returns an `Ablation` from get_ablation(). Fields of the config are named by their path,
such as "model.num_heads" or "seed".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from purelm.config import Config

BASE = "base"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A measurement of a trained cell; its metrics are called NAME/METRIC, such as test/bleu.

    Attributes:
      name: of the measurement, the first part of its metrics' names.
      split: "train", "validation" or "test".
      checkpoint: "latest" or "best" (by validation loss).
      changes: fields of the config that differ from training, such as {"model.context_length": 512}: the same
        parameters at other lengths. Where a model cannot do it (a table of learned positions ends), the cell has no
        such metric and says why.
      answers: whether answers are written and scored (BLEU, F1, ...) besides the loss.
      num_examples: answers to so many examples alone, the first; None is all.
    """

    name: str
    split: Literal["train", "validation", "test"] = "validation"
    checkpoint: Literal["latest", "best"] = "latest"
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    answers: bool = True
    num_examples: int | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
      name: EVALUATION/METRIC, as in "validation/loss".
      label: as it is printed.
      direction: which is better.
      digits: behind the point, in print.
      tolerance: largest difference between measured and published that still counts as reproduced; None where the
        scale allows no such claim and only the order can be compared.
    """

    name: str
    label: str
    direction: Literal["lower", "higher"]
    digits: int = 3
    tolerance: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A named change of the base.

    Attributes:
      name: letters, digits and ._+- ; it is also the folder of the row's runs.
      changes: path -> value, such as {"model.num_heads": 1, "model.head_size": 128}.
      label: as it is printed; "" prints the name.
      group: the paper's part of the table, such as "(A)".
      published: metric name (of the table's metrics) -> the paper's number.
      grid: path -> values: the row stands for one row for each combination, named NAME,FIELD=VALUE.
      search: path -> values: each combination is trained with the table's search seeds, and the row is the best of
        them by the search metric, trained with the table's own seeds. None is the table's search; {} is no search.
      stage_changes: stage name -> changes of that stage alone.
      compare_to: the row whose difference is taken; None is the base.
    """

    name: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    group: str = ""
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    search: Mapping[str, tuple[Any, ...]] | None = None
    stage_changes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    compare_to: str | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a row's training; every stage after the first starts from the one before (config.init_from).

    Its config is the base with `changes`, then the row's, then the row's own for this stage.
    """

    name: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A table.

    Attributes:
      title: what it is, in a line.
      source: the paper and its table.
      base: the config that rows change; it is the row "base".
      rows: the others, in the order of the table.
      metrics: columns; the first is what rows are ordered, searched and flagged by.
      evaluations: what is measured at the end of each cell; a metric's first part names one of them.
      seeds: of each row; an int is that many, from 0.
      base_label, base_group, base_published: as of a Row.
      stages: parts of each row's training; () is one. The last is what is measured.
      search: learning-rate search of every row, base included (see Row.search).
      search_seeds: seeds of the search alone, so that the choice does not flatter the row's own seeds.
      expected_order: row names, best first, by the first metric, where a paper claims an order and no number; checked
        beside `published`.
      compute: what a reader must know of the scale at which this is run, and what it cannot show.
      test: "paired_t" over shared seeds with Holm's correction, or "dunnett" (many rows against one control, pooled
        variance; corrects by itself).
      interval: of each difference: "t" or "bootstrap".
      confidence: of intervals; 1 - confidence is the level of flags.
      fit: "chinchilla" fits loss = E + A / N^a + B / D^b over all cells (N parameters without embeddings, D tokens).
    """

    title: str
    source: str
    base: Config
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    evaluations: tuple[Evaluation, ...] = (Evaluation("validation"),)
    seeds: int | tuple[int, ...] = 3
    base_label: str = "base"
    base_group: str = ""
    base_published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    search: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    search_seeds: tuple[int, ...] = (1000,)
    expected_order: tuple[str, ...] = ()
    compute: str = ""
    test: Literal["paired_t", "dunnett"] = "paired_t"
    interval: Literal["t", "bootstrap"] = "t"
    confidence: float = 0.95
    fit: Literal["none", "chinchilla"] = "none"
