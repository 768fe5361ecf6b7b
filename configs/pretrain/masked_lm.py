r"""Masked language modeling (Devlin et al. 2019, arXiv 1810.04805) on plain text, to start other tasks from.

Recipes (the argument after the colon):
  imdb       the training reviews of imdb, the encoder and words of configs/classification/transformer.py:imdb, which
             then starts from it: --config.init_from=runs/masked_lm. More than BERT's 15 % is hidden, since
             more is learned from a pass so (Wettig et al. 2023, arXiv 2202.08005). To reach: 2 points above scratch.
  squad      the paragraphs that configs/qa/extractive.py:squad reads (text_field=context), its encoder and tokens.
  bert_tiny  BERT's smallest published shape (Turc et al. 2019, arXiv 1908.08962: 2 layers x 128) and BERT's masking on
             any text, such as wikitext.

Measured (2 cores): docs/results/systems.md. The loss is that of the hidden tokens alone.
Command: python experiments/train.py --config=configs/pretrain/masked_lm.py:imdb --workdir=runs/masked_lm \
             --config.data.path=imdb
"""

import dataclasses

from purelm.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    as_flag,
    choose,
)

CLEANING = ("unicode_nfc", "control_characters", "exact_duplicates")


def optimizer(**changes) -> OptimizerConfig:
    fields = dict(name="muon", learning_rate=0.01, adam_learning_rate=0.003, schedule="wsd", warmup="50", decay="60%",
                  beta1=0.9, beta2=0.98, momentum=0.95, nesterov=True, clip_norm=1.0)
    return OptimizerConfig(**(fields | changes))


def imdb() -> Config:
    return Config(
        model=ModelConfig(architecture="encoder", num_layers=2, width=128, num_heads=4, feed_forward_width=256,
                          context_length=256, positions="learned", residual_dropout=0.0),
        task=TaskConfig(name="masked_language_modeling", mask_fraction=0.2),
        data=DataConfig(tfds_name="imdb_reviews", tokenizer="words", tokenizer_vocabulary_size=20_000,
                        cleaning=("strip_html", *CLEANING[:2], "lower_case")),
        optimizer=optimizer(),
        training=TrainingConfig(num_epochs=3, batch_size=32, log_every="20", evaluate_every="20%",
                                evaluate_batches=20, checkpoint_every="20%"))


def squad() -> Config:
    """The body of configs/qa/extractive.py:squad but for its token types."""
    config = imdb()
    return dataclasses.replace(
        config,
        model=ModelConfig(architecture="encoder", num_layers=3, width=128, num_heads=4, context_length=256,
                          feed_forward="swiglu", feed_forward_width=256, positions="rope", rope_base=1000.0,
                          norm="rms_norm", norm_epsilon=1e-6, qk_norm=True, bias=False, embedding_norm=True,
                          zero_outputs=True, initialization="gpt2", initialization_stddev=0.044),
        data=DataConfig(tfds_name="squad", text_field="context", tokenizer="bpe", tokenizer_vocabulary_size=8000,
                        cleaning=CLEANING),
        training=dataclasses.replace(config.training, num_epochs=20))


def bert_tiny() -> Config:
    config = imdb()
    return dataclasses.replace(
        config,
        model=ModelConfig(architecture="encoder", num_layers=2, width=128, num_heads=2, context_length=128,
                          norm_place="post", embedding_norm=True, norm_epsilon=1e-12, head_transform=True,
                          head_bias=True, embedding_dropout=0.1, residual_dropout=0.1, attention_dropout=0.1),
        task=TaskConfig(name="masked_language_modeling", mask_fraction=0.15),
        data=DataConfig(tokenizer="wordpiece", tokenizer_vocabulary_size=8000, cleaning=CLEANING),
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="linear", warmup="5%", weight_decay=0.01,
                                  clip_norm=1.0),
        training=TrainingConfig(num_epochs=10, batch_size=64, log_every="20", evaluate_every="10%",
                                checkpoint_every="10%"))


def get_config(recipe: str = "imdb"):
    return as_flag(choose({"imdb": imdb, "squad": squad, "bert_tiny": bert_tiny}, recipe)())
