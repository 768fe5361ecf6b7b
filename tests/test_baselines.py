"""experiments/baselines.py on tiny folders, as a user runs it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*arguments):
    return subprocess.run([sys.executable, "experiments/baselines.py", *arguments], cwd=ROOT, text=True, timeout=120,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def write(folder, **splits):
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def labeled(*pairs):
    return [{"text": text, "label": label} for text, label in pairs]


def test_one_json_object_on_the_whole_test_split(tmp_path):
    # Reddens where a part of train.jsonl is kept for validation: each of its words is in one row alone.
    words = [(f"{kind}{number} {kind}", kind) for number in range(10) for kind in ("good", "bad")]
    write(tmp_path, train=labeled(*words), test=labeled(("good", "good"), ("bad", "bad"), ("bad bad", "bad")))
    done = run("--task=classification", f"--data_path={tmp_path}", "--analyzer=word")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accuracy"] == 1.0 and found["examples"] == 3 and found["analyzer"] == "word"


@pytest.mark.parametrize("arguments, message", [
    ((), "--task is missing"),
    (("--task=tagging",), "--data_path is missing"),
    (("--task=classification", "--data_path=FOLDER"), "no test split"),
    (("--config=configs/lm/python_stdlib.py",), "language_modeling has no trivial system")])
def test_mistakes_are_one_line(arguments, message, tmp_path):
    write(tmp_path, train=labeled(("a", "x"), ("b", "y")), validation=labeled(("c", "x")))
    done = run(*(argument.replace("FOLDER", str(tmp_path)) for argument in arguments))
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("train, words", [
    (labeled(("a good one", "good"), ("a good two", "good")), "have the label 'good'"),
    (labeled(("one", "good"), ("two", "bad"), ("three", "bad")), "no word is in two of its ")])
def test_too_little_to_learn_from_is_one_line(tmp_path, train, words):
    write(tmp_path, train=train, test=labeled(("one more", "good")))
    done = run("--task=classification", f"--data_path={tmp_path}")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
