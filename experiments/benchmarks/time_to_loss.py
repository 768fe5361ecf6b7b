"""Wall-clock to a whole-validation loss of 1.88 on tinyshakespeare: our whole command over nanoGPT's steps."""

from __future__ import annotations

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.peers import CPU_RECIPE, NanoGPT

TARGET = 1.88
ROOT = pathlib.Path(__file__).resolve().parents[2]


def measure(nanogpt: str, text_file: str, seeds: int) -> list[dict[str, object]]:
    """A row for nanoGPT, and one for each seed of ours."""
    peer_seconds, peer_steps, peer_final, peer_total = _nanogpt(nanogpt, text_file)
    bound, under = ("", "") if peer_final <= TARGET else ("over ", "under ")
    rows = [{"program": "nanoGPT, CPU recipe (its steps alone: no imports, no evaluations)", "steps": str(peer_steps),
             "seconds to 1.88": f"{bound}{peer_seconds:.1f}",
             "final validation loss": f"{peer_final:.4f} (2,000 steps, {peer_total:.1f} s)", "ratio": "1"}]
    for seed in range(seeds):
        seconds, loss, steps = _ours(text_file, seed)
        reached = loss <= TARGET
        rows.append({"program": f"train.py --config=configs/lm/shakespeare_char.py:fast, seed {seed} "
                                "(the whole command, nothing cached)",
                     "steps": str(steps), "seconds to 1.88": f"{seconds:.1f}" if reached else "not reached",
                     "final validation loss": f"{loss:.4f}",
                     "ratio": f"{under}{seconds / peer_seconds:.2f}" if reached else "-"})
    return rows


def _nanogpt(folder: str, text_file: str) -> tuple[float, int, float, float]:
    """(seconds of steps until the loss is reached, at which step, loss after 2,000 steps, seconds of those)."""
    import torch

    text = pathlib.Path(text_file).read_text(encoding="utf-8")
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens = torch.tensor([alphabet[character] for character in text])
    train, validation = tokens[: int(0.9 * len(tokens))], tokens[int(0.9 * len(tokens)):]
    peer = NanoGPT(folder, {**CPU_RECIPE, "vocab_size": len(alphabet)}, learning_rate=1e-3)
    elapsed, reached = 0.0, (math.inf, 0)
    for step in range(2000):
        started = time.perf_counter()
        peer.step(*peer.random_batch(train, 12), _nanogpt_rate(step))
        elapsed += time.perf_counter() - started
        if step >= 1000 and (step + 1) % 50 == 0 and math.isinf(reached[0]) and peer.whole_loss(validation) <= TARGET:
            reached = (elapsed, step + 1)
    final = peer.whole_loss(validation)
    return (*reached, final, elapsed) if not math.isinf(reached[0]) else (elapsed, 2000, final, elapsed)


def _nanogpt_rate(step: int) -> float:
    """Its get_lr with its CPU recipe: 100 steps of warm-up, cosine to a tenth at 2,000."""
    if step < 100:
        return 1e-3 * (step + 1) / 101
    return 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / 1900)) * 9e-4


def _ours(text_file: str, seed: int) -> tuple[float, float, int]:
    """(seconds of the whole command with empty caches, final validation loss, steps)."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / "experiments/train.py"),
             "--config=" + str(ROOT / "configs/lm/shakespeare_char.py:fast"), f"--workdir={folder}/run",
             f"--config.data.path={text_file}", f"--config.seed={seed}"],
            check=True, capture_output=True, env={**os.environ, "PURELM_CACHE": f"{folder}/cache"})
        seconds = time.perf_counter() - started
        rows = [json.loads(line) for line in pathlib.Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        last = [row for row in rows if row["split"] == "validation"][-1]
        return seconds, last["loss"], last["step"]
