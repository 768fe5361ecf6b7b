from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig
from purelm.data import describe, load_tokenizer, prepare
from purelm.errors import UserError


def words(count, seed=0):
    rng = random.Random(seed)
    return " ".join(rng.choice(["alpha", "beta", "gamma", "汉字", "delta\n", "12"]) for _ in range(count))


@pytest.fixture
def folder(tmp_path):
    """A folder of 60 documents; the cache beside it."""
    (tmp_path / "text").mkdir()
    for number in range(60):
        (tmp_path / "text" / f"{number}.txt").write_text(words(40, number), encoding="utf-8")
    return tmp_path


def config(folder, context_length=16, **fields):
    fields = {"path": str(folder / "text"), "validation_fraction": 0.2, "test_fraction": 0.1, "tokenizer": "bytes",
              "cache_dir": str(folder / "cache"), **fields}
    return Config(model=ModelConfig(context_length=context_length), data=DataConfig(**fields))


def entries(folder):
    return sorted(os.listdir(folder / "cache" / "tokens"))


@pytest.mark.parametrize("end_of_text", [True, False])
@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "bpe", "wordpiece", "unigram"])
def test_tokens_hold_every_document_behind_its_mark(folder, tokenizer, end_of_text):
    prepared = prepare(config(folder, tokenizer=tokenizer, tokenizer_vocabulary_size=600, end_of_text=end_of_text))
    texts = {words(40, number) for number in range(60)}
    found = []
    mark = prepared.tokenizer.end_of_text_id
    for split in prepared.splits.values():
        assert split.tokens.dtype == np.uint16 and isinstance(split.tokens, np.memmap)
        ends = [*split.document_starts[1:], len(split.tokens) - int(end_of_text)]
        for start, end in zip(split.document_starts, ends):
            document = split.tokens[start:end]
            if end_of_text:
                assert document[0] == mark and mark not in document[1:]
            found.append(prepared.tokenizer.decode(document[int(end_of_text):]))
        assert (split.tokens[-1] == mark) == end_of_text
        assert split.num_documents == len(split.document_starts)
        assert split.num_bytes == sum(len(text.encode()) for text in found[-split.num_documents:])
    assert len(found) == 60 and set(found) == texts


def test_the_second_start_tokenizes_nothing(folder, monkeypatch):
    chosen = config(folder, tokenizer="bpe", tokenizer_vocabulary_size=300)
    first = prepare(chosen)
    monkeypatch.setattr("purelm.data.preparation._collect", lambda *_: pytest.fail("collected again"))
    again = prepare(chosen)
    own = prepare(chosen, tokenizer=first.tokenizer)  # a run's own tokenizer finds the same tokens
    for prepared in (again, own):
        assert prepared.fingerprint == first.fingerprint
        np.testing.assert_array_equal(prepared.splits["train"].tokens, first.splits["train"].tokens)
    json.dumps(first.fingerprint)


def test_every_knob_that_changes_tokens_changes_the_key(folder):
    changes = [{}, {"document": "line"}, {"cleaning": ()}, {"split": "contiguous"}, {"validation_fraction": 0.3},
               {"test_fraction": 0.2}, {"tokenizer": "characters"}, {"tokenizer": "bpe"}, {"end_of_text": False},
               {"tokenizer": "bpe", "tokenizer_vocabulary_size": 260}, {"path": str(folder / "text" / "[1-5]*.txt")}]
    keys = [prepare(config(folder, **change)).fingerprint["key"] for change in changes]
    assert len(set(keys)) == len(changes)
    assert prepare(config(folder, packing="stream", window_offset="fixed")).fingerprint["key"] == keys[0]
    (folder / "text" / "new.txt").write_text("new")
    assert prepare(config(folder)).fingerprint["key"] not in keys


def test_tokenizer_by_path_and_by_argument(folder):
    trained = prepare(config(folder, tokenizer="bpe", tokenizer_vocabulary_size=300)).tokenizer
    trained.save(folder / "tokenizer.json")
    by_path = prepare(config(folder, tokenizer_path=str(folder / "tokenizer.json")))
    assert by_path.tokenizer.fingerprint == trained.fingerprint == by_path.fingerprint["tokenizer"]
    assert load_tokenizer(folder / "tokenizer.json").fingerprint == trained.fingerprint
    unmarked = prepare(config(folder, tokenizer="characters", end_of_text=False)).tokenizer
    with pytest.raises(UserError, match="no end-of-text token"):
        prepare(config(folder), tokenizer=unmarked)


