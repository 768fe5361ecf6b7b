"""Every engine makes the same update, on simulated devices and over two processes."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from parallel_worker import ENGINES, train
from tiny import make_config

from purelm.errors import UserError
from purelm.training.parallel import make_engine

WORKER = pathlib.Path(__file__).with_name("parallel_worker.py")


def start(arguments, *, devices):
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, str(WORKER), *map(str, arguments)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(processes, timeout):
    try:
        for process in processes:
            output, _ = process.communicate(timeout=timeout)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in processes:
            process.kill()


def load(path):
    with np.load(path) as file:
        arrays = dict(file)
    results = {}
    for key, value in arrays.items():
        name, _, key = key.partition("|")
        results.setdefault(name, {})[key or name] = value
    return results


def assert_agree(expected, actual, name):
    """Mean losses, norms, evaluations and the whole state to 1e-5."""
    means = [[result["sums/loss"] / result["sums/weight"], result["sums/gradient_norm"],
              result["evaluated/loss"] / result["evaluated/weight"]] for result in (expected, actual)]
    for one, other in zip(*means):
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=name)
    assert means[0][0][-1] < means[0][0][0] - 0.02  # it did learn something
    for key in expected:
        if key.startswith(".") or key in ("sums/weight", "sums/correct", "sums/finite"):
            np.testing.assert_allclose(expected[key], actual[key], rtol=1e-5, atol=1e-5, err_msg=f"{name} {key}")


def test_engines_agree_over_20_steps_on_eight_devices(tmp_path):
    # One test, so that parallel test workers do not each train all of it. Rows weigh differently, so a mean over
    # devices of means, or a sum scaled by the devices, reddens it (SGD: Adam would hide the scale).
    path = tmp_path / "out.npz"
    finish([start([path, ",".join(ENGINES)], devices=8)], timeout=400)
    results = load(path)
    for name in ENGINES:
        assert_agree(results["single"], results[name], name)
        result = results[name]
        assert result["compiled"] == 0 and result["round trip"] and result["shapes"], name
        split = {"mesh fsdp": 4, "mesh tensor": 4, "mesh all": 4, "pmap": 8}
        assert result["split"] == split.get(name, 1), name
    assert len({tuple(key) for key in results["keys"]["keys"].tolist()}) == 8  # each device drops out by its own key


@pytest.mark.slow  # test_processes.py has two processes in `make test` too.
def test_two_processes_agree_with_one(tmp_path):
    # mesh tensor: both processes hold the same rows, so each must be given all of them.
    names = ("pmap", "mesh all", "mesh tensor")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    paths = [tmp_path / f"{number}.npz" for number in range(2)]
    finish([start([path, ",".join(names), f"localhost:{port}", 2, number], devices=2)
            for number, path in enumerate(paths)], timeout=240)
    one = train("single")
    for path in paths:
        results = load(path)
        for name in names:
            assert_agree(one, results[name], name)


@pytest.mark.parametrize("parallel", [{"fsdp": 2}, {"data": 2}, {"tensor": 3}, {"data": 2, "fsdp": 2}])
def test_more_devices_than_there_are(parallel):
    with pytest.raises(UserError, match="does not make 1, the number of devices") as caught:
        make_engine(make_config(parallel=parallel), jax.devices()[:1])
    assert "\n" not in str(caught.value)


class FakeDevices(list):
    """Stands for devices that this machine does not have: all that is checked is how many there are."""

    def __init__(self, count):
        super().__init__(jax.devices()[:1] * count)


@pytest.mark.parametrize("count, options, message", [
    (8, {"parallel": {"data": 4}}, "does not make 8"),
    (3, {}, "batch_size=16 does not divide over 3 devices .* multiple of 3, such as 15"),
    (8, {"training": {"accumulation_steps": 4}}, "multiple of 32, such as 32"),
    (3, {"parallel": {"tensor": 3}}, r"tensor=3 does not divide config\.model\.num_heads=4; a multiple, such as 6"),
    (4, {"parallel": {"tensor": 4}, "model": {"num_kv_heads": 1}}, "num_kv_heads=1"),
    (2, {"parallel": {"tensor": 2}, "model": {"vocabulary_size": 33}}, "vocabulary_size=33.*such as 34"),
    (16, {"parallel": {"fsdp": 16}, "model": {"width": 24}}, "fsdp=16 does not divide config.model.width=24"),
])
def test_sizes_that_do_not_divide(count, options, message):
    with pytest.raises(UserError, match=message) as caught:
        make_engine(make_config(**options), FakeDevices(count))
    assert "\n" not in str(caught.value)


def test_one_device_is_plain_jit_unless_asked():
    assert make_engine(make_config(), jax.devices()[:1]).name == "single"
    assert make_engine(make_config(parallel={"engine": "pmap"}), jax.devices()[:1]).name == "pmap"
    assert make_engine(make_config(parallel={"engine": "mesh"}), jax.devices()[:1]).name == "mesh"
