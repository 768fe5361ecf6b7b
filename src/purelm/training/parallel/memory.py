"""How much memory a device has left, and what running out of it looks like."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def free_bytes(device: jax.Device) -> int | None:
    """What is not in use of an accelerator's memory, or on CPU of this machine's for each of its devices."""
    if device.platform == "cpu":
        free = _machine_bytes()
        return None if free is None else free // jax.local_device_count()
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def _machine_bytes() -> int | None:
    """By the kernel and by the control group's limit; None on a system that tells neither."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = (int((_CGROUP / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        return min(free, limit - used)
    except (OSError, ValueError):  # No such file, or "max".
        return free


def is_out_of_memory(error: Any) -> bool:
    """Whether an exception is the runtime's of an allocation that failed."""
    text = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower())
