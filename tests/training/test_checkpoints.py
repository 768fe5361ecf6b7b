"""Each test's comment names a mutation of training/checkpoints.py or its helpers that makes it fail."""

from __future__ import annotations

import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import checkpoint_child as child
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoint_child import assert_same, state_at

from purelm.errors import UserError
from purelm.training import manifests
from purelm.training.checkpoints import Checkpoints, restore_latest, restore_params

CHILD = pathlib.Path(child.__file__)


def save(folder, *steps, keep_last=9, keep_best=False, losses=(), **kwargs):
    with Checkpoints(folder, keep_last=keep_last, keep_best=keep_best) as checkpoints:
        for step in steps:
            metrics = {"loss": losses[step]} if step in dict(losses) else None
            checkpoints.save(step, state_at(step, **kwargs), {"note": f"step {step}"}, metrics=metrics)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, 1, 2)
    return folder


@pytest.fixture
def two_steps(saved, tmp_path):
    """A folder of good checkpoints 1 and 2, to be damaged."""
    return pathlib.Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def files_of(step_folder):
    return sorted(path for path in step_folder.rglob("*") if path.is_file())


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def restore(folder, abstract=None):
    warnings = []
    restored = restore_latest(folder, abstract or state_at(0), warn=warnings.append)
    return restored, warnings


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def masked_optimizer():
    labels = {"embedding": {"embedding": "adam"}, "layers": {"up": {"kernel": "momentum", "bias": "frozen"}}}
    return optax.partition({"adam": optax.adamw(1e-3, mu_dtype=jnp.bfloat16), "frozen": optax.set_to_zero(),
                            "momentum": optax.trace(0.9)}, labels)


@pytest.mark.parametrize("optimizer", [
    optax.adamw(1e-3), optax.adafactor(1e-3, min_dim_size_to_factor=4), optax.sgd(1e-3), masked_optimizer()],
    ids=["adamw", "adafactor", "sgd", "masked"])
@pytest.mark.parametrize("ema", [False, True])
def test_round_trip_is_bit_for_bit(tmp_path, optimizer, ema):
    # Reddens when a leaf is cast, an item is left out, or None and empty nodes are confused with leaves.
    state = state_at(3, optimizer=optimizer, ema=ema)
    with Checkpoints(tmp_path, keep_last=1, keep_best=False) as checkpoints:
        assert checkpoints.restore_latest(state) is None
        checkpoints.save(3, state, {"batch_size": 8}, metrics={"loss": 1.5})
    restored, warnings = restore(tmp_path, jax.eval_shape(lambda: state))
    assert_same(restored.state, state)
    assert (restored.step, restored.metadata["batch_size"], restored.metadata["step"], warnings) == (3, 8, 3, [])
    assert restored.metadata["versions"]["jax"] == jax.__version__
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored.state))


def test_odd_leaves(tmp_path):
    # Reddens when arrays of size zero (which Orbax refuses), numpy scalars or None are mishandled.
    params = {"integers": jnp.arange(5, dtype=jnp.uint32), "none": None, "nothing": {},
              "zero": np.zeros((0, 3), np.int8), "scalar": np.float64(0.1),
              "flag": np.asarray(True), "tuple": (np.ones(2, np.int16), ())}
    state = child.TrainState(np.int32(1), params, optax.EmptyState(), {"only": np.zeros((0,), np.float32)})
    with Checkpoints(tmp_path, keep_last=1, keep_best=False) as checkpoints:
        checkpoints.save(1, state)
    assert_same(restore(tmp_path, state)[0].state, state)


def test_donating_the_state_after_save_is_safe(tmp_path):
    # Reddens when save returns before the arrays are copied off the device.
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    state = child.TrainState(jnp.int32(0), {"kernel": jnp.zeros((500, 1000))}, optax.EmptyState(), None)
    with Checkpoints(tmp_path, keep_last=9, keep_best=False) as checkpoints:
        for number in range(1, 4):
            state = step(state)
            checkpoints.save(number, state)
            for _ in range(3):
                state = step(state)
        for number in range(1, 4):
            checkpoints.wait()
            kernel, _ = restore_params(tmp_path, number)
            np.testing.assert_array_equal(kernel["kernel"], np.float32(4 * number - 3))


