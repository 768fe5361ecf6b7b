"""A measured table as data: what the statistics make and every form of the report reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from purelm.ablation.spec import Metric

Verdict = Literal["base", "better", "worse", "within noise", "too few seeds", "missing"]


@dataclasses.dataclass(frozen=True)
class Result:
    """One row under one metric.

    Attributes:
      values: seed (as text) -> value of each finished cell that has the metric.
      mean, spread: of the values; spread is their standard deviation (n - 1), None under two seeds.
      difference: mean over shared seeds of this row minus the row it is compared with; None for the base.
      interval: of the difference.
      p_value, p_adjusted: of no difference, alone and corrected for the table.
      verdict: "better" and "worse" where p_adjusted is below 1 - confidence, "within noise" where it is not.
      published: the paper's number; published_difference to the paper's number of the compared row.
      reproduced: whether the mean is within the metric's tolerance of the published; None without either.
    """

    values: Mapping[str, float]
    mean: float | None
    spread: float | None
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    p_adjusted: float | None
    verdict: Verdict
    published: float | None
    published_difference: float | None
    reproduced: bool | None


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a row costs, medians over its cells; None where it was not measured.

    parameters: all. flops_per_token: forward and backward (models/counting.py). seconds_per_step: of training, without
    compilation and evaluation; memory_bytes: of one training step on a device; cache_bytes_per_token: keys and values
    kept for each token when generating; train_seconds: of a cell, everything included.
    """

    parameters: int | None
    flops_per_token: int | None
    seconds_per_step: float | None
    memory_bytes: int | None
    cache_bytes_per_token: int | None
    train_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Search:
    """A row's learning-rate search.

    points: (changes, mean of the first metric over the search's seeds, None where it failed), in the order searched.
    chosen: the changes of the best. at_edge: whether it is the smallest or largest value of a field.
    sensitivity: mean over the points of how much worse than the best they are, each at most as bad as the worst finite
      point (after Wortsman et al. 2023, arXiv 2309.14322, section 2.2); None with fewer than two points.
    """

    points: tuple[tuple[Mapping[str, Any], float | None], ...]
    chosen: Mapping[str, Any] | None
    at_edge: bool
    sensitivity: float | None


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row. changes: path -> value where it differs from the base; cells: seed -> "done", "failed", "running" or
    "missing"; runs: seed -> run folder, relative to the work folder; notes: what a reader must know, a line each."""

    name: str
    label: str
    group: str
    changes: Mapping[str, Any]
    results: Mapping[str, Result]
    costs: Costs
    cells: Mapping[str, str]
    runs: Mapping[str, str]
    search: Search | None
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Noise:
    """What the base's own seeds say of a metric: their spread, and the smallest difference between two rows of so many
    seeds that a two-sided test at this level finds with this power (None under two seeds)."""

    spread: float | None
    seeds: int
    detectable: float | None
    power: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether our order is the paper's: Kendall's tau-b over `rows` rows, with an interval by bootstrap over seeds.

    against: "published" or "expected order"; same_sign: (rows whose difference to the base has the published sign,
    rows with a published difference that is not 0), None against an order.
    """

    metric: str
    against: Literal["published", "expected order"]
    rows: int
    tau: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    same_sign: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A whole table. made: {"date", "command", "commits", "versions", "devices", "seconds"}; notes: of the whole."""

    title: str
    source: str
    compute: str
    metrics: tuple[Metric, ...]
    rows: tuple[TableRow, ...]
    noise: Mapping[str, Noise]
    agreement: tuple[Agreement, ...]
    fit: Mapping[str, Any] | None
    test: str
    interval: str
    confidence: float
    made: Mapping[str, Any]
    notes: tuple[str, ...]
