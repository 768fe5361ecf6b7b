r"""One-sentence summaries of papers (SciTLDR: Cachola et al. 2020, arXiv 2004.15011), 1,992 to train on.

Recipes (the argument after the colon; extract where there is none):
  extract          a small encoder and decoder from scratch, which answers with the sentence of the document that it
                   finds the most probable summary (config.decoding.candidates; evaluation/candidates.py). It learns
                   from the summaries alone, and never which sentence is a good one.
  decoder          document, end of text and summary in one row of a causal decoder; greedy. Best begun from a language
                   model, which knows English and how to copy: --config.init_from=runs/lm.
  pretrain         that language model: the same network on plain text (here the papers themselves; any English by
                   --config.data.path and --config.data.text_field).
  encoder_decoder  an encoder and a decoder from scratch, with a beam.

To beat on the test split, by ROUGE-1/2/L F1 against the best of several references (Porter stemming): the first
sentence of the document (experiments/baselines.py), 31.4 / 12.3 / 24.9. The paper's best systems begin from a
pretrained BART-large; nothing here does.

extract, one seed, 77 CPU seconds to train: ROUGE-1/2/L 35.4 / 14.8 / 28.3 on validation (its first sentences: 30.0 /
11.4 / 23.6) and 36.8 / 15.9 / 29.7 on test. The length penalty was chosen on validation, after 431 of the 500 steps:
0 gives ROUGE-1 26.9, 0.6 29.4, 1.0 32.5, 1.3 35.0, 1.5 35.1, 1.7 34.5, 2.0 33.6 (low ones choose short sentences);
leaving out sentences of over 48 tokens, at 1.0, 32.0. No other size of the network was tried to the end.
Measured: docs/results/systems.md. extract takes 4 minutes on one core; the others were not run to their end.
Command: python experiments/train.py --config=configs/summarization/transformer.py --workdir=runs/summaries \
             --config.data.path=scitldr
"""

import dataclasses

from purelm.config import (
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    as_flag,
    choose,
)


def model(**changes) -> ModelConfig:
    fields = dict(
        context_length=384, num_layers=4, width=192, num_heads=4, feed_forward="swiglu", feed_forward_width=512,
        positions="rope", norm="rms_norm", norm_epsilon=1e-6, qk_norm=True, bias=False, embedding_norm=True,
        zero_outputs=True, initialization="gpt2", initialization_stddev=0.044, embedding_dropout=0.1,
        residual_dropout=0.1)
    return ModelConfig(**(fields | changes))


def optimizer(**changes) -> OptimizerConfig:
    fields = dict(name="muon", learning_rate=0.01, adam_learning_rate=0.005, schedule="wsd", warmup="50", decay="70%",
                  beta1=0.9, beta2=0.98, momentum=0.95, nesterov=True, clip_norm=1.0)
    return OptimizerConfig(**(fields | changes))


# What both tasks read, so that a run of the one can begin from the other.
TOKENIZER = dict(tokenizer="bpe", tokenizer_vocabulary_size=6000)
PAIRS = DataConfig(source_field="document", target_field="summaries", **TOKENIZER)


def extract() -> Config:
    return Config(
        model=model(architecture="encoder_decoder", context_length=160, encoder_layers=1, num_layers=2, width=64,
                    feed_forward_width=176),
        task=TaskConfig(name="sequence_to_sequence", metrics=("rouge",)),
        data=dataclasses.replace(PAIRS, tokenizer_vocabulary_size=3000, bucketing=False),
        decoding=DecodingConfig(candidates="sentences", length_penalty=1.4, max_new_tokens=56),
        optimizer=optimizer(),
        training=TrainingConfig(num_epochs=4, batch_size=16, label_smoothing=0.1, evaluate_every="100%",
                                checkpoint_every="100%"))


def decoder() -> Config:
    return Config(
        model=model(embedding_dropout=0.2, residual_dropout=0.2),
        task=TaskConfig(name="sequence_to_sequence", metrics=("rouge",)),
        data=PAIRS,
        decoding=DecodingConfig(max_new_tokens=64),
        optimizer=optimizer(learning_rate=0.003, adam_learning_rate=0.0015, decay="90%"),
        training=TrainingConfig(num_epochs=8, batch_size=16, label_smoothing=0.1))


def pretrain() -> Config:
    return Config(
        model=model(),
        data=DataConfig(text_field="document", **TOKENIZER),
        optimizer=optimizer(),
        training=TrainingConfig(num_epochs=12, batch_size=16))


def encoder_decoder() -> Config:
    return Config(
        model=model(architecture="encoder_decoder", num_layers=3, encoder_layers=3, embedding_dropout=0.2,
                    residual_dropout=0.2),
        task=TaskConfig(name="sequence_to_sequence", metrics=("rouge",)),
        data=PAIRS,
        decoding=DecodingConfig(beam_size=4, length_penalty=0.6, max_new_tokens=64),
        optimizer=optimizer(),
        training=TrainingConfig(num_epochs=20, batch_size=16, label_smoothing=0.1))


def get_config(recipe: str = "extract"):
    return as_flag(choose({"extract": extract, "decoder": decoder, "pretrain": pretrain,
                           "encoder_decoder": encoder_decoder}, recipe)())
