"""A run evaluated on tasks of the harness: from flags to files."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purelm.errors import UserError
from purelm.training.load import LoadedRun, load_run
from purelm.training.run_folder import write_atomically

_TASKS = ("language_modeling", "dialogue", "code_generation")
_ARCHITECTURES = ("decoder", "recurrent")
_HUB_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is evaluated on, by the names of evaluate.py's flags.

    limit: documents of each task, or below 1 the part of them; None is all. gen_kwargs: change a task's
    generation_kwargs (see writing.wanted). seed: of few-shot examples and of texts that are drawn.
    """

    tasks: tuple[str, ...]
    task_path: str | None = None
    data_path: str | None = None
    num_fewshot: int | None = None
    limit: float | None = None
    apply_chat_template: bool = False
    gen_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    log_samples: bool = False
    seed: int = 1234


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """summary: "task/metric" -> value, and standard errors as "task/metric_stderr". table: the harness's. computed:
    requests that were not answered before. answers: the file that keeps them. files: what was written."""

    summary: dict[str, float]
    table: str
    computed: int
    answers: pathlib.Path
    files: tuple[pathlib.Path, ...]


def evaluate_tasks(workdir: str | None, asked: Asked, *, checkpoint: str = "latest", batch_size: int | None = None,
                   quantize: str | None = None) -> Evaluated:
    """Evaluates a run's model and writes lm_eval.json (and lm_eval_samples.jsonl) into the run folder.

    Args:
      workdir: the run folder.
      asked: the tasks.
      checkpoint: "latest", "best" or a step.
      batch_size: rows at once; None is as many as fit in memory.
      quantize: weights in bfloat16, int8 or int4.

    Raises:
      UserError: no run, no checkpoint or no such task, a model that continues no text, or a missing lm_eval.
    """
    from purelm.interop.checkpoint_files import need
    from purelm.runtime import start_jax

    start_jax()
    _before_imports(asked)
    need("lm_eval")
    run = load_run(workdir, checkpoint, quantize=quantize)
    _check_run(run, asked)
    from purelm.interop.harness.answers import Answers, answers_path
    from purelm.interop.harness.model import RunModel
    from purelm.interop.harness.tasks import open_tasks

    tasks = open_tasks(asked.tasks, asked.task_path, asked.data_path)
    _change_tasks(tasks["tasks"].values(), asked)
    model = RunModel(run, batch_size=batch_size, seed=asked.seed)
    answers = Answers(model, answers_path(run, quantize))
    try:
        results = _evaluate(answers, tasks, asked)
    finally:
        answers.close()
    samples = results.pop("samples", None)
    results["config"] = _described(run, asked, batch_size, quantize)
    files = _write(run.folder.path, results, samples if asked.log_samples else None)
    return Evaluated(_summary(results), _table(results), model.computed, pathlib.Path(answers.cache_db), files)


def _before_imports(asked: Asked) -> None:
    """What the harness's libraries read when they are imported: progress bars on a terminal alone, and no attempts to
    reach a Hub that is out of reach, of which there would be many; nor any at all with data_path."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "HF_HUB_OFFLINE" not in os.environ and (asked.data_path is not None or not _hub_answers()):
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def _hub_answers() -> bool:
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_HUB_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _check_run(run: LoadedRun, asked: Asked) -> None:
    config = run.config
    if config.task.name not in _TASKS or config.model.architecture not in _ARCHITECTURES:
        raise UserError(f"--suite=lm_eval asks how texts go on, which a {config.model.architecture} of task "
                        f"{config.task.name} does not say; give a run of language_modeling")
    if asked.apply_chat_template and run.tokenizer.chat_template is None:
        raise UserError("--apply_chat_template: the run's tokenizer has no chat template; leave it out")


def _change_tasks(tasks: Any, asked: Asked) -> None:
    """As the harness's own command line changes them."""
    for task in tasks:
        if asked.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(asked.gen_kwargs), update=True)
        fixed = task.get_config("num_fewshot")
        if fixed is None or asked.num_fewshot is not None and fixed != 0:  # 0 in a task's file is meant so.
            task.set_config(key="num_fewshot", value=asked.num_fewshot or 0)
        task.set_fewshot_seed(seed=asked.seed)


def _evaluate(model: Any, tasks: dict[str, Any], asked: Asked) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate

    random.seed(0)  # Both as on the harness's own command line: some tasks draw or shuffle with them.
    np.random.seed(asked.seed)
    return evaluate(lm=model, task_dict=tasks, limit=asked.limit, apply_chat_template=asked.apply_chat_template,
                    log_samples=asked.log_samples)


def _described(run: LoadedRun, asked: Asked, batch_size: int | None, quantize: str | None) -> dict[str, Any]:
    from importlib.metadata import version

    return {"model": "purelm", "model_args": {"workdir": str(run.folder.path), "step": run.step, "quantize": quantize},
            "model_dtype": run.config.model.compute_dtype, "batch_size": batch_size, "limit": asked.limit,
            "gen_kwargs": dict(asked.gen_kwargs), "seed": asked.seed, "date": time.time(),
            "lm_eval_version": version("lm_eval")}


def _write(folder: pathlib.Path, results: dict[str, Any], samples: dict[str, Sequence[Any]] | None
           ) -> tuple[pathlib.Path, ...]:
    from lm_eval.utils import handle_non_serializable

    def lines(content: Any, **options: Any) -> str:
        return json.dumps(content, default=handle_non_serializable, ensure_ascii=False, **options) + "\n"

    files = [folder / "lm_eval.json"]
    write_atomically(files[0], lines(results, indent=2))
    if samples is not None:
        files.append(folder / "lm_eval_samples.jsonl")
        write_atomically(files[1], "".join(lines({"task": task, **row}) for task, rows in samples.items()
                                           for row in rows))
    return tuple(files)


def _summary(results: dict[str, Any]) -> dict[str, float]:
    found = {}
    for task, metrics in {**results["results"], **results.get("groups", {})}.items():
        for name, value in metrics.items():
            metric, _, kept = name.partition(",")
            if kept and isinstance(value, (int, float)):
                found[f"{task}/{metric}" + ("" if kept == "none" else f",{kept}")] = float(value)
    return found


def _table(results: dict[str, Any]) -> str:
    from lm_eval.utils import make_table

    tables = [make_table(results)]
    if results.get("groups"):
        tables.append(make_table(results, "groups"))
    return "\n".join(table.strip() for table in tables)
