r"""Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, Table 3: every row, on Multi30k.

The paper: WMT 2014 En-De, newstest2013 (its numbers here were read in it); N = 6, d_model = 512, d_ff = 2048, h = 8,
d_k = d_v = 64, 100,000 steps. Expected: the order of its columns: big and the larger models of (C) first; one head,
small d_k, few or narrow layers, no dropout and much smoothing behind; learned positions within noise of the base.
Here: English to German captions (Elliott et al. 2016), N = 3, d_model = 64, d_ff = 256. Every row changes the base by
the paper's factor: h 1, 4, 16, 32 of 8; d_k a quarter and a half; N a third, two thirds, four thirds; d_model and d_ff
half and twice; the dropouts and smoothings as they are. Post-norm, sinusoidal positions, ReLU, one table of embeddings
scaled by sqrt(d_model), Adam with beta2 = 0.98, label smoothing 0.1; the peak rate follows the width as in section 5.3,
(d_model x warmup)^-0.5 times a factor.

Departures: the rate falls linearly to zero, since so short a run has no use for the tail of an inverse square root; the
last matrix of each sublayer starts smaller by sqrt(2 N), without which so short a run in post-norm learns little
(perplexity 44 in place of 32 after 1,000 steps, at nearly the same rate); d_v shrinks with d_k in (B), one size here;
BLEU is sacreBLEU's, of greedy answers (beam 4 there); big trains 1.5 times as long as the base (3 times there).

What the scale cannot show: the training set is seen 1.5 times, so that nothing overfits and rows (D) without dropout
gain where the paper's lose; big has no time to make use of its size. BLEU is far below that of a finished model (39.7,
configs/translation/transformer.py, 15 epochs). Measured: docs/results/registry.md.

Sizes (the argument after the colon):
  small  N = 3, d_model = 64, d_ff = 256; 2,000 byte pairs. For CPU.
  gpu    N = 6, d_model = 256, d_ff = 1024; 6,000 byte pairs, 40 epochs. Not measured.

Takes: 20 rows x 3 seeds, about 2 minutes a cell on one core (big 6).
Command: python experiments/ablate.py --ablation=configs/ablations/attention_is_all_you_need.py --workdir=runs/t3 \
             --config.data.path=multi30k_en_de
"""

import dataclasses

from purelm.ablation.spec import Ablation, Evaluation, Metric, Row
from purelm.config import (
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    choose,
)


@dataclasses.dataclass(frozen=True)
class Size:
    """rate_factor times the rate of section 5.3; context_length in tokens."""

    layers: int
    width: int
    vocabulary: int
    context_length: int
    steps: int
    batch_size: int
    warmup: int
    rate_factor: float


SIZES = {
    "small": Size(layers=3, width=64, vocabulary=2000, context_length=40, steps=1400, batch_size=32, warmup=200,
                  rate_factor=0.4),
    "gpu": Size(layers=6, width=256, vocabulary=6000, context_length=48, steps=9000, batch_size=128, warmup=1000,
                rate_factor=0.4),
}
WHERE = {"small": "N = 3, d_model = 64, Multi30k for 1.5 epochs", "gpu": "N = 6, d_model = 256, Multi30k for 40 epochs"}


def of_width(size: Size, width: int) -> dict[str, float]:
    """What follows from the width: the peak rate, and the scale of matrices (LeCun's) and of embeddings, which the
    model multiplies by the root of the width."""
    return {"model.initialization_stddev": round(width ** -0.5, 5),
            "optimizer.learning_rate": round(size.rate_factor * (width * size.warmup) ** -0.5, 6)}


def base(size: Size) -> Config:
    derived = of_width(size, size.width)
    return Config(
        model=ModelConfig(
            architecture="encoder_decoder", context_length=size.context_length, num_layers=size.layers,
            width=size.width, num_heads=8, feed_forward="relu", feed_forward_width=4 * size.width,
            positions="sinusoidal", norm="layer_norm", norm_place="post", embedding_scale="sqrt_width",
            initialization="gpt2", initialization_stddev=derived["model.initialization_stddev"],
            embedding_dropout=0.1, residual_dropout=0.1),
        task=TaskConfig(name="sequence_to_sequence", metrics=("bleu",)),
        data=DataConfig(source_field="en", target_field="de", tokenizer="bpe",
                        tokenizer_vocabulary_size=size.vocabulary),
        decoding=DecodingConfig(beam_size=1, max_new_tokens=size.context_length),
        optimizer=OptimizerConfig(
            name="adam", learning_rate=derived["optimizer.learning_rate"], schedule="linear",
            warmup=str(size.warmup), beta1=0.9, beta2=0.98, epsilon=1e-9),
        training=TrainingConfig(
            num_steps=size.steps, batch_size=size.batch_size, label_smoothing=0.1, log_every="5%",
            evaluate_every="25%", checkpoint_every="50%", keep_last=1, keep_best=False))


