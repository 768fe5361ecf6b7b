from __future__ import annotations

import gzip
import json
import lzma

import pytest

from purelm.config import DataConfig
from purelm.data.sources import make_source
from purelm.errors import UserError


class Memory:
    """A FileIndex that remembers while the test lasts."""

    def __init__(self):
        self.records = {}

    def read_record(self, kind, key):
        return self.records.get(repr((kind, key)))

    def write_record(self, kind, key, record):
        self.records[repr((kind, key))] = record


def documents(**fields):
    return list(make_source(DataConfig(**fields)).documents())


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wb") as file:
        file.write(data)
    return str(path)


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_text_is_read_as_written_in_each_compression(tmp_path, ending):
    text = "\n first\r\nline\u2028 汉\n\nlast\n"
    assert documents(path=write(tmp_path / f"a.txt{ending}", text)) == [(None, text)]


def test_documents_of_a_text_file(tmp_path):  # reddens with splitlines(): \u2028 and \x0b are no line ends
    path = write(tmp_path / "a.txt", "\ufeffone\u2028\x0b1\r\n \n\ntwo\nthree\n\n\n")
    assert [text for _, text in documents(path=path, document="line")] == ["one\u2028\x0b1", "two", "three"]
    assert [text for _, text in documents(path=path, document="blank_line")] == ["one\u2028\x0b1", "two\nthree"]


def test_json_lines_are_split_at_newlines_only(tmp_path):
    rows = [{"text": "a\u2028b\x85"}, {"text": "汉\n"}]
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n \n"
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert [text for _, text in documents(path=write(tmp_path / name, content))] == ["a\u2028b\x85", "汉\n"]


def test_a_folders_split_files_are_its_splits(tmp_path):
    write(tmp_path / "train-00000.txt", "T0")
    write(tmp_path / "train-00001.txt.gz", "T1")
    write(tmp_path / "dev.jsonl", '{"text": "V"}')
    write(tmp_path / "test" / "x.txt", "S")
    write(tmp_path / "README.md", "no")
    write(tmp_path / "train_subset.txt", "no")
    write(tmp_path / ".train.txt", "no")
    assert documents(path=str(tmp_path)) == [("test", "S"), ("validation", "V"), ("train", "T0"), ("train", "T1")]


def test_the_one_file_that_begins_with_train_is_train_where_none_is_named_so(tmp_path):
    write(tmp_path / "train_subset.txt", "T")
    write(tmp_path / "validation.txt", "V")
    source = make_source(DataConfig(path=str(tmp_path)))
    assert list(source.documents()) == [("validation", "V"), ("train", "T")]
    assert source.notes == (f"no train file in {tmp_path}: train_subset.txt is taken for it",)
    write(tmp_path / "train-other.txt", "T")
    with pytest.raises(UserError, match="none for training"):
        make_source(DataConfig(path=str(tmp_path)))
    write(tmp_path / "train.txt", "T2")
    source = make_source(DataConfig(path=str(tmp_path)))
    assert list(source.documents()) == [("validation", "V"), ("train", "T2")] and not source.notes


@pytest.mark.parametrize("names,chosen,others", [
    (["test_2016", "test_2017"], ["test_2016"], "test_2017"), (["test_2016", "test"], ["test"], "test_2016"),
    (["test_hard", "test_easy"], ["test_easy"], "test_hard"), (["test_2016"], ["test_2016"], None),
    (["test-00000-of-00002", "test-00001-of-00002"], ["test-00000-of-00002", "test-00001-of-00002"], None),
    (["test1", "test"], ["test"], None), (["test.1", "test.2"], ["test.1", "test.2"], None)])
def test_of_several_test_sets_one_is_taken_and_parts_of_one_all(tmp_path, names, chosen, others):
    for name in ("train", *names):
        write(tmp_path / f"{name}.txt", name)
    source = make_source(DataConfig(path=str(tmp_path)))
    assert [text for split, text in source.documents() if split == "test"] == chosen
    assert bool(source.notes) == bool(others)
    if others:
        assert f"{chosen[0]}.txt is taken; evaluate {others}.txt by --data_path" in source.notes[0]


def test_held_out_files_alone_where_no_training_is_needed(tmp_path):
    write(tmp_path / "test.txt", "S")
    assert list(make_source(DataConfig(path=str(tmp_path)), need_train=False).documents()) == [("test", "S")]


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_names_of_validation(tmp_path, name):
    write(tmp_path / "train.txt", "T")
    write(tmp_path / f"{name}.txt", "V")
    assert ("validation", "V") in documents(path=str(tmp_path))


def test_other_folders_and_globs_are_one_set_in_the_order_of_names(tmp_path):
    for name in ("b.txt", "a/c.md", "a/.hidden"):
        write(tmp_path / name, name)
    write(tmp_path / "empty.txt", "")
    assert documents(path=str(tmp_path)) == [(None, "a/c.md"), (None, "b.txt"), (None, "")]
    assert documents(path=str(tmp_path / "**" / "*.md")) == [(None, "a/c.md")]


