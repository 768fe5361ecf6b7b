"""A whole split under a model: sums over batches, divided once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from purelm.errors import UserError


def sum_batches(evaluate_step: Callable[[Any], dict[str, Any]], batches: Iterable[Any]) -> dict[str, float]:
    """The sums of `evaluate_step` over all batches, added in double precision on the host at the end."""
    import jax

    totals: dict[str, float] = {}
    for sums in jax.device_get([evaluate_step(batch) for batch in batches]):
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def metrics_of(totals: dict[str, float], *, unit: str, num_bytes: int | None) -> dict[str, float]:
    """loss (cross-entropy, nats for each `unit` of weight), perplexity where that is tokens, accuracy where the sums
    have `correct`, and bits per byte where the bytes are known.

    Bits per byte is all the nats of the split over ln 2 over its UTF-8 bytes, so that tokenizers compare.

    Raises:
      UserError: nothing weighs anything, as in a split without a record or without a label.
    """
    if not totals.get("weight"):
        raise UserError(f"config.data: the split that is evaluated has no {unit} to measure a loss on; give it "
                        "examples with answers, or make config.data.validation_fraction larger")
    loss = totals["cross_entropy"] / totals["weight"]
    metrics = {"loss": loss}
    if unit == "tokens":
        metrics["perplexity"] = math.exp(min(loss, 700.0))
    if "correct" in totals:
        metrics["accuracy"] = totals["correct"] / totals["weight"]
    if num_bytes is not None:
        metrics["bits_per_byte"] = totals["cross_entropy"] / math.log(2) / num_bytes
    return metrics