def test_keeps_the_last_and_the_best(tmp_path):
    # Reddens when the best counts among the last, when a NaN is the best, or when the highest loss is.
    losses = {1: float("nan"), 2: 3.0, 3: 1.0, 4: 2.0, 6: 5.0}
    save(tmp_path, *range(1, 8), keep_last=2, keep_best=True, losses=losses)
    assert sorted(os.listdir(tmp_path)) == ["3", "6", "7"]
    assert (manifests.all_steps(tmp_path), manifests.latest_step(tmp_path), manifests.best_step(tmp_path)) == (
        [3, 6, 7], 7, 3)
    save(tmp_path, 8, keep_last=1, keep_best=False)
    assert os.listdir(tmp_path) == ["8"]


def test_a_flipped_bit_in_any_file(two_steps):
    # Reddens when checksums are not compared, or when a file of an item is left out of the manifest.
    items = ("params", "optimizer", manifests.MANIFEST)
    files = files_of(two_steps / "2")
    assert len(files) > 20
    for path in files:
        whole = path.read_bytes()
        flip(path, random.Random(path.name).randrange(8 * len(whole)))
        name = path.relative_to(two_steps / "2").as_posix()
        restored, warnings = restore(two_steps)
        if name.startswith(items):
            assert restored.step == 1 and len(warnings) == 1, name
            assert name in warnings[0] and "using checkpoint 1 instead" in warnings[0] and "\n" not in warnings[0]
        else:  # Orbax's bookkeeping, never read: the checkpoint is as good as before
            assert restored.step == 2 and name in ("_CHECKPOINT_METADATA", "commit_success.txt")
        assert_same(restored.state, state_at(restored.step))
        path.write_bytes(whole)
    assert restore(two_steps)[0].step == 2


def test_a_flipped_bit_anywhere_in_the_manifest(two_steps):
    # Reddens when the manifest's own checksum does not cover its whole content.
    path = two_steps / "2" / manifests.MANIFEST
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 97):
        flip(path, bit)
        with pytest.raises(manifests.DamageError):
            manifests.read_manifest(path.parent)
        path.write_bytes(whole)


def truncate(folder):
    path = max(files_of(folder / "params"), key=lambda path: path.stat().st_size)
    os.truncate(path, path.stat().st_size - 1)
    return path.relative_to(folder).as_posix()


def remove_a_file(folder):
    path = files_of(folder / "optimizer")[0]
    path.unlink()
    return path.relative_to(folder).as_posix()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return manifests.MANIFEST


def remove_the_manifest(folder):
    (folder / manifests.MANIFEST).unlink()
    return manifests.MANIFEST


def copy_of_another_step(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)
    return manifests.MANIFEST


@pytest.mark.parametrize("damage", [truncate, remove_a_file, empty, remove_the_manifest, copy_of_another_step])
def test_damage_falls_back_one_step(two_steps, damage):
    # Reddens when a step counts by the name of its folder.
    name = damage(two_steps / "2")
    restored, warnings = restore(two_steps)
    assert restored.step == 1 and len(warnings) == 1 and f"2 ({name}: " in warnings[0]
    assert_same(restored.state, state_at(1))
    assert manifests.latest_step(two_steps) == 1


def test_all_damaged_is_an_error(two_steps):
    # Reddens when training would start again from nothing beside damaged checkpoints.
    for step in ("1", "2"):
        truncate(two_steps / step)
    with pytest.raises(UserError, match=r"damaged: 2 \(params/.*, 1 \(params/.*delete the folder") as error:
        restore(two_steps)
    one_line(error)


def test_a_damaged_step_is_saved_again(two_steps):
    # Reddens when saving refuses a step whose folder exists, or when damaged steps count among those kept.
    flip(max(files_of(two_steps / "2" / "params"), key=lambda path: path.stat().st_size), 1000)
    with Checkpoints(two_steps, keep_last=2, keep_best=False, warn=lambda line: None) as checkpoints:
        assert checkpoints.restore_latest(state_at(0)).step == 1
        assert checkpoints.latest_step() == 1
        assert not checkpoints.save(1, state_at(5))
        assert checkpoints.save(2, state_at(2))
        checkpoints.wait()
        assert checkpoints.all_steps() == [1, 2]
    assert_same(restore(two_steps)[0].state, state_at(2))
    flip(max(files_of(two_steps / "2" / "params"), key=lambda path: path.stat().st_size), 1000)
    with Checkpoints(two_steps, keep_last=2, keep_best=False, warn=lambda line: None) as checkpoints:
        checkpoints.restore_latest(state_at(0))
        checkpoints.save(3, state_at(3))
    assert sorted(os.listdir(two_steps)) == ["1", "3"]


