"""Which devices there are, told without this process taking them, and what gives a worker process its own."""

from __future__ import annotations

import glob
import os
import subprocess
import sys

from purelm.errors import UserError

# The cores of a TPU chip, which have the same coordinates, count as one.
_ASK = """import jax
print(jax.default_backend(), len({tuple(getattr(device, "coords", None) or [device.id])
                                  for device in jax.local_devices()}))"""


def local_devices() -> tuple[str, int]:
    """("cpu", "gpu" or "tpu", how many), as a worker would find them.

    Another process asks JAX, and takes no memory of a GPU; where there can be no accelerator, nobody needs to.

    Raises:
      UserError: JAX finds a device that it cannot use.
    """
    driver_files = glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not (driver_files or sys.platform == "darwin"):
        return "cpu", 1
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    answer = subprocess.run([sys.executable, "-c", _ASK], env=environment, capture_output=True, text=True)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--launcher=processes: JAX cannot start on this machine's devices ({last})")
    platform, count = answer.stdout.split()[-2:]
    return ("gpu" if platform in ("cuda", "rocm", "gpu") else platform), int(count)


def available_cores() -> list[int]:
    """The processor cores that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def shares(cores: list[int], workers: int) -> list[list[int]]:
    """Each worker's cores: as even as can be, and shared where there are more workers than cores."""
    if len(cores) <= workers:
        return [[cores[number % len(cores)]] if cores else [] for number in range(workers)]
    bounds = [number * len(cores) // workers for number in range(workers + 1)]
    return [cores[start:end] for start, end in zip(bounds, bounds[1:])]


def worker_environment(platform: str, count: int, number: int, workers: int) -> dict[str, str]:
    """Environment variables by which worker `number` of `workers` sees one device alone.

    GPUs are shared where there are more workers than GPUs, each with its part of the memory. One TPU chip a process:
    JAX's and libtpu's documented variables.

    Raises:
      UserError: more workers than TPU chips, which cannot be shared.
    """
    if platform == "gpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(index) for index in range(count)]
        sharing = -(-workers // count)
        memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / sharing:.3f}"} if sharing > 1 else {}
        return {"CUDA_VISIBLE_DEVICES": names[number % count], **memory}
    if platform == "tpu":
        if workers > count:
            raise UserError(f"--workers={workers}: there are {count} TPU chips, and a chip takes one process")
        return {"TPU_VISIBLE_CHIPS": str(number), "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_BOUNDS": "1,1,1"}
    return {}
