from __future__ import annotations

import pytest

from purelm.config import DataConfig
from purelm.data.new_rows import read_new_rows
from purelm.errors import UserError


def read(path, format_name="labels"):
    return read_new_rows(str(path), DataConfig(), format_name, lambda text: {"text": text})


def test_answers_of_rows_are_left_out(tmp_path):
    # Reddens where a label that was never trained on, and is not asked for, stops the prediction.
    (tmp_path / "a.jsonl").write_text('{"text": "t", "label": "never seen"}\n')
    (tmp_path / "b.jsonl").write_text('{"tokens": ["a"], "tags": ["B-never"]}\n')
    assert read(tmp_path / "a.jsonl") == [{"where": "a.jsonl, line 1", "text": "t", "pair": None, "label": None}]
    assert read(tmp_path / "b.jsonl", "tags")[0]["tags"] is None


def test_each_line_of_a_text_is_one(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\r\n")
    assert read(tmp_path / "a.txt") == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.json.gz"])
def test_tables_are_not_taken_for_texts(tmp_path, name):
    # Reddens where the header of a table is answered as if it were a text.
    (tmp_path / name).write_text("text,label\na,b\n")
    with pytest.raises(UserError, match="neither JSON lines nor text"):
        read(tmp_path / name)


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
