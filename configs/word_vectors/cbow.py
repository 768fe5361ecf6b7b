r"""CBOW with negative sampling (Mikolov et al. 2013, arXiv 1301.3781): the mean of its neighbors predicts a word.

gensim's defaults (100 numbers a word, window 5, 5 negatives, subsampling 1e-3, minimum count 5), on any text; lower-cased
words. To reach: the analogies, similarities and neighbors of gensim on the same text, within the spread of its seeds
(experiments/benchmark.py --only=word_vectors).

The programs of word2vec and gensim update after every pair; here a batch is 32,768 words, about 200,000 pairs, and Adam
stands for the many small steps: `epsilon` is so large that rare words, whose mean gradient is far below it, move as
under SGD (learning_rate / epsilon / 200,000 pairs = 0.025 a pair, word2vec's own rate), while words that are in every
batch have steps of bounded size.

The vectors are in RUN/vectors.txt, in word2vec's text format. Any model starts its embeddings from them by
--config.init_vectors=RUN/vectors.txt, and keeps them as they are by
"--config.optimizer.learning_rate_rules=(('embedding/embedding\$', 0.0), ('.*', 1.0))".

Measured: see docs/results/systems.md.
Command: python experiments/train.py --config=configs/word_vectors/cbow.py --workdir=runs/cbow \
             --config.data.path=FILE_OR_FOLDER
         python experiments/predict.py --workdir=runs/cbow --text=good
"""

from purelm.config import (Config, DataConfig, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig,
                           WordVectorsConfig, as_flag)


def get_config():
    return as_flag(Config(
        model=ModelConfig(architecture="word_vectors", width=100, context_length=32),
        task=TaskConfig(name="word_vectors"),
        word_vectors=WordVectorsConfig(method="cbow"),
        data=DataConfig(path="imdb", tokenizer="words", tokenizer_vocabulary_size=100_000, document="line",
                        validation_fraction=0.01, test_fraction=0.0,
                        cleaning=("strip_html", "unicode_nfc", "control_characters", "lower_case")),
        optimizer=OptimizerConfig(name="adam", learning_rate=0.01, schedule="linear", epsilon=2e-6),
        training=TrainingConfig(num_epochs=5, batch_size=1024, log_every="2%", evaluate_every="1 epochs",
                                checkpoint_every="1 epochs", keep_last=1)))
