"""Python source: the running interpreter's own standard library, which every machine has (the quickstart).

A purelm_fast model of 1.3 M parameters on 2,048 byte-pair tokens; 90 % of the files to train on, 5 % each to validate
and test, by a hash of their text. To beat on the held-out files: gzip -9 and xz -9 (evaluate.py --compressors).

Measured: see docs/results/language_models.md. Takes about 3 minutes on 2 cores.
Command: python experiments/train.py --config=configs/lm/python_stdlib.py --workdir=runs/quickstart
"""

from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, as_flag, presets


def get_config():
    return as_flag(Config(
        model=presets.purelm_fast(context_length=256),
        data=DataConfig(source="python_stdlib", tokenizer="bpe", tokenizer_vocabulary_size=2048),
        optimizer=OptimizerConfig(name="muon", learning_rate=0.0135, schedule="wsd", warmup="5", decay="80%", beta1=0.8,
                                  beta2=0.95, momentum=0.9, nesterov=True, adam_learning_rate=0.015,
                                  learning_rate_rules=(("embedding/embedding", 0.088), (".*", 1.0))),
        training=TrainingConfig(num_steps=1600, batch_size=8, log_every="20", evaluate_every="400",
                                checkpoint_every="400")))
