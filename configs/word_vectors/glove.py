r"""GloVe (Pennington, Socher & Manning 2014, EMNLP): vectors whose products are the logarithms of how often words meet.

The paper's window of 10 words on either side weighted by 1/distance, maximum 100, power 3/4, and its sum of both
tables; Adam on batches of 32,768 pairs in place of AdaGrad on single ones. There is no validation: the counts are
those of one text. 100 numbers a word, as the other two methods.

The vectors are in RUN/vectors.txt (see skip_gram.py for how other models start from them).

Not measured to its end (docs/results/systems.md).
Command: python experiments/train.py --config=configs/word_vectors/glove.py --workdir=runs/glove \
             --config.data.path=FILE_OR_FOLDER
"""

from purelm.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    WordVectorsConfig,
    as_flag,
)


def get_config():
    return as_flag(Config(
        model=ModelConfig(architecture="word_vectors", width=100, context_length=512),
        task=TaskConfig(name="word_vectors"),
        word_vectors=WordVectorsConfig(method="glove", window=10),
        data=DataConfig(tfds_name="imdb_reviews", tokenizer="words", tokenizer_vocabulary_size=100_000, document="line",
                        validation_fraction=0.01, test_fraction=0.0,
                        cleaning=("strip_html", "unicode_nfc", "control_characters", "lower_case")),
        optimizer=OptimizerConfig(name="adam", learning_rate=0.01, schedule="linear"),
        training=TrainingConfig(num_epochs=15, batch_size=64, log_every="2%", checkpoint_every="20%", keep_last=1)))
