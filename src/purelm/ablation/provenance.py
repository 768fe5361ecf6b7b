"""How a table came about: when, by which command and commits, on what, and how long it took."""

from __future__ import annotations

import datetime
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from purelm.ablation.store import CellRecord


def made_of(workdir: str, records: Mapping[str, CellRecord | None],
            command: str | None) -> tuple[dict[str, Any], list[str]]:
    """Table.made, and what a reader must know of it.

    "date" is the day of the last cell that ended (today, without any); "seconds" are of all cells, searches included.

    Args:
      workdir: of the table.
      records: ROW/SEED -> record.
      command: the report's own.
    """
    done = {key: record for key, record in records.items() if record is not None and record.state == "done"}
    starts = {key: start for key in done if (start := last_start(pathlib.Path(workdir) / "runs" / key)) is not None}
    made, notes = _of_starts(starts.values())
    made["commits"] = tuple(sorted({record.commit for record in done.values() if record.commit}))
    made["devices"] = tuple(sorted({device for record in done.values() for device in record.devices}))
    ended = [record.finished for record in done.values() if record.finished]
    made["date"] = max(ended, default=_today())[:10]
    known = [record for record in records.values() if record is not None]
    made["seconds"] = sum(record.costs.get(name) or 0.0 for record in known
                          for name in ("train_seconds", "evaluate_seconds"))
    made["command"] = command
    if len(made["commits"]) > 1:
        notes.insert(0, f"cells of {len(made['commits'])} commits: " + ", ".join(c[:10] for c in made["commits"]))
    return made, notes


def made_of_runs(folders: Iterable[pathlib.Path]) -> tuple[dict[str, Any], list[str]]:
    """The same of any run folders, by their run.json; how long they took is not known."""
    starts = [start for folder in folders if (start := last_start(folder)) is not None]
    made, notes = _of_starts(starts)
    made["commits"] = tuple(sorted({start["git"]["commit"] for start in starts if start.get("git")}))
    made["devices"] = tuple(sorted({device for start in starts for device in start.get("devices", ())}))
    made["date"] = max((start["time"] for start in starts), default=_today())[:10]
    made["seconds"] = made["command"] = None
    if len(made["commits"]) > 1:
        notes.insert(0, f"runs of {len(made['commits'])} commits: " + ", ".join(c[:10] for c in made["commits"]))
    return made, notes


def last_start(folder: pathlib.Path) -> dict[str, Any] | None:
    """How a run was last started, by its run.json; None where that is missing or damaged."""
    try:
        start = json.loads((folder / "run.json").read_text(encoding="utf-8"))["starts"][-1]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return start if isinstance(start, dict) else None


def _of_starts(starts: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    versions: dict[str, set[str]] = {}
    changed = False
    for start in starts:
        packages = {"python": start.get("python"), **(start.get("packages") or {})}
        for name, version in packages.items():
            if version:
                versions.setdefault(name, set()).add(version)
        git = start.get("git")
        changed |= bool(git) and git.get("difference") != "none"
    notes = [f"runs of several versions of {name}: {', '.join(sorted(found))}"
             for name, found in versions.items() if len(found) > 1]
    if changed:
        notes.append("some runs were made from a checkout with changes that no commit has")
    return {"versions": {name: ", ".join(sorted(found)) for name, found in versions.items()}}, notes


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
