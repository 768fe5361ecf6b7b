"""What a row of data means: one function a format, from the row's fields to an example.

An example is plain JSON and always has "where" ("train.jsonl, line 7"). To add a format, write a function like these,
with its `example_format` line, and add its name to DataConfig.format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purelm.config import DataConfig
from purelm.data.example_recipe import Example
from purelm.data.files import check_unicode
from purelm.errors import UserError, did_you_mean

Row = dict[str, Any]
Format = Callable[..., Example]  # (row, data, where, *, answered) -> example

FORMATS: dict[str, Format] = {}
# Fields of the data config that decide what a format makes of a row: those that end in _field name fields of the row.
FIELDS: dict[str, tuple[str, ...]] = {}
# The texts of an example that cleaning changes: strings, lists of strings, or lists of objects with a text.
TEXTS: dict[str, tuple[str, ...]] = {}
# What tells examples apart when they are divided by hash: the questions of a paragraph stay together.
SPLIT_BY: dict[str, tuple[str, ...]] = {}


def example_format(*, fields: tuple[str, ...], texts: tuple[str, ...],
                   split_by: tuple[str, ...]) -> Callable[[Format], Format]:
    """Registers a function as the format of its name; see FIELDS, TEXTS and SPLIT_BY."""
    def register(function: Format) -> Format:
        name = function.__name__
        FORMATS[name], FIELDS[name], TEXTS[name], SPLIT_BY[name] = function, fields, texts, split_by
        return function
    return register


@example_format(fields=("text_field", "text_pair_field", "label_field"),
                texts=("text", "pair"), split_by=("text", "pair"))
def labels(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """{"text", "pair" (None without data.text_pair_field), "label"}; numbers and booleans become strings."""
    pair = None if data.text_pair_field is None else _text(row, data.text_pair_field, "text_pair_field", where)
    label = None
    if answered or row.get(data.label_field) is not None:
        label = _label(_field(row, data.label_field, "label_field", where), data.label_field, where)
    return {"where": where, "text": _text(row, data.text_field, "text_field", where), "pair": pair, "label": label}


@example_format(fields=("source_field", "target_field", "prompt"), texts=("source", "targets"), split_by=("source",))
def pairs(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """{"source" (after data.prompt), "targets": [str, ...]}."""
    source, targets = data.prompt + _text(row, data.source_field, "source_field", where), None
    if answered or row.get(data.target_field) is not None:
        value = _field(row, data.target_field, "target_field", where)
        targets = [value] if isinstance(value, str) else _strings(value, data.target_field, "target_field", where)
        if not targets:
            raise UserError(f"{where}: field '{data.target_field}' (config.data.target_field) is an empty list; give "
                            "at least one text")
        for text in targets:
            check_unicode(text, f"{where}, field '{data.target_field}'")
    return {"where": where, "source": source, "targets": targets}


@example_format(fields=("tokens_field", "tags_field"), texts=(), split_by=("tokens",))
def tags(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """{"tokens": [str], "tags": [str]}, as many of one as of the other."""
    tokens = _strings(_field(row, data.tokens_field, "tokens_field", where), data.tokens_field, "tokens_field", where)
    for token in tokens:
        check_unicode(token, f"{where}, field '{data.tokens_field}'")
    names = None
    if answered or row.get(data.tags_field) is not None:
        names = _strings(_field(row, data.tags_field, "tags_field", where), data.tags_field, "tags_field", where)
        if len(names) != len(tokens):
            raise UserError(f"{where}: {len(tokens)} tokens in '{data.tokens_field}' but {len(names)} tags in "
                            f"'{data.tags_field}'; give one tag a token")
    return {"where": where, "tokens": tokens, "tags": names}


@example_format(fields=("id_field", "context_field", "question_field", "answers_field"),
                texts=("context", "question"), split_by=("context",))
def squad(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """{"id", "context", "question", "answers": [{"text", "start"}]}; a row that is not answered may lack its id."""
    given, answers = row.get(data.id_field), None
    if given is None and answered:
        given = _field(row, data.id_field, "id_field", where)
    if answered or row.get(data.answers_field) is not None:
        answers = _answers(_field(row, data.answers_field, "answers_field", where), data.answers_field, where)
    return {"where": where, "id": where if given is None else str(given),
            "context": _text(row, data.context_field, "context_field", where),
            "question": _text(row, data.question_field, "question_field", where), "answers": answers}


@example_format(fields=("turns_field", "speaker_field", "text_field", "assistant"),
                texts=("turns",), split_by=("turns",))
def turns(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """{"turns": [{"speaker": "user" or "assistant", "text"}]}; of bare strings every second one is the assistant's."""
    del answered  # What is to be answered is the end of the dialogue, which needs no field.
    value = _field(row, data.turns_field, "turns_field", where)
    if not isinstance(value, list):
        raise _wrong_type(value, data.turns_field, "turns_field", where, "a list of turns")
    found = []
    for number, turn in enumerate(value):
        place = f"{where}: turn {number + 1} of '{data.turns_field}'"
        if isinstance(turn, str):
            speaker, text = "assistant" if number % 2 else "user", turn
            check_unicode(text, place)
        elif isinstance(turn, dict):
            speaker = _field(turn, data.speaker_field, "speaker_field", place)
            speaker, text = ("assistant" if speaker == data.assistant else "user",
                             _text(turn, data.text_field, "text_field", place))
        else:
            raise UserError(f"{place} is {_kind(turn)}; it must be a string, or an object with "
                            f"'{data.speaker_field}' and '{data.text_field}'")
        found.append({"speaker": speaker, "text": text})
    return {"where": where, "turns": found}


