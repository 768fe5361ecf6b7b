"""README.md of exported weights: what the model is, what it was trained on, and what it scored."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from purelm.config import Config
from purelm.errors import UserError
from purelm.training.run_folder import RunFolder, read_record

_PIPELINES = {"language_modeling": "text-generation", "dialogue": "text-generation",
              "code_generation": "text-generation", "masked_language_modeling": "fill-mask",
              "classification": "text-classification", "tagging": "token-classification",
              "extractive_qa": "question-answering", "sequence_to_sequence": "text2text-generation"}
_AUTO = {"text-generation": "AutoModelForCausalLM", "fill-mask": "AutoModelForMaskedLM",
         "text-classification": "AutoModelForSequenceClassification",
         "token-classification": "AutoModelForTokenClassification",
         "question-answering": "AutoModelForQuestionAnswering", "text2text-generation": "AutoModelForSeq2SeqLM"}


def model_card(run: RunFolder, config: Config, architecture: str, step: int) -> str:
    """The card as Markdown, with the head of metadata that the Hub reads; every number is the run's own."""
    pipeline = _PIPELINES.get(config.task.name)
    head = ["---", "library_name: transformers", *([f"pipeline_tag: {pipeline}"] if pipeline else []),
            "tags:", "- purelm", "---", ""]
    return "\n".join([*head, f"# {architecture}, written by purelm", "", *_what(config, step), "",
                      *_origin(run), *_scores(run), *_use(pipeline)])


def _what(config: Config, step: int) -> list[str]:
    model = config.model
    return [f"Task {config.task.name}, {step:,} updates. {model.num_layers} layers of width {model.width}, "
            f"{model.num_heads} heads, vocabulary {model.vocabulary_size:,}, context {model.context_length:,}, "
            f"{model.param_dtype}."]


def _origin(run: RunFolder) -> list[str]:
    """How the run came about."""
    try:
        record = read_record(run)
    except UserError:
        return []
    lines, data = ["## How it came about", ""], record["data"]
    if "imported" in data:
        origin = data["imported"]
        at = "" if origin["revision"] is None else f" at {origin['revision']}"
        lines.append(f"Taken over from {pathlib.Path(origin['from']).name if at == '' else origin['from']}{at} and not "
                     "trained further.")
    else:
        last = record["starts"][-1]
        git = last["git"]
        command = " ".join(["python", *(pathlib.Path(part).name if number == 0 else part
                                        for number, part in enumerate(last["command"][1:]))])
        lines += ["```", command, "```", "",
                  f"{last['time']}, {last['machine']}, devices {', '.join(last['devices'])}, "
                  + ", ".join(f"{name} {version}" for name, version in last["packages"].items() if version)
                  + (f", commit {git['commit'][:12]}" if git else "") + "."]
    return [*lines, ""]


def _scores(run: RunFolder) -> list[str]:
    """The last row of validation, and what evaluate.py wrote."""
    rows: dict[str, Any] = {}
    for row in _rows(run.metrics):
        if row.get("split") == "validation":
            rows = {f"validation {name}": value for name, value in row.items() if name != "split"}
    evaluation = run.path / "evaluation.json"
    if evaluation.is_file():
        found = json.loads(evaluation.read_text(encoding="utf-8"))
        split = found.get("split", "")
        rows |= {f"{split} {name}".strip(): value for name, value in found.items() if name not in ("split", "task")}
    numbers = {name: value for name, value in rows.items() if isinstance(value, (int, float))}
    if not numbers:
        return []
    return ["## What it scored", "", "| what | value |", "|---|---|",
            *(f"| {name} | {value:.6g} |" for name, value in numbers.items()), ""]


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # The last line of a run that was killed.
            continue
    return rows


def _use(pipeline: str | None) -> list[str]:
    if pipeline is None:
        return []
    name = _AUTO[pipeline]
    return ["## How to use it", "", "```python", f"from transformers import {name}, AutoTokenizer", "",
            f'model = {name}.from_pretrained("THIS_FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")', "```", ""]