def test_parameters_alone(tmp_path):
    # Reddens when parameters need the optimizer's files, or when the average or the best is not the one taken.
    save(tmp_path, 1, 2, ema=True, losses={1: 1.0, 2: 2.0})
    for step in ("1", "2"):
        shutil.rmtree(tmp_path / step / "optimizer")
    with pytest.raises(UserError):
        restore(tmp_path, state_at(0, ema=True))
    average, step = restore_params(tmp_path)
    assert step == 2
    assert_same(average, state_at(2, ema=True).ema)
    params, _ = restore_params(tmp_path, prefer_ema=False, shapes=state_at(0).params)
    assert_same(params, state_at(2).params)
    average, _ = restore_params(tmp_path, "1", shapes=state_at(0).params)
    assert_same(average, state_at(1, ema=True).ema)


def test_which_parameters(tmp_path, two_steps):
    # Reddens when "best" is the latest, or when a wrong word or step is not a one-line error.
    save(two_steps, 3, 4, 5, losses={3: 2.0, 4: 1.0})
    assert restore_params(two_steps, "best")[1] == 4
    truncate(two_steps / "4")
    warnings = []
    assert restore_params(two_steps, "best", warn=warnings.append)[1] == 3
    for which, message in [("bets", "did you mean 'best'"), (7, "no checkpoint 7 in .*there are: 1, 2, 3, 4, 5"),
                           (4, r"damaged: 4 \(params/")]:
        with pytest.raises(UserError, match=message) as error:
            restore_params(two_steps, which)
        one_line(error)
    with pytest.raises(UserError, match="there is no checkpoint in"):
        restore_params(tmp_path / "nowhere")


def test_a_relative_folder(two_steps, monkeypatch):
    # Reddens when Orbax is given the folder as it was typed, since it takes absolute ones alone.
    monkeypatch.chdir(two_steps.parent)
    assert restore_params(two_steps.name)[1] == 2 == restore(two_steps.name)[0].step


@pytest.mark.parametrize("other, message", [
    (dict(width=24), r"parameter 'embedding/embedding' is float32\[32, 16\] there and float32\[32, 24\] here"),
    (dict(optimizer=optax.sgd(1, momentum=0.9)), r"optimizer state 'opt_state/0/count' is int32\[\] there and missing"),
    (dict(ema=True), "averaged parameter 'embedding/embedding' is missing there")])
def test_a_checkpoint_of_another_model_is_an_error(two_steps, other, message):
    # Reddens when a foreign checkpoint counts as damage (older ones would be tried) or when Orbax reshapes it silently.
    with pytest.raises(UserError, match=message) as error:
        restore(two_steps, state_at(0, **other))
    one_line(error)


def test_other_dtypes_are_not_cast(two_steps):
    # Reddens when Orbax's silent cast is let through.
    state = state_at(0)
    state.params["layers"]["up"]["kernel"] = state.params["layers"]["up"]["kernel"].astype(jnp.bfloat16)
    with pytest.raises(UserError, match=r"'layers/up/kernel' is float32\[2, 16, 8\] there and bfloat16\[2, 16, 8\]"):
        restore(two_steps, state)
    with pytest.raises(UserError, match="'layers/up/kernel'"):
        restore_params(two_steps, shapes=state.params)


def test_a_checkpoint_with_an_average_needs_a_run_with_one(tmp_path):
    # Reddens when the running average is dropped silently on resuming.
    save(tmp_path, 1, ema=True)
    with pytest.raises(UserError, match="ema_decay"):
        restore(tmp_path)


def start(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, str(CHILD), *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            env=environment)


