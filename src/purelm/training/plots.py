"""curves.png: the losses, the learning rate and the speed of a run, from its metrics.jsonl."""

from __future__ import annotations

import pathlib
from typing import Any


def draw_curves(rows: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """Draws training and validation loss over steps, with the learning rate below. No rows, no picture."""
    rows = [row for row in rows if row["split"] in ("train", "validation") and row["loss"] is not None]
    if not rows:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for split, style in (("train", {"color": "tab:blue", "alpha": 0.6, "linewidth": 1}),
                         ("validation", {"color": "tab:orange", "marker": "o", "markersize": 4})):
        points = [(row["step"], row["loss"]) for row in rows if row["split"] == split]
        if points:
            loss_axes.plot(*zip(*points), label=f"{split} (last {points[-1][1]:.4f})", **style)
    rates = [(row["step"], row["learning_rate"]) for row in rows if row["split"] == "train"]
    if rates:
        rate_axes.plot(*zip(*rates), color="tab:gray", linewidth=1)
    loss_axes.set(ylabel="loss (nats a token)", title=title)
    loss_axes.legend()
    rate_axes.set(xlabel="step", ylabel="learning rate")
    for axes in (loss_axes, rate_axes):
        axes.grid(alpha=0.3)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
