from __future__ import annotations

import pytest

from purelm.config import DataConfig
from purelm.data.formats import FORMATS, as_pair, repair_answer
from purelm.errors import UserError

ANSWER = {"text": "b", "start": 2}
SQUAD_ROW = {"id": "1", "context": "a b", "question": "q", "answers": [ANSWER]}


def read(format_name, row, answered=True, **fields):
    return FORMATS[format_name](row, DataConfig(**fields), "f.jsonl, line 7", answered=answered)


def test_examples_of_each_format():
    where = {"where": "f.jsonl, line 7"}
    assert read("labels", {"text": "t", "label": "x"}) == {**where, "text": "t", "pair": None, "label": "x"}
    assert read("labels", {"a": "t", "b": "u", "c": "x"}, text_field="a", text_pair_field="b", label_field="c") == {
        **where, "text": "t", "pair": "u", "label": "x"}
    assert read("pairs", {"en": "a", "de": "b"}, prompt="to German: ") == {
        **where, "source": "to German: a", "targets": ["b"]}
    assert read("pairs", {"en": "a", "de": ["b", "c"]})["targets"] == ["b", "c"]
    assert read("tags", {"tokens": ["a", "b"], "tags": ["O", "B-x"]}) == {
        **where, "tokens": ["a", "b"], "tags": ["O", "B-x"]}
    assert read("squad", SQUAD_ROW) == {**where, **SQUAD_ROW}
    assert read("text", {"text": "t"}) == {**where, "text": "t"}
    row = {"task_id": "H/0", "prompt": "p", "canonical_solution": "s", "test": "t", "entry_point": "e"}
    assert read("code", row) == {**where, **row}


@pytest.mark.parametrize("label,expected", [(3, "3"), (True, "true"), (False, "false"), (0.5, "0.5"), ("x", "x")])
def test_labels_are_strings(label, expected):  # reddens if True is taken for the number 1
    assert read("labels", {"text": "t", "label": label})["label"] == expected


def test_turns_of_objects_and_of_bare_strings():
    expected = [{"speaker": "user", "text": "a"}, {"speaker": "assistant", "text": "b"}]
    assert read("turns", {"turns": ["a", "b"]})["turns"] == expected
    rows = [{"speaker": "user", "text": "a"}, {"speaker": "system", "text": "b"}]
    assert read("turns", {"turns": rows})["turns"] == expected
    rows = [{"who": "x", "say": "a"}, {"who": "y", "say": "b"}]
    assert read("turns", {"t": rows}, turns_field="t", speaker_field="who", text_field="say",
                assistant="y")["turns"] == expected


def test_answers_as_tfds_gives_them():
    row = {**SQUAD_ROW, "id": 5, "answers": {"text": ["b"], "answer_start": [2]}}
    example = read("squad", row)
    assert example["answers"] == [ANSWER] and example["id"] == "5"


def test_rows_without_answers_are_for_prediction_only():
    for name, row, missing in [("labels", {"text": "t"}, "label"), ("pairs", {"en": "a"}, "targets"),
                               ("tags", {"tokens": ["a"]}, "tags"), ("code", {"prompt": "p"}, "test"),
                               ("squad", {"context": "c", "question": "q"}, "answers")]:
        assert read(name, row, answered=False)[missing] is None
        with pytest.raises(UserError):
            read(name, row)
    assert read("squad", {"context": "c", "question": "q"}, answered=False)["id"] == "f.jsonl, line 7"


