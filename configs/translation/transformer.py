r"""Translation by an encoder-decoder from scratch: Vaswani et al. 2017, small, pre-norm, with Muon.

Recipes (the argument after the colon):
  multi30k  captions, English to German (Elliott et al. 2016), 29,000 pairs; judged on test_2016, cased, by sacreBLEU.
            Measured: 39.7.
  tatoeba   sentences, English to Chinese, 27,000 pairs; sacreBLEU's zh tokenizer. Measured: 40.3.

More: docs/results/systems.md. Takes under 25 minutes on 2 cores (multi30k), under 30 on one (tatoeba).
Command: python experiments/train.py --config=configs/translation/transformer.py:multi30k --workdir=runs/en_de \
             --config.data.path=multi30k_en_de
"""

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
    """Pre-RMSNorm, RoPE, QK-norm and SwiGLU; one table for source, target and output."""
    fields = dict(
        architecture="encoder_decoder", context_length=48, num_layers=3, encoder_layers=3, width=128, num_heads=4,
        feed_forward="swiglu", feed_forward_width=256, positions="rope", rope_base=1000.0, norm="rms_norm",
        norm_epsilon=1e-6, qk_norm=True, bias=False, embedding_norm=True, zero_outputs=True,
        initialization="gpt2", initialization_stddev=0.044, embedding_dropout=0.1, residual_dropout=0.1)
    return ModelConfig(**(fields | changes))


def optimizer(**changes) -> OptimizerConfig:
    fields = dict(name="muon", learning_rate=0.01, adam_learning_rate=0.005, schedule="wsd", warmup="100", decay="60%",
                  beta1=0.9, beta2=0.98, momentum=0.95, nesterov=True, clip_norm=1.0)
    return OptimizerConfig(**(fields | changes))


def multi30k() -> Config:
    return Config(
        model=model(),
        task=TaskConfig(name="sequence_to_sequence", metrics=("bleu", "chrf")),
        data=DataConfig(source_field="en", target_field="de", tokenizer="bpe", tokenizer_vocabulary_size=6000),
        decoding=DecodingConfig(beam_size=5, length_penalty=0.6, max_new_tokens=48),
        optimizer=optimizer(),
        training=TrainingConfig(num_epochs=15, batch_size=128, label_smoothing=0.1))


def tatoeba() -> Config:
    return Config(
        model=model(context_length=32),
        task=TaskConfig(name="sequence_to_sequence", metrics=("bleu", "chrf"), bleu_tokenizer="zh"),
        data=DataConfig(source_field="en", target_field="zh", tokenizer="bpe", tokenizer_vocabulary_size=8000),
        decoding=DecodingConfig(beam_size=5, length_penalty=0.6, max_new_tokens=32),
        optimizer=optimizer(),
        training=TrainingConfig(num_epochs=15, batch_size=128, label_smoothing=0.1))


def get_config(recipe: str = "multi30k"):
    return as_flag(choose({"multi30k": multi30k, "tatoeba": tatoeba}, recipe)())
