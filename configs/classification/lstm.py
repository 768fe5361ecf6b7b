r"""LSTM(128) on film reviews (Hochreiter & Schmidhuber 1997; data: Maas et al. 2011, IMDB), as in every first tutorial.

Embeddings and one LSTM of 128 units over the last 400 words of a review, of whose outputs each unit's largest counts;
the 20,000 most frequent words, lower-cased. Tutorials of Keras and PyTorch reach 85 to 88 % of the 25,000 test
reviews; TF-IDF and logistic regression (experiments/baselines.py): 90.6 %.

Measured: 87.9 % (three seeds; docs/results/systems.md). Takes 7 minutes on one core.
Command: python experiments/train.py --config=configs/classification/lstm.py --workdir=runs/lstm \
             --config.data.path=FOLDER
         python experiments/evaluate.py --workdir=runs/lstm --split=test --checkpoint=best
"""

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig, as_flag


def get_config():
    return as_flag(Config(
        model=ModelConfig(architecture="recurrent", cell="lstm", num_layers=1, width=128, context_length=400,
                          pooling="max", embedding_dropout=0.5, variational_dropout=True, classifier_dropout=0.5),
        task=TaskConfig(name="classification"),
        data=DataConfig(tfds_name="imdb_reviews", tokenizer="words", tokenizer_vocabulary_size=20_000,
                        truncation="tail", augmentation=("word_dropout:0.3",),
                        cleaning=("strip_html", "unicode_nfc", "control_characters", "lower_case")),
        optimizer=OptimizerConfig(name="adam", learning_rate=2e-3, schedule="linear", warmup="2%", clip_norm=1.0),
        training=TrainingConfig(num_epochs=5, batch_size=64, log_every="20", evaluate_every="0.5 epochs",
                                checkpoint_every="0.5 epochs")))
