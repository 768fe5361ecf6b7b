"""Whole runs on other devices, engines and numbers of processes: the same losses, also after a resume."""

import json
import os
import pathlib
import random
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARGUMENTS = [
    f"--config={ROOT}/configs/lm/shakespeare_char.py:cpu", "--config.model.num_layers=1", "--config.model.width=16",
    "--config.model.num_heads=2", "--config.model.context_length=16", "--config.model.vocabulary_size=12",
    "--config.training.batch_size=8",
    "--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.3", "--config.optimizer.weight_decay=0",
    "--config.optimizer.schedule=constant", "--config.optimizer.warmup=0", "--config.training.log_every=2",
    "--config.training.evaluate_every=5", "--config.training.checkpoint_every=10"]
EIGHT = {"XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"}
MESH = ["--config.parallel.engine=mesh", "--config.parallel.fsdp=2", "--config.parallel.tensor=2"]


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    generator = random.Random(0)
    path.write_text(" ".join(generator.choice(["to", "be", "or", "not", "that", "is"]) for _ in range(3000)))
    return [sys.executable, str(ROOT / "experiments/train.py"), *ARGUMENTS, f"--config.data.path={path}"]


def start(command, workdir, steps: int, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen([*command, f"--workdir={workdir}", f"--config.training.num_steps={steps}", *arguments],
                            env={**os.environ, **environment}, text=True, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE)


def finish(*processes: subprocess.Popen) -> None:
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), errors


def losses(workdir) -> dict[tuple[str, int], float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {(row["split"], row["step"]): row["loss"] for row in rows}


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory) -> dict[tuple[str, int], float]:
    """20 steps in one process on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(command, workdir, 20))
    return losses(workdir)


def assert_agree(found, expected) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-5), key
    assert expected["train", 20] < expected["train", 2] - 0.3


@pytest.mark.slow  # test_parallel.py has the engines, and two processes, in every run.
def test_a_run_goes_on_with_another_engine_on_other_devices(command, alone, tmp_path):
    """Reddens when a restored state is not what the other engine would hold, or evaluation counts padding."""
    finish(start(command, tmp_path / "run", 10, "--config.parallel.engine=pmap", **EIGHT))
    finish(start(command, tmp_path / "run", 20, *MESH, **EIGHT))
    assert_agree(losses(tmp_path / "run"), alone)


@pytest.mark.parametrize("arguments", [pytest.param([], id="pmap"),
                                       pytest.param(MESH, id="mesh", marks=pytest.mark.slow)])
def test_two_processes_train_and_resume_as_one(arguments, command, alone, tmp_path):
    """Reddens when processes disagree on a batch, a best loss or a checkpoint (they then wait for each other)."""
    devices = {"XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"}
    for steps in (10, 20):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        finish(*[start(command, tmp_path / "run", steps, *arguments, f"--coordinator=localhost:{port}",
                       "--num_processes=2", f"--process_id={number}", **devices) for number in range(2)])
    assert_agree(losses(tmp_path / "run"), alone)


@pytest.mark.slow
def test_two_processes_write_word_vectors_once(command, tmp_path):
    """Reddens when one process alone restores a checkpoint, which all must agree on: it then waits for ever."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [*command[:2], f"--config={ROOT}/configs/word_vectors/skip_gram.py", "--config.model.width=8",
             "--config.model.context_length=16", "--config.word_vectors.minimum_count=1",
             "--config.word_vectors.subsample=0", "--config.training.num_epochs=none",
             "--config.training.batch_size=8", command[-1]]
    finish(*[start(words, tmp_path / "run", 4, f"--coordinator=localhost:{port}", "--num_processes=2",
                   f"--process_id={number}") for number in range(2)])
    assert (tmp_path / "run" / "vectors.txt").read_text().startswith("6 8\n")
