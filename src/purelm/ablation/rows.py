"""A table's rows as configs: grids expanded, stages and changes applied."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from purelm.ablation.spec import BASE, Ablation, Row, Stage
from purelm.config import Config
from purelm.config.changes import apply_changes


@dataclasses.dataclass(frozen=True)
class ResolvedRow:
    """A row as it is run.

    Attributes:
      name, label, group, published: as of spec.Row; the base's name is "base".
      changes: path -> value, the row's and its grid point's.
      compare_to: the row whose difference is taken; of the base itself.
      search: path -> values; {} is none.
      stage_configs: (stage's name, config) in the order they are trained, with the base's seed; one stage has name "".
    """

    name: str
    label: str
    group: str
    changes: Mapping[str, Any]
    published: Mapping[str, float]
    compare_to: str
    search: Mapping[str, tuple[Any, ...]]
    stage_configs: tuple[tuple[str, Config], ...]


def expanded_rows(ablation: Ablation) -> tuple[Row, ...]:
    """The base as a row, then the others, with one row for each point of a grid."""
    base = Row(BASE, label=ablation.base_label, group=ablation.base_group, published=ablation.base_published)
    return (base, *(point for row in ablation.rows for point in _grid_points(row)))


def resolved_rows(ablation: Ablation, where: str = "") -> tuple[ResolvedRow, ...]:
    """All rows, the base first.

    Raises:
      UserError: a path or value that the config does not take; `where` and the row's name come first.
    """
    return tuple(_resolved(ablation, row, where) for row in expanded_rows(ablation))


def stage_configs(ablation: Ablation, row: Row, more: Mapping[str, Any], where: str) -> tuple[tuple[str, Config], ...]:
    """(stage's name, config) of a row with `more` changes, such as a point of a search, on top."""
    configs = []
    for stage in ablation.stages or (Stage(""),):
        own = row.stage_changes[stage.name] if stage.name in row.stage_changes else {}
        config = apply_changes(ablation.base, stage.changes, f"{where}stage '{stage.name}': ")
        configs.append((stage.name, apply_changes(config, {**row.changes, **own, **more}, where)))
    return tuple(configs)


def points(values: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every combination, the last path running quickest; one empty one where there are no paths."""
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def point_name(point: Mapping[str, Any]) -> str:
    """As in "learning_rate=0.001,warmup=100": the last part of each path and its value."""
    return ",".join(f"{path.rpartition('.')[2]}={_short(value)}" for path, value in point.items())


def row_where(where: str, name: str) -> str:
    """What comes before an error's message about a row."""
    return f"{where}: row '{name}': " if where else f"row '{name}': "


def _resolved(ablation: Ablation, row: Row, where: str) -> ResolvedRow:
    return ResolvedRow(
        row.name, row.label or row.name, row.group, dict(row.changes), dict(row.published), row.compare_to or BASE,
        dict(ablation.search if row.search is None else row.search),
        stage_configs(ablation, row, {}, row_where(where, row.name)))


def _grid_points(row: Row) -> list[Row]:
    if not row.grid:
        return [row]
    return [dataclasses.replace(
        row, name=f"{row.name},{point_name(point)}", label=f"{row.label or row.name}, {point_name(point)}",
        changes={**row.changes, **point}, grid={}) for point in points(row.grid)]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
