r"""GPT-2 (Radford et al. 2019) trained from scratch on any text; nanoGPT's config/train_gpt2.py is the recipe.

Argument: 124m (default), 355m, 774m or 1.5b. nanoGPT's README: 124m on OpenWebText, 600,000 steps of 0.5 M tokens,
validation loss 2.85, 4 days on 8 A100. Needs accelerators: not measured here. A micro-batch holds batch_size /
accumulation_steps windows over all devices: on one GPU of 80 GB raise accumulation_steps to 15.

Command: python experiments/train.py --config=configs/lm/gpt2.py:124m --workdir=runs/gpt2 \
             --config.data.path='text/*.txt'
"""

import dataclasses

from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, as_flag, presets


def get_config(size: str = "124m"):
    # 50,304 rows: a multiple of 128, which tensor cores want; 50,257 is what the tokenizer may use of them.
    model = dataclasses.replace(presets.gpt2(size), vocabulary_size=50304, bias=False, compute_dtype="bfloat16",
                                initialization="gpt2")
    return as_flag(Config(
        model=model,
        data=DataConfig(tokenizer="bpe", tokenizer_vocabulary_size=50257, packing="stream", validation_fraction=0.0005,
                        test_fraction=0.0005),
        optimizer=OptimizerConfig(name="adamw", learning_rate=6e-4, schedule="cosine", warmup="2000",
                                  final_fraction=0.1, beta2=0.95, weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=600_000, batch_size=480, accumulation_steps=5, log_every="10",
                                evaluate_every="1000", checkpoint_every="1000", evaluate_batches=200)))