def test_damaged_cache_is_made_again_with_a_warning(folder, caplog):
    first = prepare(config(folder, tokenizer="bpe", tokenizer_vocabulary_size=300))
    expected = np.array(first.splits["train"].tokens)
    entry = folder / "cache" / "tokens" / entries(folder)[0]
    kept, = (folder / "cache" / "tokenizers").iterdir()
    harms = [lambda: os.truncate(entry / "train.tokens.npy", 200), lambda: (entry / "meta.json").unlink(),
             lambda: (entry / "test.documents.npy").unlink(), lambda: (entry / "meta.json").write_text("{"),
             lambda: os.truncate(kept, 100)]
    for harm in harms:
        harm()
        caplog.clear()
        again = prepare(config(folder, tokenizer="bpe", tokenizer_vocabulary_size=300))
        assert len(caplog.records) == 1 and "made again" in caplog.text
        np.testing.assert_array_equal(again.splits["train"].tokens, expected)
        assert len(entries(folder)) == 1


def test_leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay(folder):
    import socket
    tokens = folder / "cache" / "tokens"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = tokens / f"building-{socket.gethostname()}-{ended.stdout.strip()}-abc"
    living = tokens / f"building-{socket.gethostname()}-{os.getpid()}-abc"
    old = tokens / "building-elsewhere-1-abc"
    for path in (dead, living, old):
        path.mkdir(parents=True)
        (path / "part").write_text("x")
    os.utime(old, (0, 0))
    prepare(config(folder))
    assert not dead.exists() and not old.exists() and living.exists()


def test_many_at_once_share_one_entry(folder):
    chosen = config(folder, tokenizer="characters")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: np.array(prepare(chosen).splits["train"].tokens), range(8)))
    assert all(np.array_equal(tokens, found[0]) for tokens in found)
    assert len(entries(folder)) == 1 and not entries(folder)[0].startswith("building")


