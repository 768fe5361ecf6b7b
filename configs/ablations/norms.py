r"""Which normalization, and where.

Xiong et al. 2020, arXiv 2002.04745: post-norm needs a warm-up, pre-norm does not. Narang et al. 2021, arXiv 2102.11972
(T5, final loss, from memory): vanilla (pre LayerNorm) 1.838, RMSNorm 1.821, ReZero 1.939.
Expected: RMSNorm equal to LayerNorm or a little better, ReZero and no norm at all worse, post-norm without a warm-up
worst.
Here: a language model of Shakespeare's characters, 3 layers x 96: with so few layers post-norm is far from the depth at
which it fails, so that only the direction of its difference can be seen.
Verdicts are paired t-tests: a row that fails with some seeds spreads far, which Dunnett's common spread does not allow
for.
Takes: 12 rows x 5 seeds, about 40 seconds a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/norms.py --workdir=runs/norms \
             --config.data.path=input.txt
"""

from purelm.ablation.spec import Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

LOSS = "validation/loss"


def base() -> Config:
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=96, norm="layer_norm", norm_place="pre"),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=1200, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def get_ablation() -> Ablation:
    place, kind = "model.norm_place", "model.norm"
    return Ablation(
        title="Normalization: type and place",
        source="Xiong et al. 2020, arXiv 2002.04745; losses: Narang et al. 2021, arXiv 2102.11972",
        base=base(), base_label="pre, LayerNorm", base_group="warm-up", base_published={LOSS: 1.838},
        rows=(Row("post_layer", {place: "post"}, "post, LayerNorm", "warm-up"),
              Row("sandwich_layer", {place: "sandwich"}, "sandwich, LayerNorm", "warm-up"),
              Row("pre_rms", {kind: "rms_norm"}, "pre, RMSNorm", "warm-up", {LOSS: 1.821}),
              Row("post_rms", {kind: "rms_norm", place: "post"}, "post, RMSNorm", "warm-up"),
              Row("sandwich_rms", {kind: "rms_norm", place: "sandwich"}, "sandwich, RMSNorm", "warm-up"),
              Row("pre_no_scale", {"model.norm_scale": False}, "pre, LayerNorm, no learned scale", "warm-up"),
              Row("qk_norm", {"model.qk_norm": True}, "pre, LayerNorm, and of queries and keys", "warm-up"),
              Row("none", {kind: "none"}, "no norm", "warm-up"),
              Row("rezero", {kind: "none", "model.residual_scale": "rezero"}, "ReZero", "warm-up", {LOSS: 1.939}),
              Row("pre_cold", {"optimizer.warmup": "0"}, "pre, LayerNorm", "no warm-up"),
              Row("post_cold", {"optimizer.warmup": "0", place: "post"}, "post, LayerNorm", "no warm-up")),
        metrics=(Metric(LOSS, "loss (nats a character)", "lower", 4),),
        seeds=5,
        compute="Characters of Shakespeare, 3 layers x 96, 1,200 steps of 16 x 64 at one learning rate for all rows: a "
                "row that would want another rate is judged at this one.")
