"""The network that a config's architecture names."""

from __future__ import annotations

import flax.linen as nn

from purelm.config import ModelConfig


def make_model(config: ModelConfig) -> nn.Module:
    """Transformer, Recurrent, RecurrentEncoderDecoder or WordVectors, all called as the Transformer is."""
    if config.architecture == "recurrent":
        from purelm.models.recurrent import Recurrent

        return Recurrent(config)
    if config.architecture == "recurrent_encoder_decoder":
        from purelm.models.recurrent import RecurrentEncoderDecoder

        return RecurrentEncoderDecoder(config)
    if config.architecture == "word_vectors":
        from purelm.models.word_vectors import WordVectors

        return WordVectors(config)
    from purelm.models.transformer import Transformer

    return Transformer(config)