def dropout(rate: float) -> dict[str, float]:
    return {"model.embedding_dropout": rate, "model.residual_dropout": rate}


def published(perplexity: float, bleu: float) -> dict[str, float]:
    return {"validation/perplexity": perplexity, "validation/bleu": bleu}


def rows(size: Size) -> tuple[Row, ...]:
    layers, width = size.layers, size.width
    head = width // 8

    def heads(name: str, number: int, *numbers: float) -> Row:
        return Row(name, {"model.num_heads": number}, label=f"h = {number}, d_k = {width // number}", group="(A)",
                   published=published(*numbers))

    def row(name: str, changes: dict, label: str, *numbers: float) -> Row:
        return Row(name, changes, label=label, group=f"({name[0]})", published=published(*numbers))

    def wide(name: str, number: int, *numbers: float) -> Row:
        return row(name, {"model.width": number, **of_width(size, number)}, f"d_model = {number}, d_k = {number // 8}",
                   *numbers)

    def deep(name: str, number: int, *numbers: float) -> Row:
        return row(name, {"model.num_layers": number}, f"N = {number}", *numbers)

    def hidden(name: str, number: int, *numbers: float) -> Row:
        return row(name, {"model.feed_forward_width": number}, f"d_ff = {number}", *numbers)

    big = {"model.width": 2 * width, **of_width(size, 2 * width), "model.feed_forward_width": 8 * width,
           "model.num_heads": 16, **dropout(0.3), "training.num_steps": size.steps * 3 // 2}
    return (
        heads("A1", 1, 5.29, 24.9), heads("A2", 4, 5.00, 25.5), heads("A3", 16, 4.91, 25.8),
        heads("A4", 32, 5.01, 25.4),
        row("B1", {"model.head_size": head // 4}, f"d_k = {head // 4}", 5.16, 25.1),
        row("B2", {"model.head_size": head // 2}, f"d_k = {head // 2}", 5.01, 25.4),
        deep("C1", layers // 3, 6.11, 23.7), deep("C2", layers * 2 // 3, 5.19, 25.3),
        deep("C3", layers * 4 // 3, 4.88, 25.5),
        wide("C4", width // 2, 5.75, 24.5), wide("C5", width * 2, 4.66, 26.0),
        hidden("C6", width * 2, 5.12, 25.4), hidden("C7", width * 8, 4.75, 26.2),
        row("D1", dropout(0.0), "dropout 0", 5.77, 24.6), row("D2", dropout(0.2), "dropout 0.2", 4.95, 25.5),
        row("D3", {"training.label_smoothing": 0.0}, "label smoothing 0", 4.67, 25.3),
        row("D4", {"training.label_smoothing": 0.2}, "label smoothing 0.2", 5.47, 25.7),
        row("E", {"model.positions": "learned"}, "learned positions", 4.92, 25.7),
        Row("big", big, label=f"d_model = {2 * width}, d_ff = {8 * width}, h = 16, dropout 0.3, longer",
            published=published(4.33, 26.4)),
    )


def get_ablation(size: str = "small") -> Ablation:
    sizes = choose(SIZES, size)
    return Ablation(
        title="Variations of the Transformer, English to German",
        source="Vaswani et al. 2017, arXiv 1706.03762, Table 3 (newstest2013)",
        base=base(sizes),
        base_label=f"N = {sizes.layers}, d_model = {sizes.width}, d_ff = {4 * sizes.width}, h = 8",
        base_published=published(4.92, 25.8),
        rows=rows(sizes),
        metrics=(Metric("validation/perplexity", "PPL", "lower", digits=2),
                 Metric("validation/bleu", "BLEU", "higher", digits=1)),
        evaluations=(Evaluation("validation"),),
        test="dunnett",
        compute=f"{WHERE[size]}; perplexity a byte pair, greedy BLEU of the 1,014 validation captions. Too short to "
                "overfit: dropout and smoothing cannot pay off, and big cannot show its size.")
