"""Time to the first step of a command given twice: everything is cached the second time."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def measure(text_file: str | None) -> list[dict[str, object]]:
    """Seconds from process start to the first step done, first and second start, with empty caches before."""
    recipes = {"python_stdlib (quickstart)": ["--config=configs/lm/python_stdlib.py"]}
    if text_file:
        recipes["shakespeare_char:fast"] = ["--config=configs/lm/shakespeare_char.py:fast",
                                            f"--config.data.path={text_file}"]
    rows = []
    for name, arguments in recipes.items():
        with tempfile.TemporaryDirectory() as folder:
            first, second = (_seconds_to_first_step(arguments, folder) for _ in range(2))
        rows.append({"run": name, "first start, s": f"{first:.1f}", "second start, s": f"{second:.1f}",
                     "ratio": f"{second / first:.2f}"})
    return rows


def _seconds_to_first_step(arguments: list[str], folder: str) -> float:
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "experiments/train.py", *arguments, f"--workdir={folder}/run"], cwd=ROOT, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "PURELM_CACHE": f"{folder}/cache"})
    try:
        for line in process.stderr:
            if re.match("first step after", line):
                return time.perf_counter() - started
    finally:
        process.kill()
        process.wait()
    raise RuntimeError(f"{arguments}: ended before its first step")
