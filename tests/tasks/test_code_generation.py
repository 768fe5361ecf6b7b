"""Text to train on, problems to test on, and what of a problem the loss counts."""

import collections
import json

import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.errors import UserError
from purelm.tasks import code_generation

TOKENIZER = ByteTokenizer(end_of_text=True)
PROBLEM = {"task_id": "T/0", "prompt": "def f():\n", "canonical_solution": "    return 1\n", "entry_point": "f",
           "test": "def check(f):\n    assert f() == 1\n"}


def make_config(path=None, context_length=64, **data):
    return Config(model=ModelConfig(context_length=context_length, num_layers=1, width=16, num_heads=2),
                  task=TaskConfig(name="code_generation"), data=DataConfig(path=path, tokenizer="bytes", **data),
                  training=TrainingConfig(num_steps=4, batch_size=2))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def encode(context_length):
    counts = collections.Counter()
    (record,), = code_generation.encode(make_config(context_length=context_length), TOKENIZER, None, [PROBLEM], counts)
    return record, +counts


def test_the_solution_is_learned_and_the_prompt_is_not():
    # Reddens with weights shifted by one, or the prompt's last line end, which the model writes, counted nowhere.
    record, counts = encode(64)
    assert bytes(record["ids"][1:].tolist()) == b"def f():\n    return 1\n" and record["ids"][0] == 256
    assert bytes(record["ids"][record["learned"] == 1].tolist()) == b"\n    return 1\n"
    assert record["bytes"] == 14 and not counts
    batch = code_generation.collate(make_config(), [record], 24)
    assert bytes(batch["targets"][batch["weights"] == 1].tolist()) == b"\n    return 1\n"


def test_what_is_longer_than_the_context():
    record, counts = encode(20)
    assert bytes(record["ids"].tolist()) == b"ef f():\n    return 1\n" and record["bytes"] == 14
    assert counts == {"prompts cut at their start": 1}
    record, counts = encode(5)
    assert len(record["ids"]) == 6 and record["bytes"] == 5 and record["learned"].tolist() == [0, 1, 1, 1, 1, 1]
    assert counts == {"prompts cut at their start": 1, "solutions cut at their end": 1}


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.jsonl", [{"prompt": f"def g{i}():\n", "canonical_solution": f"    return {i}\n"}
                                     for i in range(20)] + [{"text": "x = 1\n" * 20}])
    write(tmp_path / "test.jsonl", [PROBLEM, {**PROBLEM, "prompt": "def h():\n"}])
    return tmp_path


def test_a_folder_with_files_to_train_on(folder):
    config = make_config(str(folder), validation_fraction=0.3)
    data = code_generation.prepare(config)
    assert set(data.splits) == {"train", "validation", "test"} and data.num_bytes("test") == 28
    text = TOKENIZER.decode(np.concatenate([data.splits[name].tokens for name in ("train", "validation")]))
    assert "def g3():\n    return 3\n" in text and "def f" not in text
    assert bytes(data.splits["test"].tokens.tolist()) == b"\n    return 1\n" * 2
    batch, = data.evaluation_batches("test", config, batch_size=2)
    assert batch["weights"].sum() == 28
    assert "2 problems" in data.describe()
    assert [example["entry_point"] for example in data.splits["test"].examples] == ["f", "f"]
    again = code_generation.prepare(config, tokenizer=data.tokenizer)
    assert again.fingerprint == data.fingerprint
    write(folder / "test.jsonl", [PROBLEM])
    assert code_generation.prepare(config).fingerprint != data.fingerprint


def test_problems_alone_leave_the_library_to_train_on(folder, monkeypatch):
    from purelm.data import sources

    files = sources.standard_library_files()[:40]
    monkeypatch.setattr(sources, "standard_library_files", lambda: files)
    (folder / "train.jsonl").unlink()
    for path in (folder, folder / "test.jsonl"):
        data = code_generation.prepare(make_config(str(path)))
        assert set(data.splits) == {"train", "validation", "test"} and len(data.splits["test"].examples) == 2
        assert "import" in TOKENIZER.decode(data.splits["train"].tokens[:20000])
    assert "examples" not in dir(code_generation.prepare(make_config()).splits["test"])


def test_a_source_beside_the_path_is_refused(folder):
    with pytest.raises(UserError, match="leave the source at auto"):
        code_generation.prepare(make_config(str(folder), source="python_stdlib"))
