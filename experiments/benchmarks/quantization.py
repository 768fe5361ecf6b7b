"""Weights in fewer bits: size, speed, and what a trained run's loss becomes."""

from __future__ import annotations

import statistics
import time

from benchmarks.sampling import ROUNDS, random_params

NEW_TOKENS = 32


def measure(workdir: str | None, split: str = "validation") -> list[dict[str, object]]:
    """One row a kind: GPT-2 124M's bytes and tokens a second, batch 1; the loss of the run at `workdir` on a whole
    split, where one is given."""
    from purelm.config import presets
    from purelm.models.quantization import KINDS, quantize_params

    config = presets.gpt2("124m")
    params = random_params(config)
    kinds = {"as trained (float32)": params} | {kind: quantize_params(config, params, kind) for kind in KINDS}
    speeds = _speeds(config, kinds)
    losses = {} if workdir is None else _losses(workdir, split)
    plain = next(iter(kinds))
    rows = []
    for kind, stored in kinds.items():
        row = {"weights": kind, "GPT-2 124M, MB": f"{_bytes(stored) / 1e6:,.0f}",
               "tokens/s, batch 1": f"{speeds[kind]:,.1f}", "over float32": f"{speeds[kind] / speeds[plain]:.2f}"}
        if losses:
            row |= {f"loss, whole {split} split": f"{losses[kind]:.4f}",
                    "difference": f"{losses[kind] - losses[plain]:+.4f}"}
        rows.append(row)
    return rows


def _bytes(params: object) -> int:
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def _speeds(config: object, kinds: dict[str, object]) -> dict[str, float]:
    import jax
    import numpy as np

    from purelm.inference import Sampler, generate

    def call(params: object) -> float:
        started = time.perf_counter()
        generate(config, params, np.zeros((1, 8), np.int32), max_new_tokens=NEW_TOKENS,
                 sampler=Sampler(temperature=0.0), key=jax.random.key(0))
        return NEW_TOKENS / (time.perf_counter() - started)

    for params in kinds.values():
        call(params)
    rounds = [{kind: call(params) for kind, params in kinds.items()} for _ in range(ROUNDS)]
    return {kind: statistics.median(speeds[kind] for speeds in rounds) for kind in kinds}


def _losses(workdir: str, split: str) -> dict[str, float]:
    from purelm.evaluation.report import evaluate_run
    from purelm.models.quantization import KINDS

    losses = {}
    for kind in KINDS:
        metrics = evaluate_run(workdir, split=split, quantize=kind).metrics
        losses[kind] = metrics["loss"]
        losses["as trained (float32)"] = metrics["loss"] - metrics["quantized_loss_difference"]
    return losses