@example_format(fields=(), texts=("prompt", "canonical_solution"), split_by=("prompt",))
def code(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """HumanEval's fields (Chen et al. 2021): task_id, prompt, canonical_solution, test, entry_point."""
    del data
    example = {"where": where, "prompt": _text(row, "prompt", None, where)}
    for name in ("task_id", "canonical_solution", "test", "entry_point"):
        needed = answered or row.get(name) is not None
        example[name] = _text(row, name, None, where) if needed else None
    return example


@example_format(fields=("text_field",), texts=("text",), split_by=("text",))
def text(row: Row, data: DataConfig, where: str, *, answered: bool) -> Example:
    """{"text"}."""
    del answered
    return {"where": where, "text": _text(row, data.text_field, "text_field", where)}


AS_PAIR = ("pairs", "labels", "squad", "code")


def as_pair(format_name: str, example: Example) -> Example:
    """An example of another format as text to text: {"source", "targets", "where"} (T5: Raffel et al. 2020, app. D).

    Targets are None where the example is not answered. Raises UserError for a format that cannot be read so.
    """
    if format_name == "pairs":
        return example
    where = {"where": example["where"]}
    if format_name == "labels":
        source = example["text"] if example["pair"] is None else f"{example['text']}\n{example['pair']}"
        return {**where, "source": source, "targets": None if example["label"] is None else [example["label"]]}
    if format_name == "squad":
        answers = example["answers"]
        return {**where, "source": f"question: {example['question']} context: {example['context']}",
                "targets": None if answers is None else list(dict.fromkeys(answer["text"] for answer in answers))}
    if format_name == "code":
        solution = example["canonical_solution"]
        return {**where, "source": example["prompt"], "targets": None if solution is None else [solution]}
    raise UserError(f"the format {format_name} cannot be read as text to text; one of {', '.join(AS_PAIR)} can")


def repair_answer(context: str, answer: dict[str, Any]) -> tuple[str, int]:
    """Whether an answer stands where it is said to, and where it does stand: (verdict, start).

    The verdict is "right"; "repaired" where it stands elsewhere, and only once; or "dropped" (start -1).
    """
    words, start = answer["text"], answer["start"]
    if start >= 0 and context[start:start + len(words)] == words:
        return "right", start
    found = context.find(words)
    if found < 0 or context.find(words, found + 1) >= 0:
        return "dropped", -1
    return "repaired", found


def _field(row: Row, name: str, knob: str | None, where: str) -> Any:
    called = f" (config.data.{knob})" if knob else ""
    if name not in row:
        raise UserError(f"{where}: no field '{name}'{called}{did_you_mean(name, row)}")
    if row[name] is None:
        raise UserError(f"{where}: field '{name}'{called} is null; give a value or leave the line out")
    return row[name]


def _text(row: Row, name: str, knob: str | None, where: str) -> str:
    value = _field(row, name, knob, where)
    if not isinstance(value, str):
        raise _wrong_type(value, name, knob, where, "a string")
    check_unicode(value, f"{where}, field '{name}'")
    return value


def _label(value: Any, name: str, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise _wrong_type(value, name, "label_field", where, "a string, a number or a boolean")
    if value == "" or value != value:  # JSON has no NaN, but pandas writes it for what is missing.
        what = "NaN" if value else "an empty string"
        raise UserError(f"{where}: field '{name}' (config.data.label_field) is {what}; give a label")
    check_unicode(str(value), f"{where}, field '{name}'")
    return str(value)


def _strings(value: Any, name: str, knob: str, where: str) -> list[str]:
    if not isinstance(value, list):
        raise _wrong_type(value, name, knob, where, "a list of strings")
    for item in value:
        if not isinstance(item, str):
            raise UserError(f"{where}: field '{name}' (config.data.{knob}) holds {_kind(item)}; it must be a list of "
                            "strings")
    return list(value)


def _answers(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    """A list of {"text", "start" or "answer_start"}, or, as TFDS gives them, one object of two lists."""
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start", value.get("start"))
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise UserError(f"{where}: field '{name}' (config.data.answers_field) must be a list of objects with text "
                            "and start, or an object of two lists, text and answer_start, of one length")
        value = [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        raise _wrong_type(value, name, "answers_field", where, "a list of objects with text and start")
    if not value:
        raise UserError(f"{where}: field '{name}' (config.data.answers_field) holds no answer; give at least one")
    found = []
    for answer in value:
        if not isinstance(answer, dict):
            raise UserError(f"{where}: field '{name}' holds {_kind(answer)}; it must hold objects with text and start")
        words = _text(answer, "text", None, f"{where}: field '{name}'")
        start = _field(answer, "answer_start" if "answer_start" in answer else "start", None,
                       f"{where}: field '{name}'")
        if not isinstance(start, int) or isinstance(start, bool):
            raise UserError(f"{where}: field '{name}': start is {_kind(start)}; it must be a whole number, the "
                            "character of the context where the answer begins")
        found.append({"text": words, "start": start})
    return found


def _wrong_type(value: Any, name: str, knob: str | None, where: str, wanted: str) -> UserError:
    called = f" (config.data.{knob})" if knob else ""
    return UserError(f"{where}: field '{name}'{called} is {_kind(value)}; it must be {wanted}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number",
             bool: "a boolean", type(None): "null"}
    return names.get(type(value), type(value).__name__)
