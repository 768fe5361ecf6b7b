r"""How much a wrong learning rate costs, by size, with and without QK-norm and z-loss.

Wortsman et al. 2023, arXiv 2309.14322, figures 1 to 3: attention logits that grow and output logits that diverge,
known from large models, appear in small ones at high learning rates. QK-norm cures the first, a z-loss of 1e-4 the
second. What is measured is the sensitivity to the learning rate (section 2.2): the mean over learning rates of how much
worse than the best each is, where a diverged one counts as the worst. It is in the table's search column; a point that
becomes NaN counts as failed.
Expected: without either the sensitivity grows with the size; QK-norm lowers it most, z-loss adds a little, and both
together are flattest. At the best rate the rows differ little.
Here: a language model of Shakespeare's characters at three sizes, six learning rates from 1e-3 to 0.3, 500 steps. The
paper's models have 10 million to 1.2 billion parameters and train 100,000 steps, in which logits have time to grow:
here instability is that of the first few hundred steps. Weight decay is left out, since ours is times the rate and
theirs is not; our QK-norm is an RMSNorm, theirs a LayerNorm.
Takes: 12 rows x (6 rates + 3 seeds), 10 to 40 seconds a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/small_scale_proxies.py \
             --workdir=runs/small_scale_proxies --config.data.path=input.txt
"""

from purelm.ablation.spec import BASE, Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

SIZES = {"2x64": (2, 64), "3x96": (3, 96), "5x160": (5, 160)}  # layers, width
CURES = {"": {}, "qk_norm": {"model.qk_norm": True}, "z_loss": {"training.z_loss": 1e-4},
         "both": {"model.qk_norm": True, "training.z_loss": 1e-4}}
LABELS = {"": "neither", "qk_norm": "QK-norm", "z_loss": "z-loss", "both": "QK-norm and z-loss"}
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)


def base() -> Config:
    layers, width = SIZES["2x64"]
    return Config(
        model=presets.nanogpt_cpu(num_layers=layers, width=width, positions="rope", tied_embeddings=False),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, schedule="cosine", warmup="10%", beta2=0.95,
                                  clip_norm=1.0),
        training=TrainingConfig(num_steps=500, batch_size=16, log_every="5%", evaluate_every="50%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def rows_of(size: str) -> list[Row]:
    """The rows of a size, each compared with that size's plain row."""
    layers, width = SIZES[size]
    first = size == "2x64"
    shape = {} if first else {"model.num_layers": layers, "model.width": width}
    rows = []
    for cure, changes in CURES.items():
        if first and not cure:
            continue  # The base.
        plain = None if first or not cure else size
        rows.append(Row(f"{size}_{cure}" if cure else size, shape | changes, f"{size}, {LABELS[cure]}", size,
                        compare_to=plain))
    return rows


def get_ablation() -> Ablation:
    return Ablation(
        title="Sensitivity to the learning rate, with and without QK-norm and z-loss",
        source="Wortsman et al. 2023, arXiv 2309.14322, figures 1 to 3 (order of the sensitivities alone)",
        base=base(), base_label=f"2x64, {LABELS['']}", base_group="2x64",
        rows=tuple(row for size in SIZES for row in rows_of(size)),
        metrics=(Metric("validation/loss", "loss (nats a character)", "lower", 4),),
        search={"optimizer.learning_rate": RATES},
        expected_order=("5x160", "3x96", BASE),
        seeds=3,
        compute="Characters of Shakespeare, 2 x 64, 3 x 96 and 5 x 160, 500 steps of 16 x 64. The sensitivity of the "
                "search is the result; it has one seed a rate and no interval. The loss beside it is at the best rate, "
                "where the sizes differ and the rows of a size should not.")
