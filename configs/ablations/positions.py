r"""How positions reach a Transformer, at the trained length and at twice and four times it.

Press et al. 2022, arXiv 2108.12409 ("Train short, test long"), figures 1 and 4: sinusoidal positions fail beyond the
trained length, rotary ones a little later, T5's bias later, ALiBi not at all; learned ones have no rows there. The
perplexities beside are of EleutherAI's rotary blog (125M parameters, OpenWebText2; from memory): learned 16.59, T5
bias 16.46, rotary 15.78.
Here: a language model of Shakespeare's characters, 3 layers x 96, trained on windows of 64. The first column is the
loss on windows of 256: expected order ALiBi, T5 bias, rotary, sinusoidal.
Takes: 6 rows x 3 seeds, about 50 seconds a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/positions.py --workdir=runs/positions \
             --config.data.path=input.txt
"""

from purelm.ablation.spec import Ablation, Evaluation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

TRAINED = 64
PERPLEXITY = "validation/perplexity"


def base() -> Config:
    """nanoGPT's CPU model, narrower; embeddings as large as the sines that are added to them, as in Vaswani 2017."""
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=96, context_length=TRAINED, positions="sinusoidal",
                                  embedding_scale="sqrt_width", initialization="xavier", initialization_stddev=0.1),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=1200, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def get_ablation() -> Ablation:
    return Ablation(
        title="Position schemes, at the trained length and beyond",
        source="Press et al. 2022, arXiv 2108.12409, figures 1 and 4; perplexities: EleutherAI's rotary blog",
        base=base(), base_label="sinusoidal",
        rows=(Row("learned", {"model.positions": "learned"}, published={PERPLEXITY: 16.59}),
              Row("rope", {"model.positions": "rope"}, "rotary (RoPE)", published={PERPLEXITY: 15.78}),
              Row("alibi", {"model.positions": "alibi"}, "ALiBi"),
              Row("t5", {"model.positions": "t5"}, "T5 bias", published={PERPLEXITY: 16.46}),
              Row("none", {"model.positions": "none"})),
        metrics=(Metric("four_times/loss", "loss at 4 x length", "lower", 4),
                 Metric("twice/loss", "loss at 2 x length", "lower", 4),
                 Metric("validation/loss", "loss at trained length", "lower", 4),
                 Metric(PERPLEXITY, "perplexity at trained length", "lower", 3)),
        evaluations=(Evaluation("validation"),
                     Evaluation("twice", changes={"model.context_length": 2 * TRAINED}),
                     Evaluation("four_times", changes={"model.context_length": 4 * TRAINED})),
        expected_order=("alibi", "t5", "rope", "base"),
        seeds=3,
        test="dunnett",
        compute="Characters of Shakespeare, 3 layers x 96, trained on 1,200 x 16 windows of 64, each length tested on "
                "windows of its own that do not overlap. A window of 64 characters is a dozen words: what is learned "
                "of distance here is short.")