def kill_and_restore(folder, kills, seed):
    delays, finished = random.Random(seed), -1
    for _ in range(kills):
        process = start("loop", folder)
        process.stdout.readline()  # the first save is under way
        time.sleep(delays.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
        steps = [int(line.split()[1]) for line in process.stdout.read().splitlines() if line.startswith("finished")]
        process.wait()
        finished = max([finished, *steps])
        restored, warnings = restore(folder)
        assert not warnings  # an unfinished save is no damage
        if restored is None:
            assert finished == -1
        else:
            assert restored.step >= finished
            assert_same(restored.state, state_at(restored.step))
    assert finished > 0
    Checkpoints(folder, keep_last=2, keep_best=False).close()
    assert all(name.isdecimal() for name in os.listdir(folder))  # nothing unfinished is left


def test_kill_at_random_moments(tmp_path):
    # Reddens when a step appears before its manifest, or when older ones are deleted before the new one is finished.
    kill_and_restore(tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_kill_twenty_times(tmp_path):
    kill_and_restore(tmp_path, kills=20, seed=1)


def test_other_numbers_of_devices(tmp_path):
    # Reddens when the sharding that was saved is used instead of the one asked for.
    save(tmp_path, 1)
    assert start("devices", tmp_path).wait() == 0
    restored, _ = restore(tmp_path)
    assert restored.step == 2
    assert_same(restored.state, state_at(2))
    on_device, _ = restore(tmp_path, child.abstract(state_at(2), jax.devices()[:1]))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(on_device.state))
    assert_same(on_device.state, state_at(2))


@pytest.mark.slow
def test_two_processes(tmp_path):
    # Reddens when both processes write manifests or choose a step by themselves.
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [start("two", tmp_path, address, index) for index in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert manifests.all_steps(tmp_path) == [1, 2, 4]
    assert_same(restore(tmp_path)[0].state, state_at(4))


def test_a_full_disk_is_one_line_and_leaves_nothing(two_steps):
    # Reddens when the error of a background write is lost, or when what it left stays.
    big = child.TrainState(np.int32(3), {"kernel": np.random.default_rng(0).normal(size=(200, 1000))}, (), None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(two_steps, keep_last=9, keep_best=False) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # writes past this fail as on a full disk
        try:
            with pytest.raises(UserError, match="cannot write checkpoint 3 to .*; checkpoint 2 is still good") as error:
                checkpoints.save(3, big)
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        one_line(error)
        assert sorted(os.listdir(two_steps)) == ["1", "2"]
        assert checkpoints.save(3, big)  # there is room again
    assert manifests.all_steps(two_steps) == [1, 2, 3]


def test_a_manifest_that_cannot_be_written_is_no_checkpoint(two_steps, monkeypatch):
    # Reddens when a failing manifest is passed over and the step appears without one.
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifests, "write_manifest", full)
    with Checkpoints(two_steps, keep_last=1, keep_best=False) as checkpoints:
        checkpoints.save(3, state_at(3))
        with pytest.raises(UserError, match="No space left on device; checkpoint 2 is still good"):
            checkpoints.wait()
        assert sorted(os.listdir(two_steps)) == ["1", "2"]


def test_the_first_error_is_not_hidden_by_a_failing_save(tmp_path, monkeypatch):
    # Reddens when leaving the `with` statement raises over the error that is under way.
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifests, "write_manifest", full)
    warnings = []
    with pytest.raises(ZeroDivisionError):
        with Checkpoints(tmp_path, keep_last=1, keep_best=False, warn=warnings.append) as checkpoints:
            checkpoints.save(1, state_at(1))
            raise ZeroDivisionError
    assert len(warnings) == 1 and "there is no good checkpoint" in warnings[0]


def test_an_unwritable_folder_is_one_line(tmp_path):
    # Reddens when the folder is only touched by the first save, minutes into a run.
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write checkpoints to .*file/checkpoints: Not a directory") as error:
        Checkpoints(tmp_path / "file" / "checkpoints", keep_last=1, keep_best=False)
    one_line(error)


def test_reading_which_steps_are_good_needs_no_jax():
    # Reddens when manifests.py, or a package above it, imports something heavy.
    program = "import sys, purelm.training.manifests; assert not {'jax', 'orbax'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
