"""The rows of metrics.jsonl, and what is said of a loss that is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import Config
from purelm.training.metrics import read_rows
from purelm.training.run_folder import RunFolder
from purelm.training.schedules import learning_rate_at


def first_not_finite(steps: Sequence[tuple[int, Mapping[str, Any]]]) -> int | None:
    """The first of these steps, each with its sums on the host, whose update was skipped."""
    return next((step for step, sums in steps if not float(sums["finite"])), None)


def train_row(config: Config, steps: Sequence[tuple[int, Mapping[str, Any]]], *, unit: str, speed: float | None,
              utilization: float | None) -> dict[str, float | None]:
    """The row of these steps: means over what they weigh, and the norm and the rate of the last.

    Args:
      config: finalized.
      steps: (number, its sums on the host).
      unit: what weights count.
      speed: units a second, or None where no time was measured.
      utilization: model FLOPs utilization, or None.
    """
    import jax

    total = {name: sum(float(sums[name]) for _, sums in steps) for name in steps[0][1]}
    weight = total["weight"]
    row: dict[str, float | None] = {"loss": total["cross_entropy"] / weight}
    if "correct" in total:
        row["accuracy"] = total["correct"] / weight
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # So that it does not wait for the steps.
        rate = float(learning_rate_at(config, steps[-1][0] - 1))
    row |= {"objective": total["loss"] / weight, "gradient_norm": float(steps[-1][1]["gradient_norm"]),
            "learning_rate": rate, f"{unit}_per_second": speed}
    return row if utilization is None else row | {"mfu": utilization}


def best_loss(folder: RunFolder, step: int) -> float:
    """The lowest validation loss up to a step; infinity where there is none."""
    return min((row["loss"] for row in read_rows(folder.metrics) if row["split"] == "validation"
                and row["step"] <= step and row["loss"] is not None), default=float("inf"))


def not_finite(data: Any, config: Config, step: int, good: int | None) -> str:
    """What a person is told of a step whose loss or gradient is not finite; `good` is the newest checkpoint's step."""
    return (f"step {step}: the loss or a gradient is not finite, so training stopped; its batch is "
            f"{data.locate(config, step - 1)}; the last good checkpoint is "
            f"{'none' if good is None else f'step {good}'}; try a smaller config.optimizer.learning_rate, or "
            "config.optimizer.clip_norm=1.0")
