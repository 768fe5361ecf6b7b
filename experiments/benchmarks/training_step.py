"""Step time of nanoGPT's CPU model and batch, ours over nanoGPT's, interleaved in one process."""

from __future__ import annotations

import statistics

from benchmarks.peers import CPU_RECIPE, NanoGPT, seconds

ROUNDS, STEPS = 7, 40


def measure(nanogpt: str) -> list[dict[str, object]]:
    """One row a program: median milliseconds a step over the rounds, and its ratio to nanoGPT's."""
    import jax
    import numpy as np
    import torch

    peer = NanoGPT(nanogpt, {**CPU_RECIPE, "vocab_size": 65}, learning_rate=1e-3)
    tokens = torch.randint(65, (100_000,))
    inputs, targets = peer.random_batch(tokens, 12)
    ours = {recipe: _our_step(recipe, inputs.numpy(), targets.numpy()) for recipe in ("cpu", "fast")}
    times: dict[str, list[float]] = {name: [] for name in ("nanoGPT", *ours)}
    for _ in range(ROUNDS):
        times["nanoGPT"].append(seconds(lambda: peer.step(inputs, targets, 1e-3), repeats=STEPS))
        for name, step in ours.items():
            def run(step=step):
                for _ in range(STEPS):
                    sums = step()
                jax.block_until_ready(sums)
            times[name].append(seconds(run) / STEPS)
    labels = {"cpu": "purelm, the same model (shakespeare_char:cpu)",
              "fast": "purelm_fast with Muon (shakespeare_char:fast), on the same batch"}
    return [{"program": labels.get(name, name), "ms a step": f"{statistics.median(values) * 1e3:.1f}",
             "spread": f"{min(values) * 1e3:.1f}-{max(values) * 1e3:.1f}",
             "over nanoGPT": f"{np.median(np.array(values) / np.array(times['nanoGPT'])):.2f}"}
            for name, values in times.items()]


def _our_step(recipe: str, inputs, targets):
    """A function that makes one update of the recipe's model on this batch."""
    import dataclasses

    import numpy as np

    from benchmarks.recipes import shakespeare_char
    from purelm.config import finalize
    from purelm.training.parallel import make_engine

    config = shakespeare_char(recipe)
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch_size=len(inputs), accumulation_steps=1),
        model=dataclasses.replace(config.model, context_length=inputs.shape[1]))
    config = finalize(config, vocabulary_size=65, tokens_per_epoch=10**6)
    batch = {"tokens": inputs.astype(np.int32), "targets": targets.astype(np.int32),
             "weights": np.ones(inputs.shape, np.float32), "segments": np.ones(inputs.shape, np.int32),
             "positions": np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32), inputs.shape)}
    engine = make_engine(config)
    state = engine.init(0)

    def step():
        nonlocal state
        state, sums = engine.train_step(state, batch)
        return sums

    step()
    return step
