r"""Loss over parameters and tokens, fitted: loss = E + A / N^a + B / D^b.

Hoffmann et al. 2022, arXiv 2203.15556 (Chinchilla), approach 3: E 1.69, A 406.4, a 0.34, B 410.7, b 0.28 (from
memory), of 70M to 16B parameters; Besiroglu et al. 2024, arXiv 2404.10102, fitted the same runs again: a 0.35, b 0.37
(from memory). The "about 0.5" of Chinchilla and the 0.73 and 0.27 of Kaplan et al. 2020 (arXiv 2001.08361) are other
exponents: of the best N and D at a given compute, b / (a + b) and a / (a + b), which the fit gives as a_compute.
Expected: every size better with more tokens, and the larger size the better the more tokens there are.
Here: reviews of films (imdb, 6M words), 5 sizes from 25 thousand to 1.5 million parameters without embeddings, each
trained anew for 0.5, 1, 2 and 4 million tokens; no text is seen twice. A and B depend on the tokenizer and E on the
text: compare a, b and a_compute alone, and by their intervals. Models this small learn words, not much of what stands
between them: their a and b need not be those of large ones.
The learning rate is 0.4 / width (each budget has its own cosine); it was not searched for each cell, and what is lost
by that goes into the fit.
Takes: 20 rows x 2 seeds, from half a minute to 15 minutes a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/scaling.py --workdir=runs/scaling \
             --config.data.path=imdb
"""

from purelm.ablation.spec import BASE, Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

SIZES = ((2, 32), (2, 64), (3, 96), (4, 128), (5, 160))  # (layers, width)
STEPS = (250, 500, 1000, 2000)  # Of 2,048 tokens.
SMALLEST = SIZES[0]


def size(num_layers: int, width: int) -> dict[str, float]:
    """A model of that shape, and its learning rate."""
    return {"model.num_layers": num_layers, "model.width": width, "optimizer.learning_rate": round(0.4 / width, 5)}


def base() -> Config:
    layers, width = SMALLEST
    return Config(
        model=presets.nanogpt_cpu(num_layers=layers, width=width, context_length=128, positions="rope",
                                  norm="rms_norm"),
        data=DataConfig(path="imdb", tokenizer="bpe", tokenizer_vocabulary_size=1024, validation_fraction=0.02,
                        cleaning=("strip_html", "unicode_nfc", "control_characters", "exact_duplicates")),
        optimizer=OptimizerConfig(name="adamw", learning_rate=round(0.4 / width, 5), schedule="cosine", warmup="10%",
                                  beta2=0.99, weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=STEPS[0], batch_size=16, log_every="5%", evaluate_every="50%",
                                evaluate_batches=40, checkpoint_every="100%", keep_last=1, keep_best=False))


def row(num_layers: int, width: int) -> Row:
    """All budgets of a size; the smallest size at the smallest budget is the base."""
    smallest = (num_layers, width) == SMALLEST
    changes = {} if smallest else size(num_layers, width)
    return Row(f"{num_layers}x{width}", changes, f"{num_layers} layers x {width}", f"width {width}",
               grid={"training.num_steps": STEPS[1:] if smallest else STEPS})


def get_ablation() -> Ablation:
    layers, width = SMALLEST
    return Ablation(
        title="Loss over parameters and tokens",
        source="Hoffmann et al. 2022, arXiv 2203.15556, approach 3 (a 0.34, b 0.28; from memory)",
        base=base(), base_label=f"{layers} layers x {width}, num_steps={STEPS[0]}", base_group=f"width {width}",
        rows=tuple(row(*shape) for shape in SIZES),
        metrics=(Metric("validation/loss", "loss (nats a token)", "lower", 4),),
        expected_order=("5x160,num_steps=2000", "4x128,num_steps=2000", "3x96,num_steps=2000", "2x64,num_steps=2000",
                        "2x32,num_steps=2000", BASE),
        seeds=2,
        compute="25 thousand to 1.5 million parameters and 0.5 to 4 million tokens of imdb's reviews (1,024 BPE "
                "tokens), one seed's noise included. Two decades of N and one of D: the interval of E, far below the "
                "losses measured, is wide, and with it those of a and b.",
        fit="chinchilla")