def test_standard_library_without_tests_and_packages():
    source = make_source(DataConfig())
    names = [file.name for file in source.files]
    assert len(names) > 200 and "argparse.py" in names and names == sorted(names)
    assert not [name for name in names if {"test", "tests", "site-packages", "turtledemo"} & set(name.split("/"))]
    assert source.label.startswith("python_stdlib 3.")


def test_unchanged_files_are_not_read_again(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "one")
    index = Memory()
    first = make_source(DataConfig(path=path)).identity(index)
    with monkeypatch.context() as patch:
        patch.setattr("purelm.data.sources.file_sha256", lambda path: pytest.fail("read again"))
        assert make_source(DataConfig(path=path)).identity(index) == first
    write(tmp_path / "a.txt", "two")  # the same size
    assert make_source(DataConfig(path=path)).identity(index) != first


def test_identity_tells_what_changes_the_text(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo")
    lines = write(tmp_path / "a.jsonl", '{"text": "a", "other": "b"}')
    identities = [make_source(DataConfig(**fields)).identity(Memory()) for fields in (
        {"path": path}, {"path": path, "document": "line"}, {"path": lines}, {"path": lines, "text_field": "other"},
        {"path": lines, "source": "text"})]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])


def test_the_folders_place_does_not_matter(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder / "train.txt", "text")
    a, b = (make_source(DataConfig(path=str(tmp_path / folder))).identity(Memory()) for folder in "ab")
    assert a == b


BAD_FILES = [
    ("empty.txt", b"", {}, ["empty"]),
    ("blank.txt", b" \n\n", {}, ["empty"]),
    ("empty.jsonl", b"\n\n", {}, ["empty"]),
    ("binary.txt", b"ab\ncd\0ef", {}, ["binary", "byte 5", "line 2"]),
    ("latin.txt", b"ab\ncaf\xe9 x", {}, ["not UTF-8", "byte 6", "line 2"]),
    ("latin.txt", b"ab\ncaf\xe9 x", {"document": "line"}, ["not UTF-8", "byte 6", "line 2"]),
    ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', {}, ["not UTF-8", "byte 24", "line 2"]),
    ("cut.txt.gz", gzip.compress(b"hello" * 1000, mtime=0)[:-9], {}, ["truncated"]),
    ("cut.txt.xz", lzma.compress(b"hello" * 1000)[:-9], {}, ["truncated"]),
    ("plain.txt.gz", b"hello", {}, ["not a .gz file"]),
    ("plain.txt.xz", b"hello", {}, ["not a .xz file"]),
    ("bad.jsonl", b'{"text": "a"}\n{"text": ', {}, ["line 2", "not JSON"]),
    ("long.jsonl", b'{"text": ' + b"1" * 5000 + b"}\n", {}, ["line 1", "too many digits"]),
    ("field.jsonl", b'{"text": "a"}\n\n{"txt": "a"}', {}, ["line 3", "'text'", "did you mean 'txt'"]),
    ("number.jsonl", b'{"text": 3}', {}, ["line 1", "'text'", "int"]),
    ("list.jsonl", b'["a"]', {}, ["line 1", "list", "object"]),
    ("half.jsonl", b'{"text": "\\ud83d"}', {}, ["line 1", "surrogate"]),
]


@pytest.mark.parametrize("name,content,fields,parts", BAD_FILES,
                         ids=[f"{number}-{bad[0]}" for number, bad in enumerate(BAD_FILES)])
def test_bad_files_are_one_line_that_names_the_file(tmp_path, name, content, fields, parts):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        documents(path=str(tmp_path / name), **fields)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in [name, *parts]), message


def test_bad_paths_say_what_is_there(tmp_path):
    write(tmp_path / "here.txt", "x")
    write(tmp_path / "held" / "test.txt", "x")
    (tmp_path / "none").mkdir()
    cases = [({"path": str(tmp_path / "her.txt")}, "no such file.*here.txt"),
             ({"path": str(tmp_path / "x" / "y.txt")}, "there is no folder"),
             ({"path": str(tmp_path / "*.html")}, "glob matches no file"),
             ({"path": str(tmp_path / "none")}, "holds no file"),
             ({"path": str(tmp_path / "held")}, "none for training"),
             ({"source": "text"}, "needs config.data.path"),
             ({"source": "tfds"}, "needs config.data.tfds_name"),
             ({"source": "python_stdlib", "path": "a"}, "drop one")]
    for fields, message in cases:
        with pytest.raises(UserError, match=message):
            make_source(DataConfig(**fields))


def test_an_empty_split_file_is_named(tmp_path):
    write(tmp_path / "train.txt", "T")
    write(tmp_path / "test.txt", "")
    with pytest.raises(UserError, match="test.txt: an empty file"):
        documents(path=str(tmp_path))


def test_a_path_goes_before_a_tfds_name(tmp_path):
    """So a config names its TFDS set, and one field turns it to plain files. Reddens when the name wins."""
    (tmp_path / "a.txt").write_text("text")
    assert make_source(DataConfig(path=str(tmp_path / "a.txt"), tfds_name="lm1b")).label == str(tmp_path / "a.txt")
    assert make_source(DataConfig(tfds_name="lm1b")).label == "tfds lm1b"
