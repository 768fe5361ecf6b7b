r"""SGD, Adam, AdamW, AdaBelief, Adafactor, Lion and Muon, each at the best of its learning rates.

No single paper has this table. Expected, after Jordan et al. 2024 (Muon; modded-nanogpt: 3,250 steps where Adam takes
5,625), Chen et al. 2023 (Lion, arXiv 2302.06675: at least AdamW) and Zhang et al. 2020 (arXiv 1912.03194: SGD far
behind on Transformers): Muon, then the Adam family, Lion and Adafactor close together, SGD last.
The search trains each rate with a seed of its own, so that the choice does not flatter the seeds that are reported.
Here: a language model of Shakespeare's characters, 3 layers x 96, 600 steps: early training, where Muon is strongest.
Weight decay is decoupled and times the rate: 0.1, but 1.0 for Lion, whose rates are a tenth (its paper, section 5), and
none for Adam and SGD.
Takes: 7 rows x (5 or 6 rates + 3 seeds), about 20 seconds a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/optimizers.py --workdir=runs/optimizers \
             --config.data.path=input.txt
"""

from purelm.ablation.spec import Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

RATE = "optimizer.learning_rate"
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3)  # Of Adam and its kin.


def base() -> Config:
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=96),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="50", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=600, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def row(name: str, label: str, rates: tuple[float, ...], **changes: object) -> Row:
    return Row(name, {"optimizer.name": name} | {f"optimizer.{field}": value for field, value in changes.items()},
               label, search={RATE: rates})


def get_ablation() -> Ablation:
    return Ablation(
        title="Optimizers, each at its best learning rate",
        source="order expected from Jordan et al. 2024, Chen et al. 2023 (arXiv 2302.06675) and Zhang et al. 2020 "
               "(arXiv 1912.03194)",
        base=base(), base_label="AdamW",
        rows=(row("sgd", "SGD, momentum 0.9", (0.1, 0.3, 1.0, 3.0, 10.0), momentum=0.9, weight_decay=0.0),
              row("adam", "Adam", RATES, weight_decay=0.0),
              row("adabelief", "AdaBelief", RATES, epsilon=1e-16),
              row("adafactor", "Adafactor", (1e-2, 3e-2, 0.1, 0.3, 1.0)),
              row("lion", "Lion", (2e-4, 4e-4, 8e-4, 16e-4, 32e-4, 64e-4), weight_decay=1.0),
              row("muon", "Muon", (2e-3, 4e-3, 8e-3, 16e-3, 32e-3), momentum=0.95, nesterov=True)),
        metrics=(Metric("validation/loss", "loss (nats a character)", "lower", 4),),
        search={RATE: RATES},
        expected_order=("muon", "base", "sgd"),
        seeds=3,
        test="dunnett",
        compute="Characters of Shakespeare, 3 layers x 96, 600 steps of 16 x 64, one course of the rate (cosine to "
                "zero) for all; the other numbers of each rule are its usual ones and were not searched.")
