"""A table that takes seconds, for tests of the runner; as a program, runs it and prints the summary as JSON.

usage: small_table.py FOLDER WORKERS ROWS     with commas between rows
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

from purelm.ablation.spec import Ablation, Evaluation, Metric, Row
from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig

ROWS = (Row("wide", {"model.width": 24}), Row("quick", {"optimizer.learning_rate": 0.01}))


def small_table(folder: pathlib.Path, **changes) -> Ablation:
    """Three rows with two seeds; `folder` gets the text."""
    path = pathlib.Path(folder) / "text.txt"
    if not path.exists():
        path.write_text("".join(f"{i} is {'odd' if i % 2 else 'even'}, and so is {i * 7 + i}.\n" for i in range(700)))
    base = Config(
        model=ModelConfig(context_length=16, num_layers=2, width=16, num_heads=2),
        data=DataConfig(path=str(path), tokenizer="bytes"), optimizer=OptimizerConfig(schedule="constant"),
        training=TrainingConfig(num_steps=6, batch_size=4, log_every="2", evaluate_every="3", checkpoint_every="2"))
    fields = {"title": "a small table", "source": "none", "base": base, "rows": ROWS, "seeds": 2,
              "metrics": (Metric("validation/loss", "loss", "lower"),), "evaluations": (Evaluation("validation"),)}
    return Ablation(**(fields | changes))


def main() -> None:
    from purelm.ablation import runner
    from purelm.ablation.launchers.processes import ProcessLauncher

    folder = pathlib.Path(sys.argv[1])
    summary = runner.run(small_table(folder), str(folder / "work"), rows=sys.argv[3].split(","),
                         launcher=ProcessLauncher(int(sys.argv[2])))
    print(json.dumps(dataclasses.asdict(summary)))
    sys.exit(128 + summary.stopped_by if summary.stopped_by else 0)


if __name__ == "__main__":
    main()
