r"""Python programs from their beginning: HumanEval's 164 problems (Chen et al. 2021, arXiv 2107.03374), in a sandbox.

Trained on the running interpreter's own library (or on the folder's train files, where it has any): 11 MB, of which a
model of 4 M parameters learns Python's form and next to nothing of solving problems. The paper's smallest model (12 M
parameters, 100 billion tokens) passes 2.0 % at first try; expect 0 here. What differs between small models is the
solutions' bits per byte, which evaluate.py prints beside pass@k.

Measured for 400 steps, 9 minutes on one core: docs/results/systems.md. The whole takes under an hour.
Command: python experiments/train.py --config=configs/code/humaneval.py --workdir=runs/humaneval \
             --config.data.path=humaneval
         python experiments/evaluate.py --workdir=runs/humaneval --split=test
"""

from purelm.config import (
    Config,
    DataConfig,
    DecodingConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    as_flag,
    presets,
)


def get_config():
    return as_flag(Config(
        model=presets.purelm_fast(context_length=512, width=192, num_heads=3, feed_forward_width=512),
        task=TaskConfig(name="code_generation"),
        data=DataConfig(path="humaneval", tokenizer="bpe", tokenizer_vocabulary_size=4096, test_fraction=0.0),
        optimizer=OptimizerConfig(name="muon", learning_rate=0.01, schedule="wsd", warmup="10", decay="80%", beta1=0.8,
                                  beta2=0.95, momentum=0.9, nesterov=True, adam_learning_rate=0.012,
                                  learning_rate_rules=(("embedding/embedding", 0.09), (".*", 1.0))),
        training=TrainingConfig(num_steps=2000, batch_size=8, log_every="20", evaluate_every="500",
                                checkpoint_every="500"),
        decoding=DecodingConfig(max_new_tokens=192, temperature=0.8, num_samples=10)))
