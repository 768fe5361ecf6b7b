"""Eight seeds of a model of 1M parameters: trained together over eight separate commands, one after another.

Together in one process, and divided over one process a core, as ablate.py --launcher=processes --workers=CORES does.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, to_json, validate

SEEDS = 8
SIDES = ("separate", "together", "divided")
ROOT = pathlib.Path(__file__).resolve().parents[2]
TOGETHER = """
import os, sys
if sys.argv[1]:
    os.sched_setaffinity(0, {int(sys.argv[1])})
from purelm.runtime import keep_memory
keep_memory()
from purelm.config import load_json
from purelm.training.together import train_together
paths = sys.argv[2:]
outcomes = train_together([load_json(path + ".json") for path in paths], paths, quiet=True)
assert all(outcome.error is None for outcome in outcomes), outcomes
"""


def measure(text_file: str | None, all_steps: tuple[int, ...]) -> list[dict[str, object]]:
    """A row for each number of steps with nothing cached, and one more with programs and data cached.

    The separate runs share a cache, as a user's do; each side starts from an empty one, and is then timed again.
    """
    rows = []
    for steps in all_steps:
        with tempfile.TemporaryDirectory() as folder:
            for cached in (False, True):
                separate, together, divided = (_timed(folder, side, steps, text_file) for side in SIDES)
                first, *others = (_losses(folder, side) for side in SIDES)
                differences = [max(abs(a - b) for a, b in zip(first, found)) for found in others]
                rows.append({"steps": str(steps), "cache": "filled" if cached else "empty",
                             "8 commands, s": f"{separate:.1f}", "together, s": f"{together:.1f}",
                             "ratio": f"{together / separate:.2f}", "losses differ by": f"{differences[0]:.1e}",
                             "a process a core, s": f"{divided:.1f}", "its ratio": f"{divided / separate:.2f}",
                             # Of one core instead of all: rounded otherwise, which Adam makes larger step by step.
                             "its losses differ by": f"{differences[1]:.1e}"})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def config_of(steps: int, seed: int, text_file: str | None) -> Config:
    """4 layers x 128 on 1,024 byte-pair tokens, 16 x 64 tokens a step; text_file None is the interpreter's library."""
    where = {"source": "python_stdlib"} if text_file is None else {"path": text_file}
    return validate(Config(
        seed=seed, model=ModelConfig(num_layers=4, width=128, num_heads=4, context_length=64),
        data=DataConfig(tokenizer="bpe", tokenizer_vocabulary_size=1024, **where),
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-3, warmup="10%", weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=steps, batch_size=16, log_every="10%", evaluate_every="50%",
                                evaluate_batches=20, checkpoint_every="50%")))


def _timed(folder: str, side: str, steps: int, text_file: str | None) -> float:
    paths = _paths(folder, side)
    for seed, path in enumerate(paths):
        subprocess.run(["rm", "-rf", path], check=True)
        pathlib.Path(f"{path}.json").write_text(to_json(config_of(steps, seed, text_file)), encoding="utf-8")
    environment = {**os.environ, "PURELM_CACHE": f"{folder}/cache-{side}"}
    started = time.perf_counter()
    if side == "separate":
        for path in paths:
            subprocess.run([sys.executable, "experiments/train.py", f"--config={path}.json", f"--workdir={path}"],
                           cwd=ROOT, env=environment, check=True, capture_output=True)
        return time.perf_counter() - started
    cores = [str(core) for core in sorted(os.sched_getaffinity(0))] if side == "divided" else [""]
    processes = [subprocess.Popen([sys.executable, "-c", TOGETHER, core, *paths[number::len(cores)]], cwd=ROOT,
                                  env=environment) for number, core in enumerate(cores)]
    assert not any([process.wait() for process in processes])
    return time.perf_counter() - started


def _paths(folder: str, side: str) -> list[str]:
    return [f"{folder}/{side}-{seed}" for seed in range(SEEDS)]


def _losses(folder: str, side: str) -> list[float]:
    """The last validation loss of each seed."""
    found = []
    for path in _paths(folder, side):
        rows = [json.loads(line) for line in pathlib.Path(path, "metrics.jsonl").read_text().splitlines()]
        found.append([row["loss"] for row in rows if row["split"] == "validation"][-1])
    return found
