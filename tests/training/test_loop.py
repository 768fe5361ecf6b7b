"""The loop as a user meets it: the run folder after a whole run, a stopped one, a killed one, and a NaN."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, to_json, validate
from purelm.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 200


@pytest.fixture(scope="module")
def text_file(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    generator = random.Random(0)
    path.write_text(" ".join(generator.choice(["to", "be", "or", "not", "that", "is"]) for _ in range(3000)))
    return path


def tiny_config(text_file: pathlib.Path, **training) -> Config:
    """A model with dropout, two micro-batches and an average, trained over several epochs of shifted windows."""
    values = {"num_steps": STEPS, "batch_size": 8, "accumulation_steps": 2, "ema_decay": 0.9, "log_every": "10",
              "evaluate_every": "50", "checkpoint_every": "20", **training}
    return validate(Config(
        model=ModelConfig(num_layers=1, width=16, num_heads=2, context_length=16, residual_dropout=0.1),
        data=DataConfig(path=str(text_file), tokenizer="characters", end_of_text=False, packing="stream",
                        test_fraction=0.0, validation_fraction=0.1),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup="10", weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(**values)))


@pytest.fixture(scope="module")
def command(text_file, tmp_path_factory) -> list[str]:
    config = tmp_path_factory.mktemp("config") / "config.json"
    config.write_text(to_json(tiny_config(text_file)))
    return [sys.executable, str(ROOT / "experiments" / "train.py"), f"--config={config}"]


def checkpoint_arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, by item and path."""
    import jax

    from purelm.config import load_json
    from purelm.training.checkpoints import restore_latest
    from purelm.training.parallel import make_engine

    engine = make_engine(load_json(workdir / "config.json"), jax.devices()[:1])
    restored = restore_latest(workdir / "checkpoints", engine.shapes())
    leaves = jax.tree_util.tree_leaves_with_path(restored.state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves} | {"at": np.array(restored.step)}


