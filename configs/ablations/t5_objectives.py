r"""Raffel et al. 2020, arXiv 1910.10683, Table 2: architectures and pretraining objectives, then one task.

Command: python experiments/ablate.py --ablation=configs/ablations/t5_objectives.py --workdir=runs/t5_objectives
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
    return Ablation(title="t5_objectives", source="", base=base(), rows=(Row("wider", {"model.width": 128}),),
                    metrics=(Metric("validation/loss", "loss", "lower", 4),))
