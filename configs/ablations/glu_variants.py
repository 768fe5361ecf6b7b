r"""Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202, Table 1: the feed-forward's activation and gate.

The paper: T5 base, span filling, held-out log-perplexity after 524,288 steps (its numbers here are from memory); gated
forms have 2/3 of the hidden units, so that all rows have the same parameters. Expected: GEGLU and SwiGLU ahead of the
other gated forms, all of them ahead of ReLU, GELU and Swish, whose differences are within noise.
Here: a language model of Shakespeare's characters, a thousandth of the size, 3 layers x 96 for 1,200 steps, so that
only the order can be compared; the paper's early-run spread of 0.005 is of another task.
Takes: 8 rows x 5 seeds, about 40 seconds a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/glu_variants.py --workdir=runs/glu_variants \
             --config.data.path=input.txt
"""

from purelm.ablation.spec import Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

LOSS = "validation/loss"
WIDTH = 96


def base() -> Config:
    """nanoGPT's CPU model, narrower, with ReLU as in the paper's baseline."""
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=WIDTH, feed_forward="relu", feed_forward_width=4 * WIDTH),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=1200, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def plain(name: str, label: str, published: float) -> Row:
    return Row(name, {"model.feed_forward": name}, label, "plain", {LOSS: published})


def gated(name: str, label: str, published: float) -> Row:
    return Row(name, {"model.feed_forward": name, "model.feed_forward_width": 4 * WIDTH * 2 // 3}, label, "gated",
               {LOSS: published})


def get_ablation() -> Ablation:
    return Ablation(
        title="Feed-forward activations and gates",
        source="Shazeer 2020, arXiv 2002.05202, Table 1 (held-out log-perplexity, 524,288 steps)",
        base=base(), base_label="ReLU", base_group="plain", base_published={LOSS: 1.677},
        rows=(plain("gelu", "GELU", 1.679), plain("silu", "Swish", 1.683), gated("glu", "GLU", 1.663),
              gated("bilinear", "Bilinear", 1.648), gated("geglu", "GEGLU", 1.633),
              gated("swiglu", "SwiGLU", 1.636), gated("reglu", "ReGLU", 1.645)),
        metrics=(Metric(LOSS, "loss (nats a character)", "lower", 4),),
        seeds=5,
        compute="Characters of Shakespeare, 3 layers x 96, 1,200 steps of 16 x 64: the paper's T5 base saw 10^5 times "
                "as much. Differences of a few hundredths of a nat at this size say nothing of large models.")