def rows(workdir: pathlib.Path) -> list[dict]:
    """The rows of a run but for their speed."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found]


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    expected, found = checkpoint_arrays(one), checkpoint_arrays(other)
    assert expected.keys() == found.keys() and int(expected["at"]) == STEPS
    for name, value in expected.items():
        assert value.dtype == found[name].dtype and value.tobytes() == found[name].tobytes(), name
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run([*command, f"--workdir={workdir}"], check=True, capture_output=True, timeout=300)
    return workdir


def test_a_run_folder_holds_everything_and_n_steps_are_n_updates(unbroken):
    names = {path.name for path in unbroken.iterdir()}
    assert names == {"checkpoints", "config.json", "curves.png", "metrics.jsonl", "run.json", "tensorboard",
                     "tokenizer.json"}
    found = rows(unbroken)
    train, validation = ([row for row in found if row["split"] == split] for split in ("train", "validation"))
    assert [row["step"] for row in train] == list(range(10, STEPS + 1, 10))
    assert [row["step"] for row in validation] == list(range(50, STEPS + 1, 50))
    assert train[-1]["loss"] < 0.7 * train[0]["loss"]
    assert int(checkpoint_arrays(unbroken)[".step"]) == STEPS


def test_evaluate_agrees_with_the_last_validation_row(unbroken):
    from purelm.evaluation.report import evaluate_run, write_evaluation

    result = evaluate_run(str(unbroken)).metrics
    write_evaluation(str(unbroken), result)
    last = [row for row in rows(unbroken) if row["split"] == "validation"][-1]
    assert result["step"] == STEPS and result["loss"] == pytest.approx(last["loss"], abs=1e-6)
    assert json.loads((unbroken / "evaluation.json").read_text()) == result
    best = evaluate_run(str(unbroken), checkpoint="best").metrics
    assert best["loss"] == pytest.approx(min(row["loss"] for row in rows(unbroken) if row["split"] == "validation"))
    # Reddens where weights are not rounded, or the difference is taken of something else.
    rounded = evaluate_run(str(unbroken), quantize="int4").metrics
    assert rounded["quantized_loss_difference"] == pytest.approx(rounded["loss"] - result["loss"], abs=1e-6)
    assert 0 < abs(rounded["quantized_loss_difference"]) < 0.5


def kill_until_done(command, workdir: pathlib.Path, kills: int, seed: int, seconds: float) -> None:
    """Starts the command again and again, killing it at random moments, and lets the last one finish."""
    generator = random.Random(seed)
    for _ in range(kills):
        process = subprocess.Popen([*command, f"--workdir={workdir}"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.3, 1.0) * seconds)
        process.kill()
        process.wait()
    done = subprocess.run([*command, f"--workdir={workdir}"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def duration(command, tmp_path) -> float:
    """Seconds that an unbroken run takes just now."""
    started = time.monotonic()
    subprocess.run([*command, f"--workdir={tmp_path}/timed"], check=True, capture_output=True, timeout=300)
    return time.monotonic() - started


def test_killed_and_resumed_is_bit_for_bit_never_killed(command, unbroken, tmp_path):
    """Reddens when a resume skips or repeats a batch, restores a moment wrongly, or redraws dropout."""
    log = tmp_path / "run" / "metrics.jsonl"
    for written in sorted(random.sample(range(3, 18), 2)):  # Of the 24 rows.
        process = subprocess.Popen([*command, f"--workdir={tmp_path}/run"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < written):
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, f"--workdir={tmp_path}/run"], check=True, capture_output=True, timeout=300)
    assert_same_run(unbroken, tmp_path / "run")


@pytest.mark.slow
def test_twenty_kills_at_random_moments(command, unbroken, tmp_path):
    kill_until_done(command, tmp_path / "run", kills=20, seed=int.from_bytes(os.urandom(2), "big"),
                    seconds=duration(command, tmp_path))
    assert_same_run(unbroken, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_the_step_and_the_same_command_goes_on(number, command, unbroken, tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen([*command, f"--workdir={workdir}", "--config.training.checkpoint_every=100000"],
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if line.startswith("step 30/"):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 128 + number, rest
    assert f"stopped by signal {int(number)}" in rest and "Traceback" not in rest
    stopped_at = int(checkpoint_arrays(workdir)["at"])
    assert 30 <= stopped_at < STEPS
    subprocess.run([*command, f"--workdir={workdir}"], check=True, capture_output=True, timeout=300)
    expected, found = checkpoint_arrays(unbroken), checkpoint_arrays(workdir)
    assert all(expected[name].tobytes() == found[name].tobytes() for name in expected)


def test_nan_stops_with_the_step_the_windows_and_the_last_good_checkpoint(text_file, tmp_path):
    import dataclasses

    from purelm.training.launch import launch

    config = tiny_config(text_file, num_steps=40, checkpoint_every="10")
    config = dataclasses.replace(config, optimizer=OptimizerConfig(name="sgd", learning_rate=1e30, warmup="15"))
    with pytest.raises(UserError, match=r"step \d+: the loss or a gradient is not finite.*at tokens \d+.*last good"):
        launch(config, str(tmp_path / "run"), quiet=True)
    for arrays in (tmp_path / "run" / "checkpoints").glob("*"):
        assert int(arrays.name) < 40


def test_a_finished_run_has_nothing_left_to_do(unbroken, command):
    before = (unbroken / "metrics.jsonl").read_bytes()
    done = subprocess.run([*command, f"--workdir={unbroken}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "nothing left to do" in done.stderr
    assert (unbroken / "metrics.jsonl").read_bytes() == before


def test_the_first_step_of_a_start_which_is_compilation_counts_in_no_speed(text_file, tmp_path):
    from purelm.training.launch import launch

    launch(tiny_config(text_file, num_steps=3, log_every="1"), str(tmp_path / "run"), quiet=True)
    found = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["tokens_per_second"] for row in found if row["split"] == "train"]
    assert speeds[0] is None and all(speed > 0 for speed in speeds[1:]) and len(speeds) == 3
