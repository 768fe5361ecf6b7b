"""The harness's tasks by name: its own, and those of a folder of YAML files with data on this machine."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from purelm.data.cache import cache_root
from purelm.errors import UserError, did_you_mean

_PACKAGED = ("json", "csv", "parquet", "text", "arrow")


def open_tasks(names: Sequence[str], task_path: str | None, data_path: str | None) -> dict[str, Any]:
    """What the harness's `evaluate` takes: its tasks and groups.

    Args:
      names: of tasks, groups or tags.
      task_path: a folder of YAML files; a task of it goes before the harness's own of the same name.
      data_path: the folder that data_files of task_path's tasks are in; None is the current one.

    Raises:
      UserError: no such task or folder, a file that is no task, data that is not there, or that is on the Hub where
        that cannot be reached.
    """
    if data_path is not None and task_path is None:
        raise UserError(f"--data_path={data_path}: is where tasks of --task_path find their data; give that too, such "
                        "as --task_path=configs/lm_eval")
    manager = _manager(names, task_path)
    index = manager.task_index
    for name in names:
        if name not in index:
            where = "the harness has no such task" + ("" if task_path is None else f", nor has {task_path}")
            near = did_you_mean(name, index)
            raise UserError(f"--tasks={name}: {where}{near if 'did you mean' in near else ''} (lm-eval ls tasks lists "
                            "all)")
    specs = [_local(index[name], task_path, data_path) or name for name in names]
    return _load(manager, specs)


def _manager(names: Sequence[str], task_path: str | None) -> TaskManager:
    """Of the folder alone where that is enough: reading all of the harness's own files takes ten seconds."""
    if task_path is None:
        return TaskManager()
    folder = pathlib.Path(task_path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--task_path={task_path}: no such folder; give one with a YAML file for each task")
    try:
        own = TaskManager(include_path=str(folder.resolve()), include_defaults=False)
    except ValueError as error:
        raise UserError(f"--task_path={task_path}: a file there is no task ({error})") from error
    if all(name in own.task_index and own.task_index[name].kind.name == "TASK" for name in names):
        return own
    return TaskManager(include_path=str(folder.resolve()))


def _local(entry: Any, task_path: str | None, data_path: str | None) -> dict[str, Any] | None:
    """The whole config of a task of task_path that reads files, which are found; else None."""
    if task_path is None or entry.kind.name != "TASK" or entry.yaml_path is None:
        return None
    if pathlib.Path(task_path).expanduser().resolve() not in pathlib.Path(entry.yaml_path).resolve().parents:
        return None
    config = load_yaml(entry.yaml_path)
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("dataset_path") not in _PACKAGED or files is None:
        return None
    found = _found(files, entry.name, data_path)
    cache = os.path.join(cache_root(None), "lm_eval")
    return {**config, "dataset_kwargs": {**config["dataset_kwargs"], "data_files": found, "cache_dir": cache}}


def _found(files: Any, task: str, data_path: str | None) -> Any:
    """The same with absolute paths."""
    if isinstance(files, Mapping):
        return {split: _found(names, task, data_path) for split, names in files.items()}
    if isinstance(files, (list, tuple)):
        return [_found(name, task, data_path) for name in files]
    path = pathlib.Path(data_path or ".").expanduser() / files
    if not path.is_file():
        raise UserError(f"task {task} reads {files}, which is not in {data_path or 'the current folder'}; give the "
                        "folder that has it by --data_path")
    return str(path.resolve())


def _load(manager: TaskManager, specs: Sequence[Any]) -> dict[str, Any]:
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError

    shown = ", ".join(spec if isinstance(spec, str) else spec["task"] for spec in specs)
    try:
        return manager.load(list(specs))
    except (ConnectionError, DatasetNotFoundError, HfHubHTTPError, FileNotFoundError) as error:
        raise UserError(f"--tasks={shown}: their data is not on this machine and cannot be fetched from the Hub "
                        f"({_line(error)}); connect to a network, or give local tasks by --task_path") from error
    except (DatasetGenerationError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise UserError(f"--tasks={shown}: the harness cannot open them ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
