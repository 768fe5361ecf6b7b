"""A table's rows as configs: grids expanded, stages and changes applied, searches laid out."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.ablation.spec import BASE, Ablation, Row, Stage
from purelm.config import Config
from purelm.config.changes import apply_changes
from purelm.errors import UserError, did_you_mean

StageConfigs = tuple[tuple[str, Config], ...]
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")  # In a folder's name.


@dataclasses.dataclass(frozen=True)
class ResolvedRow:
    """A row as it is run.

    Attributes:
      name, label, group, published: as of spec.Row; the base's name is "base".
      changes: path -> value, the row's and its grid point's.
      compare_to: the row whose difference is taken; of the base itself.
      search: path -> values; {} is none.
      stage_configs: (stage's name, config) in the order they are trained, with the base's seed; one stage has name "".
        Of a searched row, without any point of its search.
    """

    name: str
    label: str
    group: str
    changes: Mapping[str, Any]
    published: Mapping[str, float]
    compare_to: str
    search: Mapping[str, tuple[Any, ...]]
    stage_configs: StageConfigs


def resolved_rows(ablation: Ablation, where: str = "") -> tuple[ResolvedRow, ...]:
    """All rows, the base first.

    Args:
      where: what errors begin with, such as the table's file.

    Raises:
      UserError: a path or value that the config does not take; `where` and the row's name come first.
    """
    return tuple(ResolvedRow(
        row.name, row.label or row.name, row.group, dict(row.changes), dict(row.published), row.compare_to or BASE,
        search_of(ablation, row), stage_configs(ablation, row, {}, where)) for row in expanded_rows(ablation))


def expanded_rows(ablation: Ablation) -> tuple[Row, ...]:
    """The base as a row, then the others, with one row for each point of a grid."""
    base = Row(BASE, label=ablation.base_label, group=ablation.base_group, published=ablation.base_published)
    return (base, *(point for row in ablation.rows for point in _grid_points(row)))


def expanded_row(ablation: Ablation, name: str) -> Row:
    """The row of that name; UserError ("did you mean") where there is none."""
    rows = {row.name: row for row in expanded_rows(ablation)}
    if name not in rows:
        raise UserError(f"row '{name}': the table has no such row{did_you_mean(name, rows)}")
    return rows[name]


def row_names(ablation: Ablation, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of the rows asked for, in the table's order; None is all, and a grid's name all of its rows.

    Raises:
      UserError: a row that does not exist ("did you mean").
    """
    names = tuple(row.name for row in expanded_rows(ablation))
    if asked is None:
        return names
    known = (*names, *(row.name for row in ablation.rows if row.grid))
    for name in asked:
        if name not in known:
            raise UserError(f"--rows={name}: the table has no such row{did_you_mean(name, known)}")
    return tuple(name for name in names if name in asked or name.partition(",")[0] in asked)


def stage_configs(ablation: Ablation, row: Row, point: Mapping[str, Any], where: str = "") -> StageConfigs:
    """(stage's name, config) of a row, with a point of its search on top.

    Every stage after the first starts from the one before, whose folder is known when it runs: its init_from is none.

    Raises:
      UserError: as of `resolved_rows`.
    """
    found, name = [], f"{row.name}@{point_name(point)}" if point else row.name
    for number, stage in enumerate(ablation.stages or (Stage(""),)):
        own = row.stage_changes.get(stage.name, {})
        changes = {**stage.changes, **row.changes, **own, **point, **({"init_from": None} if number else {})}
        found.append((stage.name, apply_changes(ablation.base, changes, row_where(where, name, stage.name))))
    return tuple(found)


def search_of(ablation: Ablation, row: Row) -> dict[str, tuple[Any, ...]]:
    """path -> values of the row's search, its own or the table's; {} is none."""
    return dict(ablation.search if row.search is None else row.search)


def search_points(ablation: Ablation, row: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, changes) of each point of a row's search, in order; [] where it has none.

    Raises:
      UserError: no such row.
    """
    search = search_of(ablation, expanded_row(ablation, row))
    return [(f"{row}@{point_name(point)}", point) for point in points(search)] if search else []


def points(values: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every combination, the last path running quickest; one empty one where there are no paths."""
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def point_name(point: Mapping[str, Any]) -> str:
    """As in "learning_rate=0.001,warmup=100": the last part of each path and its value, fit for a folder's name."""
    return ",".join(f"{path.rpartition('.')[2]}={_short(value)}" for path, value in point.items())


def row_where(where: str, name: str, stage: str = "") -> str:
    """What comes before an error's message about a row, or a point of its search."""
    parts = [where] if where else []
    parts.append((BASE if name == BASE else f"row '{name}'") + (f", stage '{stage}'" if stage else ""))
    return ": ".join(parts) + ": "


def _grid_points(row: Row) -> list[Row]:
    if not row.grid:
        return [row]
    return [dataclasses.replace(
        row, name=f"{row.name},{point_name(point)}", label=f"{row.label or row.name}, {point_name(point)}",
        changes={**row.changes, **point}, grid={}) for point in points(row.grid)]


def _short(value: Any) -> str:
    return _UNSAFE.sub("-", f"{value:g}" if isinstance(value, float) else str(value)).rstrip("-") or "-"
