"""Process-wide settings made once, before the first computation: compilation cache, memory, several processes."""

from __future__ import annotations

import ctypes
import importlib
import os
import pathlib
import sys
import threading

from purelm.errors import UserError


def cache_folder() -> pathlib.Path:
    """Where compiled programs and tokenized data are kept: $PURELM_CACHE, else ~/.cache/purelm."""
    return pathlib.Path(os.environ.get("PURELM_CACHE") or pathlib.Path.home() / ".cache" / "purelm")


def start_jax(*, coordinator: str | None = None, num_processes: int | None = None,
              process_id: int | None = None) -> None:
    """Turns on the persistent compilation cache, and joins the other processes where there are several.

    Args:
      coordinator: host:port of process 0; None is a single process, "auto" asks the cluster (TPU pods, Slurm).
      num_processes: how many processes there are, where `coordinator` is an address.
      process_id: this one's number, from 0.

    Raises:
      UserError: "auto" where there is no cluster.
    """
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if coordinator == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise UserError(f"--coordinator=auto: no cluster was found ({error}); give host:port with --num_processes "
                            "and --process_id") from error
    elif coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes, process_id)


def import_in_background(*modules: str) -> None:
    """Starts importing modules that will be needed later, one after the other, in a thread that nothing waits for."""
    threading.Thread(target=lambda: [importlib.import_module(module) for module in modules], daemon=True).start()


def keep_memory() -> None:
    """Makes glibc keep freed memory for the process in place of giving it back; other C libraries are left alone.

    XLA's CPU backend takes its temporaries anew at every execution. From the operating system that costs a page fault
    for every 4 KiB, half of the time of a small model's training step. One arena for all threads, because the others
    return what is larger than 64 MiB whatever they are told; so call it before there are threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        m_mmap_max, m_trim_threshold, m_top_pad, m_arena_max = -4, -1, -2, -8
        for name, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 2**26), (m_arena_max, 1)):
            mallopt(name, value)
