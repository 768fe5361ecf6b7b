from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from small_tasks import CLASSES, PAIRS, SQUAD, TAGS, TEXT, TURNS, config, labeled, plain_recipe, write_rows

from purelm.config import TaskConfig
from purelm.data import prepare_examples
from purelm.errors import UserError


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path / "rows" / "train.jsonl", labeled(40))
    write_rows(tmp_path / "rows" / "validation.jsonl.gz", labeled(10, 100))
    write_rows(tmp_path / "rows" / "test.jsonl", labeled(9, 200))
    return tmp_path


def texts(prepared, split):
    return [example["text"] for example in prepared.splits[split].examples]


def test_records_and_examples_come_back_from_the_cache(folder):
    prepared = prepare_examples(config(folder, context_length=128), CLASSES)
    assert list(prepared.splits) == ["train", "validation", "test"] and prepared.labels == ("a", "b", "c")
    for name, count, begin in (("train", 40, 0), ("validation", 10, 100), ("test", 9, 200)):
        split, rows = prepared.splits[name], labeled(count, begin)
        assert split.num_records == len(split.examples) == count and split.examples[-1] == split.examples[count - 1]
        for i, row in enumerate(rows):
            example, record = split.examples[int(split.example_of[i])], split.record(i)
            assert example["text"] == row["text"] and example["label"] == row["label"]
            assert example["where"].endswith(f", line {i + 1}") and example["where"].startswith(name)
            assert prepared.tokenizer.decode(record["tokens"]) == row["text"]
            assert record["tokens"].dtype == np.int32 and prepared.labels[record["label"]] == row["label"]
            assert split.lengths[i] == len(record["tokens"])
    assert [example["where"] for example in prepared.splits["test"].examples[2:4]] == [
        "test.jsonl, line 3", "test.jsonl, line 4"]
    json.dumps(prepared.fingerprint)
    assert prepared.num_bytes("train") is None and prepared.vocabulary_size == 257


def test_special_tokens_follow_the_tokenizers(folder):
    special = dataclasses.replace(CLASSES, num_specials=3)
    assert prepare_examples(config(folder), special).vocabulary_size == 260


