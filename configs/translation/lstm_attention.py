r"""English to German captions by an LSTM with attention: Bahdanau et al. 2015 (arXiv 1409.0473), data as in Multi30k.

A BiLSTM of 256 units reads; an LSTM of 256 writes, with additive attention before each step (--config.model.
recurrent_attention=luong: Luong et al. 2015, arXiv 1508.04025, after it). Measured on test_2016, cased, by sacreBLEU:
29.7.

More: docs/results/systems.md. Takes under 23 minutes on 2 cores. Reckoned by its FLOPs: 30 minutes.
Command: python experiments/train.py --config=configs/translation/lstm_attention.py --workdir=runs/en_de_lstm \
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
)


def get_config():
    return as_flag(Config(
        model=ModelConfig(
            architecture="recurrent_encoder_decoder", context_length=48, cell="lstm", num_layers=1, encoder_layers=1,
            width=256, bidirectional=True, recurrent_attention="bahdanau", embedding_dropout=0.2,
            residual_dropout=0.2),
        task=TaskConfig(name="sequence_to_sequence", metrics=("bleu", "chrf")),
        data=DataConfig(source_field="en", target_field="de", tokenizer="bpe", tokenizer_vocabulary_size=6000),
        decoding=DecodingConfig(beam_size=5, length_penalty=0.6, max_new_tokens=48),
        optimizer=OptimizerConfig(name="adam", learning_rate=2e-3, schedule="wsd", warmup="100", decay="50%",
                                  clip_norm=1.0),
        training=TrainingConfig(num_epochs=7, batch_size=64, label_smoothing=0.1)))
