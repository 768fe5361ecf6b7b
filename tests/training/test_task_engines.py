"""Networks and tasks beside the language model train the same on one device, on pmap's eight and on a mesh."""

import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.slow  # test_parallel.py has a language model of it in every run.
def test_tasks_agree_on_eight_devices():
    """Reddens when a parameter has no rule of sharding, or a task's sums are means."""
    folder = pathlib.Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(folder.parent), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, str(folder / "task_worker.py")], env=environment, text=True,
                          capture_output=True, timeout=400)
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr[-3000:]
