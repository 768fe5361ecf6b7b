r"""Embedding, bidirectional LSTM and attention (Zhou et al. 2016, ACL P16-2034), which says what it read.

The attention's weights come out by name: predict.py --explain.

Recipes (the argument after the colon):
  imdb  film reviews (Maas et al. 2011): Keras' example of a BiLSTM reaches 87.8 % of the 25,000 test reviews;
        TF-IDF and logistic regression (experiments/baselines.py): 90.6 %.

Measured: 88.8 % (docs/results/systems.md). Takes about 18 minutes on one core.
Command: python experiments/train.py --config=configs/classification/bilstm_attention.py --workdir=runs/bilstm \
             --config.data.path=FOLDER
         python experiments/evaluate.py --workdir=runs/bilstm --split=test --checkpoint=best
"""

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig, as_flag, choose


def imdb() -> Config:
    """The last 400 words of a review."""
    return Config(
        model=ModelConfig(architecture="recurrent", cell="lstm", bidirectional=True, num_layers=1, width=128,
                          hidden_size=96, context_length=400, pooling="attention", initialization_stddev=0.05,
                          embedding_dropout=0.5, variational_dropout=True, classifier_dropout=0.5),
        task=TaskConfig(name="classification"),
        data=DataConfig(tfds_name="imdb_reviews", tokenizer="words", tokenizer_vocabulary_size=30_000,
                        truncation="tail", augmentation=("word_dropout:0.3",),
                        cleaning=("strip_html", "unicode_nfc", "control_characters", "lower_case")),
        optimizer=OptimizerConfig(name="adam", learning_rate=2e-3, schedule="linear", warmup="2%", clip_norm=1.0),
        training=TrainingConfig(num_epochs=5, batch_size=64, log_every="20", evaluate_every="0.5 epochs",
                                checkpoint_every="0.5 epochs"))


def get_config(recipe: str = "imdb"):
    return as_flag(choose({"imdb": imdb}, recipe)())