def test_a_failed_preparation_leaves_nothing(folder):
    (folder / "text" / "zz.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="zz.txt: not UTF-8"):
        prepare(config(folder))
    assert entries(folder) == []


def test_a_cache_that_cannot_be_written(folder, monkeypatch):
    (folder / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*cache_dir"):
        prepare(config(folder, cache_dir=str(folder / "file")))

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("purelm.data.store.DocumentStore.append", full)
    with pytest.raises(UserError, match="No space left on device.*make room"):
        prepare(config(folder))
    assert entries(folder) == []


def test_short_and_empty_splits_are_user_errors(folder):
    with pytest.raises(UserError, match="fewer than one window of 100,000"):
        prepare(config(folder, context_length=100_000))
    (folder / "few").mkdir()
    (folder / "few" / "a.txt").write_text("a text")
    with pytest.raises(UserError, match="the train split has .* fewer than one window"):
        prepare(config(folder, path=str(folder / "few")))
    (folder / "few" / "b.txt").write_text("b text")
    with pytest.raises(UserError, match="split is empty.*contiguous"):
        prepare(config(folder, path=str(folder / "few"), validation_fraction=0.01, test_fraction=0.01))
    (folder / "few" / "c.jsonl").write_text('{"text": "\\u0000"}')
    with pytest.raises(UserError, match="no document with text"):
        prepare(config(folder, path=str(folder / "few" / "c.jsonl")))


def test_context_boundary(folder):  # reddens with <= in place of <
    (folder / "one.txt").write_text("x" * 50)
    fields = {"path": str(folder / "one.txt"), "validation_fraction": 0.0, "test_fraction": 0.0, "end_of_text": False}
    prepared = prepare(config(folder, context_length=49, **fields))
    assert prepared.splits.keys() == {"train"} and prepared.splits["train"].num_windows(49) == 1
    with pytest.raises(UserError, match="50 tokens"):
        prepare(config(folder, context_length=50, **fields))


def test_one_text_is_cut_as_nanogpt_cuts_it(folder):
    text = words(500)
    (folder / "one.txt").write_text(text, encoding="utf-8")
    prepared = prepare(config(folder, path=str(folder / "one.txt"), validation_fraction=0.1, test_fraction=0.0,
                              tokenizer="characters", end_of_text=False, cleaning=()))
    cut = int(0.9 * len(text))
    assert prepared.tokenizer.decode(prepared.splits["train"].tokens) == text[:cut]
    assert prepared.tokenizer.decode(prepared.splits["validation"].tokens) == text[cut:]
    assert prepared.tokenizer.characters == "".join(sorted(set(text)))


def test_characters_of_held_out_text_have_tokens(folder):  # reddens if the alphabet is that of train alone
    (folder / "split").mkdir()
    (folder / "split" / "train.txt").write_text("a" * 40)
    (folder / "split" / "validation.txt").write_text("z" * 40)
    prepared = prepare(config(folder, path=str(folder / "split"), tokenizer="characters"))
    assert prepared.tokenizer.characters == "az" and prepared.splits.keys() == {"train", "validation"}


def test_trained_tokenizers_see_the_training_split_only(folder):
    (folder / "split").mkdir()
    (folder / "split" / "train.txt").write_text("aaaa bbbb " * 40)
    (folder / "split" / "validation.txt").write_text("zyzyzy " * 40)
    tokenizer = prepare(config(folder, path=str(folder / "split"), tokenizer="bpe")).tokenizer
    assert len(tokenizer.encode("aaaa")) == 1 and len(tokenizer.encode("zyzyzy")) == 6


def test_large_vocabularies_take_wider_tokens(folder):
    (folder / "wide.txt").write_text("".join(chr(c) for c in range(0x10000, 0x10000 + 70_000)), encoding="utf-8")
    prepared = prepare(config(folder, path=str(folder / "wide.txt"), tokenizer="characters", cleaning=()))
    assert prepared.splits["train"].tokens.dtype == np.uint32
    assert prepared.tokenizer.decode(prepared.splits["test"].tokens[1:3]) == chr(0x10000 + 63000) + chr(0x10000 + 63001)


def test_fingerprint_and_description(folder):
    lines = []
    prepared = prepare(config(folder), progress=lines.append)
    assert len(lines) == 4 and all("\n" not in line for line in lines)
    source = prepared.fingerprint["source"]
    assert source["num_files"] == 60 and len(source["files"]) == 60 and len(source["files"][0]["sha256"]) == 64
    assert prepared.fingerprint["cleaning"]["documents_read"] == 60
    assert set(prepared.fingerprint["splits"]["train"]) == {"documents", "bytes", "tokens"}
    described = describe(prepared).splitlines()
    assert [line.split()[0] for line in described] == ["train", "validation", "test"]
    assert f"{prepared.splits['train'].num_windows(16):,} windows of 16" in described[0]


def test_cache_folder_by_environment(folder, monkeypatch):
    monkeypatch.setenv("PURELM_CACHE", str(folder / "elsewhere"))
    prepare(dataclasses.replace(config(folder), data=dataclasses.replace(config(folder).data, cache_dir=None)))
    assert (folder / "elsewhere" / "tokens").is_dir()


def test_a_start_from_the_cache_imports_nothing_heavy(folder):
    code = f"""
import sys
from purelm.config import Config, DataConfig, ModelConfig
from purelm.data import prepare
data = DataConfig(path={str(folder / "text")!r}, tokenizer='bpe', tokenizer_vocabulary_size=300,
                  cache_dir={str(folder)!r})
prepare(Config(model=ModelConfig(context_length=16), data=data))
print([name for name in ('jax', 'grain', 'tokenizers', 'tensorflow_datasets', 'tensorflow') if name in sys.modules])
"""
    outputs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
               for _ in range(2)]
    assert [output.strip() for output in outputs] == ["['tokenizers']", "[]"]


@pytest.mark.parametrize("name,fields", [("tinyshakespeare/input.txt.gz", {}), ("song_ci", {})])
def test_real_text_comes_back_exactly(test_data, tmp_path, name, fields):
    if not (test_data / name).exists():
        pytest.skip(f"needs {test_data / name}")
    chosen = config(tmp_path, path=str(test_data / name), tokenizer="bpe", tokenizer_vocabulary_size=1000, **fields)
    prepared = prepare(chosen)
    split = prepared.splits["validation"]
    text = prepared.tokenizer.decode(split.tokens).replace("<|endoftext|>", "")
    assert len(text.encode()) == split.num_bytes and "\ufffd" not in text
    np.testing.assert_array_equal(prepared.tokenizer.encode(text[:2000])[:100].tolist(),
                                  prepared.tokenizer.encode(text[:2000])[:100])