def test_the_second_start_reads_and_encodes_nothing(folder, monkeypatch):
    chosen = config(folder, tokenizer="bpe", tokenizer_vocabulary_size=300)
    first = prepare_examples(chosen, CLASSES)
    monkeypatch.setattr("purelm.data.examples.collect_examples", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("purelm.data.sources.file_sha256", lambda *_: pytest.fail("hashed again"))
    silent = dataclasses.replace(CLASSES, encode=lambda *_: pytest.fail("encoded again"))
    for again in (prepare_examples(chosen, silent),
                  prepare_examples(chosen, silent, tokenizer=first.tokenizer, labels=list(first.labels))):
        assert again.fingerprint == first.fingerprint and again.describe() == first.describe()
        np.testing.assert_array_equal(again.splits["train"].record(3)["tokens"],
                                      first.splits["train"].record(3)["tokens"])


def test_every_field_that_changes_records_changes_the_key(folder):
    def key(recipe=CLASSES, **fields):
        return prepare_examples(config(folder, **fields), recipe).fingerprint["key"]
    keys = [key(), key(context_length=32), key(tokenizer="characters"), key(cleaning=("lower_case",)),
            key(text_pair_field="label"), key(end_of_text=False), key(dataclasses.replace(CLASSES, version=2)),
            key(dataclasses.replace(CLASSES, num_specials=1))]
    assert len(set(keys)) == len(keys)
    assert key(bucketing=False) == key(batch_size=4) == key(seed=3) == key(source_field="x") == keys[0]
    other = dataclasses.replace(config(folder), task=TaskConfig(name="classification"))
    assert prepare_examples(other, CLASSES).fingerprint["key"] != keys[0]
    write_rows(folder / "rows" / "test.jsonl", labeled(8, 200))
    assert key() != keys[0]


def test_a_damaged_cache_is_made_again(folder, caplog):
    first = prepare_examples(config(folder), CLASSES)
    expected = texts(first, "train")
    for entry in (folder / "cache" / "tokens").iterdir():
        for name in ("examples.jsonl", "train.tokens.npy"):
            if (entry / name).exists():
                os.truncate(entry / name, 20)
    again = prepare_examples(config(folder), CLASSES)
    assert caplog.text.count("made again") == 2 and again.fingerprint == first.fingerprint
    assert texts(again, "train") == expected


def test_without_a_validation_file_a_stable_part_of_train_is_taken(folder):
    for name in ("validation.jsonl.gz", "test.jsonl"):
        (folder / "rows" / name).unlink()
    write_rows(folder / "rows" / "test.jsonl", labeled(9, 200))
    chosen = config(folder, validation_fraction=0.2)
    first = prepare_examples(chosen, CLASSES)
    assert len(texts(first, "test")) == 9  # nothing is added to a test file
    held = set(texts(first, "validation"))
    assert held and sorted(held | set(texts(first, "train"))) == sorted(row["text"] for row in labeled(40))
    assert f"no validation file: {len(held)} of 40 training examples" in first.describe()
    write_rows(folder / "rows" / "train.jsonl", [*reversed(labeled(40)), *labeled(5, 50)])
    assert held <= set(texts(prepare_examples(chosen, CLASSES), "validation"))  # reddens if places decide


def test_questions_of_a_paragraph_stay_together_and_labels_of_all_train_count(folder):
    rows = [{"id": str(i), "context": f"context {i // 4}", "question": f"q{i}",
             "answers": [{"text": "context", "start": 0}]} for i in range(80)]
    for name in ("validation.jsonl.gz", "test.jsonl"):
        (folder / "rows" / name).unlink()
    write_rows(folder / "rows" / "train.jsonl", rows)
    prepared = prepare_examples(config(folder, validation_fraction=0.3), SQUAD)
    contexts = [{example["context"] for example in split.examples} for split in prepared.splits.values()]
    assert len(contexts) == 2 and not contexts[0] & contexts[1]
    write_rows(folder / "rows" / "train.jsonl", [{"text": f"t{i}", "label": i} for i in range(30)])
    prepared = prepare_examples(config(folder, validation_fraction=0.3), CLASSES)
    assert len(prepared.labels) == 30  # of the part that is taken for validation too


@pytest.mark.parametrize("split,sizes", [("hash", (2, 1, 1)), ("contiguous", (2, 1, 1))])
def test_few_examples_give_every_split_one(tmp_path, split, sizes):
    write_rows(tmp_path / "rows" / "all.jsonl", labeled(4))
    prepared = prepare_examples(config(tmp_path, split=split, validation_fraction=0.25, test_fraction=0.25), CLASSES)
    assert tuple(len(texts(prepared, name)) for name in ("train", "validation", "test")) == sizes or split == "hash"
    assert all(texts(prepared, name) for name in ("train", "validation", "test"))


def test_a_file_alone_may_be_scored_whole(folder):
    write_rows(folder / "rows" / "train.jsonl", labeled(5) + labeled(5))
    chosen = config(folder, path=str(folder / "rows" / "train.jsonl"), validation_fraction=0.0, test_fraction=0.0)
    prepared = prepare_examples(chosen, CLASSES)
    assert list(prepared.splits) == ["train"] and len(texts(prepared, "train")) == 10


def test_held_out_files_alone_do_where_nothing_is_trained(folder):
    run = prepare_examples(config(folder), CLASSES)
    (folder / "rows" / "train.jsonl").unlink()
    with pytest.raises(UserError, match="none for training"):
        prepare_examples(config(folder), CLASSES)
    prepared = prepare_examples(config(folder), CLASSES, tokenizer=run.tokenizer, labels=run.labels)
    assert list(prepared.splits) == ["validation", "test"]
    assert len(list(prepared.evaluation_batches("test", config(folder), batch_size=4))) == 3
    with pytest.raises(UserError, match="no training split"):
        prepared.training_batches(config(folder), start_step=0)


def test_a_label_unseen_in_training_is_named(folder):
    write_rows(folder / "rows" / "test.jsonl", [{"text": "t", "label": "a"}, {"text": "u", "label": "bb"}])
    for _ in range(2):  # nothing half made is left in the cache
        with pytest.raises(UserError, match="test.jsonl, line 2: label 'bb' is not in the training.*did you mean 'b'"):
            prepare_examples(config(folder), CLASSES)
    with pytest.raises(UserError, match="train.jsonl, line 3: label 'c'"):
        prepare_examples(config(folder), CLASSES, labels=("a", "b"))


def test_duplicates_are_dropped_from_training_alone(folder):  # reddens if a copy in held-out data is dropped
    write_rows(folder / "rows" / "train.jsonl", labeled(10) + labeled(3, 5) + labeled(2, 200))
    write_rows(folder / "rows" / "test.jsonl", labeled(4, 200) + labeled(4, 200))
    prepared = prepare_examples(config(folder), CLASSES)
    assert texts(prepared, "train") == [row["text"] for row in labeled(10)] and len(texts(prepared, "test")) == 8
    assert prepared.counts["cleaning"]["duplicates"] == 5 == prepared.fingerprint["cleaning"]["duplicates"]
    assert "5 duplicates dropped from the training data (first: train.jsonl, line 11)" in prepared.describe()
    assert len(texts(prepare_examples(config(folder, cleaning=()), CLASSES), "train")) == 15


def test_examples_without_text_are_dropped_counted_and_named(folder):
    write_rows(folder / "rows" / "train.jsonl", [{"en": "a", "de": "b"}, {"en": "a", "de": "\u0007"},
                                                 {"en": " ", "de": "b"}, {"en": "c", "de": ["", "d"]}])
    write_rows(folder / "rows" / "test.jsonl", [{"en": "x", "de": "y"}])
    write_rows(folder / "rows" / "validation.jsonl.gz", [{"en": "x", "de": "z"}])
    prepared = prepare_examples(config(folder, prompt="go: "), PAIRS)  # reddens if the prompt counts as text
    assert [(example["source"], example["targets"]) for example in prepared.splits["train"].examples] == [
        ("go: a", ["b"]), ("go: c", ["d"])]
    assert "2 examples without text dropped (first: train.jsonl, line 2)" in prepared.describe()
    assert prepared.fingerprint["cleaning"]["empty"] == 2


def test_wrong_offsets_are_repaired_or_dropped_and_kept_where_scored(folder):
    def row(number, *answers):
        return {"id": str(number), "context": f"e\u0301 {number} x x", "question": "q",
                "answers": [{"text": text, "start": start} for text, start in answers]}
    rows = [row(1, ("1", 3)), row(2, ("2", 0)), row(3, ("x", 0)), row(4, ("4", 3), ("y", 0)), row(5, ("", 0))]
    write_rows(folder / "rows" / "train.jsonl", rows)
    write_rows(folder / "rows" / "test.jsonl", rows[1:3])
    write_rows(folder / "rows" / "validation.jsonl.gz", rows[:1])
    prepared = prepare_examples(config(folder, cleaning=("unicode_nfc",)), SQUAD)
    train = list(prepared.splits["train"].examples)
    assert [example["id"] for example in train] == ["1", "2", "4"]
    for example in train:  # composing the accent moved every answer by one
        (answer,) = example["answers"]
        assert example["context"][answer["start"]:answer["start"] + 1] == answer["text"] == example["id"]
    assert [example["answers"][0]["text"] for example in prepared.splits["test"].examples] == ["2", "x"]
    line = "5 answers do not stand where their offset says: 2 repaired, 2 dropped, 1 kept (first: test.jsonl, line 1)"
    assert line in prepared.describe()
    assert prepared.counts["cleaning"]["wrong answer offsets dropped"] == 2
    assert "1 training examples dropped with their last answer (first: train.jsonl, line 3)" in prepared.describe()


def test_steps_that_move_answers_are_refused(folder):
    for step in ("strip_html", "whitespace"):
        with pytest.raises(UserError, match=f"config.data.cleaning: the step '{step}' would move the answers"):
            prepare_examples(config(folder, cleaning=(step,)), SQUAD)


def test_cleaning_reaches_every_text_but_tokens_and_prompts(folder):
    def only(recipe, row, **fields):
        for name in ("train.jsonl", "validation.jsonl.gz", "test.jsonl"):
            write_rows(folder / "rows" / name, [row])  # without exact_duplicates all three keep it
        prepared = prepare_examples(config(folder, cleaning=("lower_case",), **fields), recipe)
        return {key: value for key, value in prepared.splits["train"].examples[0].items() if key != "where"}
    assert only(PAIRS, {"en": "A", "de": ["B", "C"]}, prompt="P ") == {"source": "P a", "targets": ["b", "c"]}
    assert only(TAGS, {"tokens": ["A"], "tags": ["O"]}) == {"tokens": ["A"], "tags": ["O"]}
    assert only(TURNS, {"turns": ["A", "B"]})["turns"][1] == {"speaker": "assistant", "text": "b"}
    assert only(TEXT, {"text": "A"}) == {"text": "a"}
    code = {"task_id": "T", "prompt": "P", "canonical_solution": "S", "test": "T", "entry_point": "E"}
    codes = plain_recipe("code", lambda example: [example["prompt"]])
    assert only(codes, code) == {**code, "prompt": "p", "canonical_solution": "s"}
    assert only(dataclasses.replace(CLASSES), {"text": "A", "label": "L"}) == {"text": "a", "pair": None, "label": "L"}


def test_other_formats_as_text_to_text(folder):
    prepared = prepare_examples(config(folder, format="labels", prompt="class: "), PAIRS)
    first = prepared.splits["train"].examples[1]
    assert first["source"] == "class: " + labeled(2)[1]["text"] and first["targets"] == ["b"]
    with pytest.raises(UserError, match="config.data.format='tags': .* reads pairs"):
        prepare_examples(config(folder, format="tags"), PAIRS)
    with pytest.raises(UserError, match="config.data.format='pairs': .* reads labels"):
        prepare_examples(config(folder, format="pairs"), CLASSES)


def test_lines_of_text_files_are_texts(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.txt").write_text("\ufeffone\n\n two\n", encoding="utf-8")
    (tmp_path / "rows" / "validation.txt").write_text("three")
    prepared = prepare_examples(config(tmp_path), TEXT)
    assert texts(prepared, "train") == ["one", " two"]
    assert prepared.splits["train"].examples[1]["where"] == "train.txt, line 3"
    with pytest.raises(UserError, match="validation.txt: a text file; the format 'labels' is read from JSON lines"):
        prepare_examples(config(tmp_path), CLASSES)


def test_nobody_of_the_assistants_name(folder):
    for name in ("train.jsonl", "validation.jsonl.gz", "test.jsonl"):
        write_rows(folder / "rows" / name, [{"turns": [{"speaker": "u", "text": name},
                                                       {"speaker": "bot", "text": "b"}]}])
    with pytest.raises(UserError, match="no turn is by 'system' .config.data.assistant."):
        prepare_examples(config(folder), TURNS)
    assert prepare_examples(config(folder, assistant="bot"), TURNS).splits["train"].num_records == 1


@pytest.mark.parametrize("content,parts", [
    (b'{"text": "a", "label": 1}\n{"text": ', ["line 2", "not JSON"]),
    (b'{"text": "\xe9", "label": 1}', ["not UTF-8", "line 1"]), (b"[1]", ["line 1", "list"]),
    (b"", ["empty file"]), (b'{"text": "a"}', ["line 1", "label_field"])])
def test_bad_files_are_named_in_full(folder, content, parts):
    path = folder / "rows" / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        prepare_examples(config(folder), CLASSES)
    assert all(part in str(caught.value) for part in [str(path), *parts]), caught.value


def test_tokenizers_see_training_texts_and_given_ones_must_fit(folder):
    lines = []
    chosen = config(folder, tokenizer="words", tokenizer_vocabulary_size=50)
    prepared = prepare_examples(chosen, CLASSES, progress=lines.append)
    assert "150" not in prepared.tokenizer.words and "39" in prepared.tokenizer.words and len(lines) == 5
    characters = prepare_examples(config(folder, tokenizer="characters", end_of_text=False), CLASSES).tokenizer
    with pytest.raises(UserError, match="no end-of-text token"):
        prepare_examples(config(folder), CLASSES, tokenizer=characters)
    prepared.tokenizer.save(folder / "tokenizer.json")
    again = prepare_examples(config(folder, tokenizer_path=str(folder / "tokenizer.json")), CLASSES)
    assert again.tokenizer.fingerprint == prepared.tokenizer.fingerprint


def test_training_that_is_all_in_held_out_files_is_none(folder):
    write_rows(folder / "rows" / "train.jsonl", labeled(3, 200))
    with pytest.raises(UserError, match="no training example is left.*copies of held-out"):
        prepare_examples(config(folder), CLASSES)


def test_a_task_that_keeps_nothing_says_so(folder):
    def nothing(config, tokenizer, labels, examples, counts):
        counts["too long"] += len(examples)
        return [[] for _ in examples]
    with pytest.raises(UserError, match="no training example is left.*too long 40"):
        prepare_examples(config(folder), dataclasses.replace(CLASSES, encode=nothing))


def test_counts_of_the_task_are_told(folder):
    prepared = prepare_examples(config(folder, context_length=16), CLASSES)
    cut = prepared.counts["train"]["cut"]
    assert cut > 0 and f"train: cut {cut}" in prepared.describe()


def test_a_held_out_split_without_records_is_empty(folder):
    def encode(config, tokenizer, labels, examples, counts):
        return [[{"tokens": tokenizer.encode(example["text"]), "label": 0}]
                if example["where"].startswith("train") else [] for example in examples]
    prepared = prepare_examples(config(folder), dataclasses.replace(CLASSES, encode=encode))
    assert prepared.splits["test"].num_records == 0 and len(prepared.splits["test"].examples) == 9
    assert not list(prepared.evaluation_batches("test", config(folder), batch_size=4)) and prepared.describe()


def test_a_start_from_the_cache_imports_nothing_heavy(folder):
    code = f"""
import pathlib, sys
from small_tasks import CLASSES, config
from purelm.data import prepare_examples
chosen = config(pathlib.Path({str(folder)!r}), tokenizer="bpe", tokenizer_vocabulary_size=300)
next(prepare_examples(chosen, CLASSES).training_batches(chosen, start_step=0))
print([name for name in ('jax', 'grain', 'tokenizers', 'sklearn', 'jieba', 'tensorflow') if name in sys.modules])
"""
    root = os.path.dirname(__file__)
    outputs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
               for _ in range(2)]
    assert [output.strip() for output in outputs] == ["['tokenizers']", "[]"]
