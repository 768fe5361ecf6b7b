r"""LSTM and GRU language models against a Transformer: at equal parameters, and at equal time.

"""

from purelm.ablation.spec import Ablation, Metric, Row
from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, presets

RATE = "optimizer.learning_rate"
TRANSFORMER = presets.nanogpt_cpu(num_layers=3, width=96)
LSTM_STEPS, GRU_STEPS = 1000, 1100


def base() -> Config:
    return Config(
        model=TRANSFORMER,
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", beta2=0.99,
                                  weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=1200, batch_size=16, log_every="5%", evaluate_every="25%",
                                checkpoint_every="100%", keep_last=1, keep_best=False))


def recurrent(cell: str, hidden_size: int) -> dict[str, object]:
    """Two layers in place of the Transformer's blocks; what a Transformer alone reads goes back to its default."""
    plain = ModelConfig()
    unread = ("num_heads", "feed_forward", "positions", "norm", "bias", "initialization")
    return {"model.architecture": "recurrent", "model.cell": cell, "model.num_layers": 2,
            "model.hidden_size": hidden_size, "model.tied_embeddings": False} | {
                f"model.{name}": getattr(plain, name) for name in unread}


def get_ablation() -> Ablation:
    return Ablation(title="t", source="s", base=base(), base_label="Transformer, 3 x 96",
        rows=(Row("lstm", recurrent("lstm", 150)), Row("gru", recurrent("gru", 175))),
        metrics=(Metric("validation/loss", "loss (nats a character)", "lower", 4),), seeds=3)
