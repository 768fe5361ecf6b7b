r"""LSTM and GRU language models of Shakespeare's characters, beside the Transformers of shakespeare_char.py.

Zaremba et al. 2014, arXiv 1409.2329 (dropout between layers alone); Cho et al. 2014, arXiv 1406.1078. Same text, split
and metric as there. Recipes (the argument after the colon): lstm, gru; two layers of 256 units. The state starts anew
with each window of 128 characters in training and evaluation; generate.py carries it through the whole text.

Measured (2 cores, whole validation part): docs/results/systems.md.
Command: python experiments/train.py --config=configs/lm/recurrent.py:lstm --workdir=runs/lstm_lm \
             --config.data.path=input.txt
"""

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, as_flag, choose


def recipe(cell: str) -> Config:
    return Config(
        model=ModelConfig(architecture="recurrent", cell=cell, context_length=128, num_layers=2, width=128,
                          hidden_size=256, tied_embeddings=False, residual_dropout=0.2),
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100", clip_norm=1.0,
                                  weight_decay=0.01),
        training=TrainingConfig(num_steps=2000, batch_size=32, log_every="20", evaluate_every="500",
                                checkpoint_every="500"))


def lstm() -> Config:
    return recipe("lstm")


def gru() -> Config:
    return recipe("gru")


def get_config(name: str = "lstm"):
    return as_flag(choose({"lstm": lstm, "gru": gru}, name)())
