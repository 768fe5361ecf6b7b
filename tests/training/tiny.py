"""A tiny run for the tests of the step: configs, and a batch whose rows weigh differently."""

from __future__ import annotations

import numpy as np

from purelm.config import Config, ModelConfig, OptimizerConfig, ParallelConfig, TrainingConfig, finalize

ROWS, LENGTH, VOCABULARY = 16, 8, 32


def make_config(*, seed=0, model=None, optimizer=None, training=None, parallel=None) -> Config:
    sizes = {"context_length": LENGTH, "num_layers": 2, "width": 16, "num_heads": 4, "scan_layers": True}
    model = sizes | (model or {})
    optimizer = {"name": "sgd", "learning_rate": 0.3, "schedule": "constant"} | (optimizer or {})
    training = {"num_steps": 20, "batch_size": ROWS} | (training or {})
    config = Config(seed=seed, model=ModelConfig(**model), optimizer=OptimizerConfig(**optimizer),
                    training=TrainingConfig(**training), parallel=ParallelConfig(**(parallel or {})))
    return finalize(config, vocabulary_size=VOCABULARY, tokens_per_epoch=1000)


def make_batch(seed: int = 0, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Row r keeps about a part (r + 1) / rows of its targets, so that a mean of means is far from the mean."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, VOCABULARY, (rows, LENGTH + 1)).astype(np.int32)
    weights = random.random((rows, LENGTH)) < np.linspace(0.1, 1, rows)[:, None]
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights.astype(np.float32),
            "segments": np.ones((rows, LENGTH), np.int32),
            "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (rows, 1))}
