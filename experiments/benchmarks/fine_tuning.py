"""A step of fine-tuning BERT base as a classifier on CPU, ours over transformers' on PyTorch, in turns."""

from __future__ import annotations

import statistics

from benchmarks.peers import BertClassifier, seconds

ROWS, LENGTH, CLASSES = 8, 128, 2
ROUNDS, STEPS = 7, 3


def measure() -> list[dict[str, object]]:
    """One row a program: median milliseconds a step over the rounds, and its ratio to transformers'."""
    import jax
    import numpy as np

    draw = np.random.default_rng(0)
    tokens = draw.integers(1_000, 30_000, (ROWS, LENGTH), dtype=np.int32)
    labels = draw.integers(0, CLASSES, ROWS, dtype=np.int32)
    peer, ours = BertClassifier(CLASSES, learning_rate=2e-5), _our_step(tokens, labels)
    for _ in range(2):  # Neither's first steps count, in which memory is taken.
        peer.step(tokens, labels)
        jax.block_until_ready(ours())
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(ROUNDS):
        times["theirs"].append(seconds(lambda: peer.step(tokens, labels), repeats=STEPS))
        times["ours"].append(seconds(lambda: jax.block_until_ready(ours()), repeats=STEPS))
    labels_of = {"theirs": "transformers' BertForSequenceClassification, PyTorch's fused AdamW",
                 "ours": "purelm, the same shape"}
    return [{"program": labels_of[name], "ms a step": f"{statistics.median(values) * 1e3:.0f}",
             "spread": f"{min(values) * 1e3:.0f}-{max(values) * 1e3:.0f}",
             "over transformers": f"{np.median(np.array(values) / np.array(times['theirs'])):.2f}"}
            for name, values in times.items()]


def _our_step(tokens, labels):
    """A function that makes one update of BERT base, with dropout as released, on this batch."""
    import numpy as np

    from purelm.config import Config, DataConfig, OptimizerConfig, TaskConfig, TrainingConfig, finalize
    from purelm.config.presets import bert
    from purelm.training.parallel import make_engine

    rate = 0.1
    config = Config(
        model=bert("base", head_transform=False, head_bias=False, pooling="first", pooling_transform="tanh",
                   num_classes=CLASSES, context_length=512, embedding_dropout=rate, attention_dropout=rate,
                   residual_dropout=rate, classifier_dropout=rate),
        task=TaskConfig(name="classification"),
        data=DataConfig(format="labels"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-5, schedule="constant", weight_decay=0.01,
                                  clip_norm=1.0),
        training=TrainingConfig(num_steps=1_000, batch_size=ROWS))
    config = finalize(config, vocabulary_size=30_522, tokens_per_epoch=10**6, num_classes=CLASSES)
    batch = {"tokens": tokens, "segments": np.ones_like(tokens), "token_types": np.zeros_like(tokens),
             "labels": labels, "weights": np.ones(len(labels), np.float32)}
    engine = make_engine(config)
    state = engine.init(0)

    def step():
        nonlocal state
        state, sums = engine.train_step(state, batch)
        return sums

    return step
