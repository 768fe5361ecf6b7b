"""Runs trained together: each folder as if its run had been trained alone, whatever happens on the way."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_loop import checkpoint_arrays, rows, text_file, tiny_config  # noqa: F401

from purelm.config import Config, ModelConfig, TaskConfig, TrainingConfig, finalize, to_json
from purelm.tasks import task_of
from purelm.training import together
from purelm.training.launch import launch
from purelm.training.parallel import memory
from purelm.training.parallel import together as engines
from purelm.training.together import train_together

STEPS, CELLS = 24, 3
CHILD = """
import sys
from purelm.config import load_json
from purelm.training.together import train_together
folders = sys.argv[1:]
print([o.stopped_by for o in train_together([load_json(f + ".json") for f in folders], folders, quiet=False)])
"""


def configs_of(text, **training) -> list[Config]:
    """Three seeds and rates, with dropout; what is saved is what differs most."""
    values = {"num_steps": STEPS, "checkpoint_every": "8", "evaluate_every": "12", "log_every": "4", **training}
    config = tiny_config(text, **values)
    # Keys' biases have no gradient but rounding, which Adam makes steps of.
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, bias=False))
    return [dataclasses.replace(config, seed=seed, optimizer=dataclasses.replace(
        config.optimizer, learning_rate=3e-3 * (1 + seed))) for seed in range(CELLS)]


def folders(path) -> list[str]:
    return [str(path / f"run{number}") for number in range(CELLS)]


@pytest.fixture(scope="module")
def alone(text_file, tmp_path_factory) -> list[pathlib.Path]:  # noqa: F811
    paths = folders(tmp_path_factory.mktemp("alone"))
    for config, path in zip(configs_of(text_file), paths):
        launch(config, path, quiet=True)
    return [pathlib.Path(path) for path in paths]


def assert_equal(paths, alone, *, cells=range(CELLS)) -> None:
    for number in cells:
        expected, found = checkpoint_arrays(alone[number]), checkpoint_arrays(pathlib.Path(paths[number]))
        assert expected.keys() == found.keys() and int(found["at"]) == STEPS
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
        for ours, theirs in zip(rows(pathlib.Path(paths[number])), rows(alone[number]), strict=True):
            assert ours.keys() == theirs.keys() and (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
            assert [ours[name] for name in ours if name != "split"] == pytest.approx(
                [theirs[name] for name in ours if name != "split"], rel=1e-4)


def test_every_folder_is_as_of_its_own_run(text_file, alone, tmp_path):  # noqa: F811
    outcomes = train_together(configs_of(text_file), folders(tmp_path), quiet=True)
    assert_equal(folders(tmp_path), alone)
    for outcome, path, other in zip(outcomes, folders(tmp_path), alone):
        assert (outcome.step, outcome.stopped_by, outcome.error, outcome.together) == (STEPS, None, None, CELLS)
        assert outcome.seconds_per_step > 0 and outcome.memory_bytes > 0 and outcome.train_seconds > 0
        assert sorted(os.listdir(path)) == sorted(os.listdir(other))
        assert sorted(os.listdir(path + "/checkpoints")) == sorted(os.listdir(other / "checkpoints"))
    # Again: nothing is left to do, and nothing is touched.
    before = (tmp_path / "run0" / "metrics.jsonl").read_bytes()
    assert {outcome.step for outcome in train_together(configs_of(text_file), folders(tmp_path), quiet=True)} == {STEPS}
    assert (tmp_path / "run0" / "metrics.jsonl").read_bytes() == before


def test_a_leading_axis_as_on_an_accelerator(text_file, alone, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engines, "over_cells", lambda function, platform: jax.vmap(function))
    monkeypatch.setattr(engines, "make_together_engine", engines.SpreadEngine)
    train_together(configs_of(text_file), folders(tmp_path), quiet=True, devices=jax.devices()[:1])
    assert_equal(folders(tmp_path), alone)


@pytest.mark.slow
def test_devices_pmap_and_mesh():
    """Reddens where cells are mixed up, where padding cells count, or where a mean is taken over devices."""
    environment = os.environ | {"XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4",
                                "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    worker = pathlib.Path(__file__).with_name("together_worker.py")
    done = subprocess.run([sys.executable, str(worker)], env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr[-3000:]


def start_child(configs, paths):
    for config, path in zip(configs, paths):
        pathlib.Path(path + ".json").write_text(to_json(config))
    return subprocess.Popen([sys.executable, "-c", CHILD, *paths], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


def test_killed_while_saving_and_trained_on(text_file, alone, tmp_path):  # noqa: F811
    """Killed when some have a checkpoint that others lack; reddens where cells go on from different steps."""
    paths = folders(tmp_path)
    process = start_child(configs_of(text_file), paths)
    try:
        while process.poll() is None and not (tmp_path / "run0" / "checkpoints" / "16").exists():
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    outcomes = train_together(configs_of(text_file), paths, quiet=True)
    assert {outcome.step for outcome in outcomes} == {STEPS}
    assert_equal(paths, alone)


def test_a_finished_run_is_kept_and_the_others_go_on_together(text_file, alone, tmp_path):  # noqa: F811
    paths = folders(tmp_path)
    for path, other in zip(paths, alone):
        shutil.copytree(other, path)
    shutil.rmtree(tmp_path / "run1" / "checkpoints" / str(STEPS))
    shutil.rmtree(tmp_path / "run2" / "checkpoints" / str(STEPS))
    kept = (tmp_path / "run0" / "run.json").read_bytes()
    outcomes = train_together(configs_of(text_file), paths, quiet=True)
    assert [outcome.together for outcome in outcomes] == [1, 2, 2]
    assert (tmp_path / "run0" / "run.json").read_bytes() == kept
    assert_equal(paths, alone)


def test_a_signal_saves_all_and_each_goes_on_alone(text_file, alone, tmp_path):  # noqa: F811
    paths = folders(tmp_path)
    process = start_child(configs_of(text_file, checkpoint_every="1000", log_every="1"), paths)
    for line in process.stderr:
        if line.startswith("step 6/"):
            process.send_signal(signal.SIGTERM)
            break
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and eval(out.splitlines()[-1]) == [signal.SIGTERM] * CELLS
    steps = {int(checkpoint_arrays(pathlib.Path(path))["at"]) for path in paths}
    assert len(steps) == 1 and 6 <= steps.pop() < STEPS
    launch(configs_of(text_file)[1], paths[1], quiet=True)
    expected, found = checkpoint_arrays(alone[1]), checkpoint_arrays(pathlib.Path(paths[1]))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_loss_that_is_not_finite_ends_its_run_alone(text_file, alone, tmp_path):  # noqa: F811
    configs, paths = configs_of(text_file), folders(tmp_path)
    configs[1] = dataclasses.replace(configs[1], optimizer=dataclasses.replace(configs[1].optimizer,
                                                                              learning_rate=1e30))
    outcomes = train_together(configs, paths, quiet=True)
    assert "the loss or a gradient is not finite" in outcomes[1].error and outcomes[1].step < STEPS
    assert [outcome.error for outcome in outcomes[::2]] == [None, None]
    assert_equal(paths, alone, cells=(0, 2))
    assert all(row["step"] < STEPS for row in rows(pathlib.Path(paths[1])))


def test_a_folder_that_cannot_be_used_ends_its_run_alone(text_file, alone, tmp_path):  # noqa: F811
    paths = folders(tmp_path)
    pathlib.Path(paths[2]).write_text("a file")
    outcomes = train_together(configs_of(text_file), paths, quiet=True)
    assert "is a file" in outcomes[2].error and [outcome.together for outcome in outcomes] == [2, 2, 1]
    assert_equal(paths, alone, cells=(0, 1))


def test_memory_decides_how_many_go_at_once(text_file, alone, tmp_path, monkeypatch):  # noqa: F811
    needed = []
    whole = engines.TurnsEngine.memory_bytes

    def remembered(engine):
        needed.append(whole(engine))
        return needed[-1]

    monkeypatch.setattr(engines.TurnsEngine, "memory_bytes", remembered)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed[0] / together.USABLE - 1)
    outcomes = train_together(configs_of(text_file), folders(tmp_path), quiet=True)
    assert [outcome.together for outcome in outcomes] == [2, 2, 1]
    assert_equal(folders(tmp_path), alone)


@pytest.mark.slow
def test_running_out_of_memory_halves_them(text_file, alone, tmp_path, monkeypatch):  # noqa: F811
    step = engines.TurnsEngine.train_step

    def too_much(engine, states, batches):
        if len(states) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return step(engine, states, batches)

    monkeypatch.setattr(engines.TurnsEngine, "train_step", too_much)
    outcomes = train_together(configs_of(text_file), folders(tmp_path), quiet=True)
    assert [outcome.together for outcome in outcomes] == [1, 1, 1]
    assert_equal(folders(tmp_path), alone)


def finalized(task, model) -> Config:
    return finalize(Config(model=ModelConfig(**model), task=TaskConfig(name=task),
                           training=TrainingConfig(num_steps=1, batch_size=2)),
                    vocabulary_size=30, tokens_per_epoch=100, num_classes=3)


RECORDS = {
    "classification": [{"separator": 1, "text": np.array([5, 6, 7]), "label": 2},
                       {"separator": 1, "text": np.array([8]), "label": 0}],
    "tagging": [{"tokens": np.array([1, 5, 6]), "words": np.array([-1, 0, 1]), "labels": np.array([-1, 2, 1])}] * 2,
    "sequence_to_sequence": [{"source": np.array([5, 6]), "target": np.array([7, 8, 1]), "end": 1},
                             {"source": np.array([9]), "target": np.array([1]), "end": 1}],
    "dialogue": [{"ids": np.array([28, 4, 29, 5, 1]), "learned": np.array([0, 0, 0, 1, 1])}] * 2,
    "extractive_qa": [{"tokens": np.array([1, 4, 1, 5, 6, 1]), "token_types": np.zeros(6, np.int32), "begin": 3,
                       "start": 3, "end": 4}] * 2,
}
PADDED = [*(("classification", {"architecture": "encoder", "pooling": pooling})
            for pooling in ("first", "last", "mean", "max", "attention")),
          ("classification", {"architecture": "recurrent", "bidirectional": True, "pooling": "last"}),
          ("sequence_to_sequence", {"architecture": "encoder_decoder"}),
          ("sequence_to_sequence", {"architecture": "decoder", "prefix_attention": True}),
          ("sequence_to_sequence", {"architecture": "recurrent_encoder_decoder"}),
          ("tagging", {"architecture": "recurrent", "bidirectional": True}), ("dialogue", {"architecture": "decoder"}),
          ("extractive_qa", {"architecture": "encoder"})]


@pytest.mark.parametrize("task, model", PADDED)
def test_padding_to_the_longest_of_a_step_changes_nothing(task, model):
    """Reddens where zeros behind a batch are read as tokens: buckets of different length are stacked."""
    config = finalized(task, {"context_length": 12, "num_layers": 1, "width": 8, **(
        {} if model["architecture"].startswith("recurrent") else {"num_heads": 2}), **model})
    module = task_of(config)
    collate = module.RECIPE.collate if hasattr(module, "RECIPE") else module.collate
    short, long = (collate(config, RECORDS[task], length) for length in (8, 12))
    loss_sums = jax.jit(module.loss_sums, static_argnums=0)
    params = jax.jit(module.initialize, static_argnums=0)(config, jax.random.key(0))
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * draw.standard_normal(leaf.shape).astype(leaf.dtype), params)
    padded = {name: leaf[0] for name, leaf in engines.stack_batches([short, long]).items()}
    assert padded["tokens"].shape[1] == long["tokens"].shape[1]
    expected, found = (loss_sums(config, params, batch, None) for batch in (short, padded))
    assert float(expected["weight"]) > 0
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_outcomes_say_what_a_step_took(alone, text_file, tmp_path):  # noqa: F811
    outcome = launch(configs_of(text_file)[0], str(tmp_path / "run"), quiet=True, devices=jax.devices()[:1])
    assert outcome.seconds_per_step > 0 and outcome.memory_bytes > 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["devices"] == [str(jax.devices()[0])]
