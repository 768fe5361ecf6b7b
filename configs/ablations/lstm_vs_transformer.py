r"""LSTM and GRU language models against a Transformer: at equal parameters and steps, and at equal time.

Kaplan et al. 2020, arXiv 2001.08361, section 3.2.1 and figure 7: at equal parameters LSTMs are as good as Transformers
on the first tokens of a context and worse on the later ones, from about a hundred tokens on; the Transformer is ahead
over all. There are no numbers to take from that figure, and none for GRUs.
Expected: the Transformer, then the LSTM at equal steps. Whether the LSTM's time makes up for it depends on the machine:
its steps are cheap on a CPU and slow on a GPU, where the tokens of a window follow one another.
Here: a language model of Shakespeare's characters on windows of 64, which are those "first tokens": a Transformer's
advantage on long contexts cannot show. Every row takes the best of four learning rates, as one that suits a
Transformer need not suit an LSTM. Embeddings of 96; the Transformer's output layer is tied to them, the others' is not.
The cache column is 0 for recurrent networks: their state does not grow with the text.
Equal time: from the ms/step of this table's report. Four runs of 100 steps a row, one after the other on one core of a
CPU that had other work: Transformer 34 to 54 ms, LSTM 18 to 42, GRU 21 to 49; medians of the ratios within a run 1.57
and 1.45. On another machine, put its own ratios into LSTM_STEPS and GRU_STEPS.
Takes: 5 rows x (4 rates + 3 seeds), about half a minute a cell on one core.
Command: python experiments/ablate.py --ablation=configs/ablations/lstm_vs_transformer.py \
             --workdir=runs/lstm_vs_transformer --config.data.path=input.txt
"""

from purelm.ablation.spec import BASE, Ablation, Metric, Row
from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, presets

LSTM, GRU = ("lstm", 150), ("gru", 175)  # Cell and units of a layer: with two layers the Transformer's parameters.
STEPS = 1200
LSTM_STEPS, GRU_STEPS = 1900, 1750  # In the time of the Transformer's STEPS.


def base() -> Config:
    return Config(
        model=presets.nanogpt_cpu(num_layers=3, width=96),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=STEPS, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def recurrent(cell: str, hidden_size: int) -> dict[str, object]:
    """Two recurrent layers in place of the blocks; what a Transformer alone reads goes back to its default."""
    default = ModelConfig()
    unread = ("num_heads", "feed_forward", "positions", "norm", "bias", "initialization")
    return {"model.architecture": "recurrent", "model.cell": cell, "model.num_layers": 2,
            "model.hidden_size": hidden_size, "model.tied_embeddings": False,
            **{f"model.{name}": getattr(default, name) for name in unread}}


def get_ablation() -> Ablation:
    steps, time = "equal steps", "equal time"
    return Ablation(
        title="Recurrent networks and the Transformer, at equal parameters",
        source="order expected from Kaplan et al. 2020, arXiv 2001.08361, figure 7",
        base=base(), base_label="Transformer, 3 x 96", base_group=steps,
        rows=(Row("lstm", recurrent(*LSTM), "LSTM, 2 x 150", steps),
              Row("gru", recurrent(*GRU), "GRU, 2 x 175", steps),
              Row("lstm_time", recurrent(*LSTM) | {"training.num_steps": LSTM_STEPS}, f"LSTM, {LSTM_STEPS:,} steps",
                  time),
              Row("gru_time", recurrent(*GRU) | {"training.num_steps": GRU_STEPS}, f"GRU, {GRU_STEPS:,} steps", time)),
        metrics=(Metric("validation/loss", "loss (nats a character)", "lower", 4),),
        search={"optimizer.learning_rate": (2e-3, 4e-3, 8e-3, 16e-3)},
        expected_order=(BASE, "lstm"),
        seeds=3,
        compute="Characters of Shakespeare, 345 thousand parameters each, 16 x 64 characters a step, 1,200 steps or "
                "the Transformer's time on one core of a CPU; on another machine equal time is another number of "
                "steps.")
