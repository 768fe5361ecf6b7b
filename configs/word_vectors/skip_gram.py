r"""Skip-gram with negative sampling (Mikolov et al. 2013, arXiv 1310.4546): each word predicts its neighbors.

gensim's defaults (100 numbers a word, window 5, 5 negatives, subsampling 1e-3, minimum count 5), on any text, whose
words are lower-cased. To reach: the analogies, similarities and neighbors of gensim on the same text, within the
spread of its seeds (experiments/benchmark.py --only=word_vectors).

Optimizer sgd at word2vec's own rate, 0.025 a pair, falling linearly to zero: inside a batch of 131,072 words, 512
words after 512 words move the tables, as the authors' programs do pair by pair (tasks/word_vectors.py). Any other
optimizer makes one step a batch: Adam is slower, and after 3 epochs answered 4 % of the analogies where this answered
12 %.

The vectors are in RUN/vectors.txt, in word2vec's text format. Any model starts its embeddings from them by
--config.init_vectors=RUN/vectors.txt, and keeps them as they are by
"--config.optimizer.learning_rate_rules=(('embedding/embedding\$', 0.0), ('.*', 1.0))".

Measured: see docs/results/systems.md.
Command: python experiments/train.py --config=configs/word_vectors/skip_gram.py --workdir=runs/skip_gram \
             --config.data.path=FILE_OR_FOLDER
         python experiments/predict.py --workdir=runs/skip_gram --text=good
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
        model=ModelConfig(architecture="word_vectors", width=100, context_length=32),
        task=TaskConfig(name="word_vectors"),
        word_vectors=WordVectorsConfig(method="skip_gram"),
        data=DataConfig(tfds_name="imdb_reviews", tokenizer="words", tokenizer_vocabulary_size=100_000, document="line",
                        validation_fraction=0.01, test_fraction=0.0,
                        cleaning=("strip_html", "unicode_nfc", "control_characters", "lower_case")),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.025, schedule="linear"),
        training=TrainingConfig(num_epochs=5, batch_size=4096, log_every="2%", evaluate_every="1 epochs",
                                checkpoint_every="1 epochs", keep_last=1)))