BAD_ROWS = [
    ("labels", {"text": "t", "lable": 1}, ["no field 'label'", "config.data.label_field", "did you mean 'lable'"]),
    ("labels", {"txt": "t", "label": 1}, ["'text'", "config.data.text_field", "did you mean 'txt'"]),
    ("labels", {"text": None, "label": 1}, ["'text'", "null"]),
    ("labels", {"text": ["t"], "label": 1}, ["'text'", "a list", "a string"]),
    ("labels", {"text": "t", "label": ["a"]}, ["'label'", "a list", "a string, a number or a boolean"]),
    ("labels", {"text": "t", "label": ""}, ["'label'", "empty"]),
    ("labels", {"text": "t", "label": float("nan")}, ["'label'", "NaN"]),
    ("labels", {"text": "\ud83d", "label": "a"}, ["'text'", "surrogate"]),
    ("pairs", {"en": "a"}, ["'de'", "config.data.target_field"]),
    ("pairs", {"en": "a", "de": None}, ["'de'", "null"]),
    ("pairs", {"en": None, "de": "b"}, ["'en'", "config.data.source_field", "null"]),
    ("pairs", {"en": "a", "de": []}, ["'de'", "empty list"]),
    ("pairs", {"en": "a", "de": [1]}, ["'de'", "a whole number", "a list of strings"]),
    ("tags", {"tokens": ["a", "b"], "tags": ["O"]}, ["2 tokens", "1 tags"]),
    ("tags", {"tokens": "a b", "tags": ["O"]}, ["'tokens'", "a string", "a list of strings"]),
    ("tags", {"tokens": ["a"], "tags": [3]}, ["'tags'", "a whole number"]),
    ("squad", {**SQUAD_ROW, "answers": []}, ["'answers'", "no answer"]),
    ("squad", {**SQUAD_ROW, "answers": [{"text": "b"}]}, ["'answers'", "'start'"]),
    ("squad", {**SQUAD_ROW, "answers": [{"text": "b", "start": "2"}]}, ["'answers'", "whole number"]),
    ("squad", {**SQUAD_ROW, "answers": {"text": ["b"], "answer_start": []}}, ["'answers'", "one length"]),
    ("squad", {"id": "1", "contxt": "a", "question": "q", "answers": [ANSWER]},
     ["config.data.context_field", "contxt"]),
    ("turns", {"turns": "hello"}, ["'turns'", "a string", "a list"]),
    ("turns", {"turns": ["a", 3]}, ["turn 2", "a whole number"]),
    ("turns", {"turns": [{"speaker": "u", "txt": "a"}]}, ["turn 1", "'text'", "did you mean 'txt'"]),
    ("code", {"prompt": "p", "canonical_solution": "s", "test": "t", "task_id": "i"}, ["'entry_point'"]),
    ("text", {"text": 3}, ["'text'", "a whole number"]),
]


@pytest.mark.parametrize("name,row,parts", BAD_ROWS, ids=[f"{i}-{bad[0]}" for i, bad in enumerate(BAD_ROWS)])
def test_bad_rows_are_one_line_with_file_line_and_field(name, row, parts):
    with pytest.raises(UserError) as caught:
        read(name, row)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in ["f.jsonl, line 7", *parts]), message


def test_as_text_to_text():
    pair = as_pair("labels", read("labels", {"text": "t", "label": 1}))
    assert pair == {"where": "f.jsonl, line 7", "source": "t", "targets": ["1"]}
    row = {**SQUAD_ROW, "answers": [ANSWER, ANSWER, {"text": "a", "start": 0}]}
    assert as_pair("squad", read("squad", row)) == {
        "where": "f.jsonl, line 7", "source": "question: q context: a b", "targets": ["b", "a"]}
    assert as_pair("labels", read("labels", {"text": "t"}, answered=False))["targets"] is None
    with pytest.raises(UserError, match="tags"):
        as_pair("tags", read("tags", {"tokens": ["a"], "tags": ["O"]}))


@pytest.mark.parametrize("context,answer,expected", [
    ("a b c", {"text": "b", "start": 2}, ("right", 2)),
    ("a b c", {"text": "b", "start": 0}, ("repaired", 2)),
    ("a b c", {"text": "c", "start": -1}, ("repaired", 4)),  # reddens if -1 counts from the end
    ("a b b", {"text": "b", "start": 0}, ("dropped", -1)),
    ("aaa", {"text": "aa", "start": 9}, ("dropped", -1)),  # twice, overlapping: reddens with str.count
    ("a b c", {"text": "x", "start": 2}, ("dropped", -1))])
def test_answers_are_put_where_they_stand_once(context, answer, expected):
    assert repair_answer(context, answer) == expected
