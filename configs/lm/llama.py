r"""Llama-shaped models (Touvron et al. 2023; Llama 3, 2024) trained from scratch on any text.

Argument: tiny (15 M parameters, default), 160m, 1b (TinyLlama's shape) or 8b (Llama 3 8B's shape). The recipe is Llama
2's (AdamW, beta2 0.95, decay 0.1, clipping at 1, cosine to a tenth) at 0.5 M tokens an update. No published number at
these data sizes is claimed; needs accelerators, and was not measured here.

Command: python experiments/train.py --config=configs/lm/llama.py:160m --workdir=runs/llama \
             --config.data.path='text/*.txt' --config.training.num_tokens=3e9
"""

import dataclasses

from purelm.config import Config, DataConfig, OptimizerConfig, ParallelConfig, TrainingConfig, as_flag, choose, presets

# (peak rate, whether parameters are split over the devices and layers recomputed)
SIZES = {"tiny": (1e-3, False), "160m": (6e-4, False), "1b": (4e-4, True), "8b": (3e-4, True)}
TOKENS_AN_UPDATE = 2**19


def get_config(size: str = "tiny"):
    rate, large = choose(SIZES, size)
    model = dataclasses.replace(presets.llama(size), compute_dtype="bfloat16", scan_layers=large,
                                remat="full" if large else "none")
    return as_flag(Config(
        model=model,
        data=DataConfig(tokenizer_vocabulary_size=model.vocabulary_size, validation_fraction=0.001,
                        test_fraction=0.001),
        optimizer=OptimizerConfig(name="adamw", learning_rate=rate, schedule="cosine", warmup="1%", final_fraction=0.1,
                                  beta2=0.95, weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_tokens=3_000_000_000, batch_size=TOKENS_AN_UPDATE // model.context_length,
                                accumulation_steps=8, evaluate_batches=200, loss_chunk=8192 if large else None),
        parallel=ParallelConfig(fsdp=8 if large else 1)))
