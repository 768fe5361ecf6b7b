r"""How many heads of keys and values the query heads share: one each (MHA), one a group (GQA), one for all (MQA).

Shazeer 2019, arXiv 1911.02150, table 3: a language model's perplexity on the Billion-Word Benchmark (from memory):
multi-head 29.9, multi-query with the saved parameters in a wider feed-forward 30.2, one head 31.2, eight heads of an
eighth of the size 30.9, both with as small a cache. Ainslie et al. 2023, arXiv 2305.13245, table 1, T5 XXL, average
of seven tasks, higher is better (from memory): MHA 47.2, GQA of 8 groups 47.1, MQA 46.6.
Expected: MHA, then GQA of 4 and of 2 groups, then MQA, then fewer or smaller heads. What is bought is the column of
cache bytes a token: a half, a quarter and an eighth.
Here: a language model of Shakespeare's characters, 3 layers x 128, 8 heads of 16. The rows "wide" give the parameters
that are saved to the feed-forward, so that all but the first three have the base's number of parameters.
Takes: 9 rows x 3 seeds, about a minute a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/attention_heads.py \
             --workdir=runs/attention_heads --config.data.path=input.txt
"""

from purelm.ablation.spec import Ablation, Metric, Row
from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, presets

PERPLEXITY = "validation/perplexity"
WIDTH, HEADS = 128, 8


def base() -> Config:
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=WIDTH, num_heads=HEADS),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=1200, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def groups(kv_heads: int, *, wide: bool) -> dict[str, int]:
    """`kv_heads` heads of keys and values; `wide` puts the parameters saved into the feed-forward."""
    changes = {"model.num_kv_heads": kv_heads}
    # A key/value head less saves 2 x width x head_size, a hidden unit of the feed-forward takes 2 x width.
    saved = (HEADS - kv_heads) * WIDTH // HEADS
    return changes | ({"model.feed_forward_width": 4 * WIDTH + saved} if wide else {})


def small(num_heads: int, head_size: int) -> dict[str, int]:
    """Heads that are fewer or smaller, the parameters saved in the feed-forward: queries and outputs shrink too."""
    saved = 2 * (WIDTH - num_heads * head_size)
    return {"model.num_heads": num_heads, "model.head_size": head_size, "model.feed_forward_width": 4 * WIDTH + saved}


def get_ablation() -> Ablation:
    shared, equal = "shared keys and values", "at equal parameters"
    return Ablation(
        title="Heads of keys and values: quality and cache",
        source="Shazeer 2019, arXiv 1911.02150, table 3; order of GQA: Ainslie et al. 2023, arXiv 2305.13245, table 1",
        base=base(), base_label="MHA, 8 heads of 16", base_published={PERPLEXITY: 29.9},
        rows=(Row("gqa4", groups(4, wide=False), "GQA, 4 groups", shared),
              Row("gqa2", groups(2, wide=False), "GQA, 2 groups", shared),
              Row("mqa", groups(1, wide=False), "MQA", shared),
              Row("gqa4_wide", groups(4, wide=True), "GQA, 4 groups", equal),
              Row("gqa2_wide", groups(2, wide=True), "GQA, 2 groups", equal),
              Row("mqa_wide", groups(1, wide=True), "MQA", equal, {PERPLEXITY: 30.2}),
              Row("eight_small_wide", small(8, 2), "8 heads of 2", equal, {PERPLEXITY: 30.9}),
              Row("one_head_wide", small(1, 16), "1 head of 16", equal, {PERPLEXITY: 31.2})),
        metrics=(Metric("validation/loss", "loss (nats a character)", "lower", 4),
                 Metric(PERPLEXITY, "perplexity", "lower", 3)),
        expected_order=("base", "gqa4_wide", "gqa2_wide", "mqa_wide", "eight_small_wide", "one_head_wide"),
        seeds=3,
        compute="Characters of Shakespeare, 3 layers x 128, 1,200 steps of 16 x 64. At this size the differences "
                "published (1 % in perplexity) are near the noise of a seed, and the cache is small enough that it "
                "costs no time: what is shown is its size and the order of quality.")
