r"""Heads of attention: one key and value for each query head, for groups of them, or one for all (Shazeer 2019; Ainslie et al. 2023).

Command: python experiments/ablate.py --ablation=configs/ablations/attention_heads.py --workdir=runs/attention_heads
"""

from purelm.ablation.spec import Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets


def base() -> Config:
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=96),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=1200, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def get_ablation() -> Ablation:
    return Ablation(title="attention_heads", source="", base=base(), rows=(Row("wider", {"model.width": 128}),),
                    metrics=(Metric("validation/loss", "loss", "lower", 4),))
