r"""A Transformer encoder from scratch as a classifier (Vaswani et al. 2017; Devlin et al. 2019), on three data sets.

Recipes (the argument after the colon), with what to reach on the whole test split and what TF-IDF with logistic
regression reaches there (experiments/baselines.py):
  imdb       film reviews, 2 classes (Maas et al. 2011): 87 % (90.6 %)
  imdb_finetune  the same from a masked language model of its training text, by --config.init_from=RUN: 2 points more
  banking77  customers' questions, 77 intents (Casanueva et al. 2020): 86 % (89.1 %)
  csl        Chinese titles of papers, 13 fields (Li et al. 2022, CSL): 75 % (77.9 %)

Measured: 87.5, 88.6, 88.7 and 72.3 % (docs/results/systems.md). Takes 15 minutes on 2 cores, and 11, 4 and
4 on one.
Command: python experiments/train.py --config=configs/classification/transformer.py:banking77 \
             --workdir=runs/banking77 --config.data.path=FOLDER
         python experiments/evaluate.py --workdir=runs/banking77 --split=test
"""

import dataclasses

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig, as_flag, choose

CLEANING = ("unicode_nfc", "control_characters", "lower_case")


def imdb() -> Config:
    """The start and the end of a review, 256 words in all."""
    return Config(
        model=ModelConfig(architecture="encoder", num_layers=2, width=128, num_heads=4, feed_forward_width=256,
                          context_length=256, positions="learned", pooling="max", embedding_dropout=0.4,
                          residual_dropout=0.2, classifier_dropout=0.4),
        task=TaskConfig(name="classification"),
        data=DataConfig(tfds_name="imdb_reviews", tokenizer="words", tokenizer_vocabulary_size=20_000,
                        truncation="both", augmentation=("word_dropout:0.3",),
                        cleaning=("strip_html", *CLEANING)),
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="linear", warmup="5%", clip_norm=1.0,
                                  weight_decay=0.05),
        training=TrainingConfig(num_epochs=3, batch_size=64, log_every="20", evaluate_every="0.5 epochs",
                                checkpoint_every="0.5 epochs"))


def imdb_finetune() -> Config:
    """imdb from a run of configs/pretrain/masked_lm.py:imdb (--config.init_from): smaller steps, less dropped out."""
    config = imdb()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, pooling="mean", embedding_dropout=0.2, classifier_dropout=0.2),
        data=dataclasses.replace(config.data, augmentation=("word_dropout:0.1",)),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=3e-4))


def banking77() -> Config:
    """Whole questions, 11 words on average."""
    config = imdb()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, context_length=96, pooling="mean"),
        data=dataclasses.replace(config.data, path="banking77", tfds_name=None, tokenizer_vocabulary_size=4000,
                                 cleaning=CLEANING),
        training=TrainingConfig(num_epochs=25, batch_size=64, label_smoothing=0.1, log_every="20",
                                evaluate_every="1 epochs", checkpoint_every="1 epochs"))


def csl() -> Config:
    """Characters of titles; without the augmentation, the validation loss rises again after four epochs."""
    config = banking77()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, context_length=64, embedding_dropout=0.3),
        data=dataclasses.replace(config.data, path="csl_category", tfds_name=None, tokenizer="characters",
                                 augmentation=("word_dropout:0.15", "word_deletion:0.1")),
        training=dataclasses.replace(config.training, num_epochs=15))


def get_config(recipe: str = "imdb"):
    return as_flag(choose({"imdb": imdb, "imdb_finetune": imdb_finetune, "banking77": banking77, "csl": csl}, recipe)())
