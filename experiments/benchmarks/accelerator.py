"""GPT-2 124M on one accelerator: tokens/s and MFU of ours, and of nanoGPT with torch.compile where it is a GPU."""

from __future__ import annotations

import dataclasses
import statistics
import time

from benchmarks.peers import GPT2_124M, NanoGPT
from benchmarks.recipes import load

BATCH, CONTEXT, STEPS, ROUNDS = 32, 1024, 20, 3


def measure(nanogpt: str | None) -> list[dict[str, object]]:
    """One row a program; nothing where there is no accelerator."""
    import jax

    if jax.default_backend() == "cpu":
        return []
    from purelm.models.counting import flops_per_token
    from purelm.training.hardware import model_flops_utilization

    config, run = _ours()
    kind = jax.devices()[0].device_kind
    programs = {"purelm": run}
    if nanogpt and jax.default_backend() == "gpu":
        programs["nanoGPT, torch.compile"] = _nanogpt(nanogpt)
    speeds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, step in programs.items():
            started = time.perf_counter()
            step()
            speeds[name].append(BATCH * CONTEXT * STEPS / (time.perf_counter() - started))
    flops = flops_per_token(config.model, CONTEXT)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    peer = medians[list(programs)[-1]]
    return [{"program": name, "device": kind, "batch": f"{BATCH} x {CONTEXT}", "tokens/s": f"{speed:,.0f}",
             "over nanoGPT": f"{speed / peer:.2f}" if len(programs) > 1 else "-",
             "MFU": f"{model_flops_utilization(speed, flops, kind, 1) or float('nan'):.1%}"}
            for name, speed in medians.items()]


def _ours():
    import jax
    import numpy as np

    from purelm.config import finalize
    from purelm.training.parallel import make_engine

    config = load("lm/gpt2.py", "124m")
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch_size=BATCH, accumulation_steps=1))
    config = finalize(config, vocabulary_size=50257, tokens_per_epoch=10**9)
    engine = make_engine(config, devices=jax.devices()[:1])
    state = engine.init(0)
    tokens = np.random.default_rng(0).integers(0, 50257, (BATCH, CONTEXT + 1)).astype(np.int32)
    ones = np.ones((BATCH, CONTEXT), np.int32)
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": ones.astype(np.float32), "segments": ones,
             "positions": np.broadcast_to(np.arange(CONTEXT, dtype=np.int32), ones.shape)}

    def run() -> None:
        nonlocal state
        for _ in range(STEPS):
            state, sums = engine.train_step(state, batch)
        jax.block_until_ready(sums)

    run()
    return config, run


def _nanogpt(folder: str):
    import torch

    peer = NanoGPT(folder, GPT2_124M, learning_rate=6e-4, device="cuda", compiled=True)
    tokens = torch.randint(50257, (BATCH * (CONTEXT + 1) * 2,))

    def run() -> None:
        for _ in range(STEPS):
            peer.step(*batch, 6e-4)
        torch.cuda.synchronize()

    batch = peer.random_batch(tokens, BATCH)
    run()
    return run
