"""Two recurrent networks with attention between: one reads the source, the other writes the target."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.config.shapes import encoder_layers
from purelm.errors import UserError
from purelm.models.embedding import Embedding, Head
from purelm.models.recurrent.attention import SourceAttention
from purelm.models.recurrent.cells import CellParameters, CellState
from purelm.models.recurrent.decoder import DecoderCarry, DecoderParameters, Dropped, Memory, Source, decode
from purelm.models.recurrent.layers import Cell, Dense, drop_steps, dropout_mask, feature_size, hidden_size
from purelm.models.recurrent.network import OutputLayer, Recurrent
from purelm.models.transformer import Encoded, Output


def recurrent_encoder_config(config: ModelConfig) -> ModelConfig:
    """The encoder as a network of its own, without an output layer."""
    return dataclasses.replace(
        config, architecture="recurrent", num_layers=encoder_layers(config), encoder_layers=None, tied_embeddings=True,
        head_bias=False)


class DecoderLayer(nn.Module):
    """params {"forward": a cell}, as a one-way layer has them."""

    config: ModelConfig
    input_size: int

    def setup(self) -> None:
        self.forward = Cell(self.config, self.input_size)

    def __call__(self) -> CellParameters:
        return self.forward()


class RecurrentEncoderDecoder(OutputLayer):
    """Recurrent translation with attention (Bahdanau et al. 2015, arXiv 1409.0473; Luong et al. 2015, arXiv
    1508.04025), by config.recurrent_attention; with config.bidirectional the encoder reads both ways.

    init(key, tokens_BT) -> {"params": params} of both networks: encoder/recurrent_0, ... (encoder/embedding without
    shared_embeddings) and embedding, initial_0, ..., recurrent_0, ..., attention, readout and head.
    A row is one source and one target: of segments only 0, which is padding, is told apart.
    """

    def setup(self) -> None:
        config = self.config
        self.embedding = Embedding(config)
        self.encoder = Recurrent(recurrent_encoder_config(config))
        self.attention = SourceAttention(config)
        parts = 2 if config.cell == "lstm" else 1
        self.initial = [Dense(config, parts * hidden_size(config)) for _ in range(config.num_layers)]
        fed = feature_size(config) if config.recurrent_attention == "bahdanau" else config.width
        self.recurrent = [DecoderLayer(config, hidden_size(config) if number else config.width + fed)
                          for number in range(config.num_layers)]
        self.readout = Dense(config, config.width)
        if config.head_bias or not config.tied_embeddings:
            self.head = Head(config)

    def encode(
        self, source_BS: jax.Array, *, source_positions_BS: jax.Array | None = None,
        source_segments_BS: jax.Array | None = None, deterministic: bool = True,
    ) -> Encoded:
        """What the decoder reads of the source, for calls' `encoded`: features_BSD, D the encoder's feature size, and
        as `cross` the Source, made once. Inputs as those of `Recurrent.features`; 0 in the segments is padding."""
        output, states = self.encoder.features(
            source_BS, positions_BT=source_positions_BS, segments_BT=_one_segment(source_segments_BS),
            deterministic=deterministic, embedding=self.embedding if self.config.shared_embeddings else None)
        source = Source(self.attention.keys(output.logits_BTV), self._initial(states))
        return Encoded(output.logits_BTV, source_segments_BS, source)

    def _initial(self, states: tuple[tuple[CellState, ...], ...]) -> DecoderCarry:
        """tanh(W s + b) for each layer, s the last states of the encoder's layer as far from the top, both ways
        (Bahdanau et al. 2015, appendix A.2.2, takes the backward one's alone)."""
        config, cells = self.config, []
        for number, dense in enumerate(self.initial):
            read = states[max(number + len(states) - config.num_layers, 0)]
            last_BX = jnp.concatenate(jax.tree.leaves(read), axis=-1)
            start_BX = jnp.tanh(dense(last_BX)).astype(jnp.float32)
            h_BH, c_BH = jnp.split(start_BX, 2, axis=-1) if config.cell == "lstm" else (start_BX, None)
            cells.append(CellState(h_BH, c_BH))
        if config.recurrent_attention == "bahdanau":
            return DecoderCarry(tuple(cells), None)
        return DecoderCarry(tuple(cells), jnp.zeros((last_BX.shape[0], config.width), jnp.float32))

    def hidden(
        self, tokens_BT: jax.Array, *, positions_BT: jax.Array | None = None, segments_BT: jax.Array | None = None,
        encoded: Encoded | None = None, carry: DecoderCarry | None = None, deterministic: bool = True,
        collect: bool = False,
    ) -> Output:
        """The readout x_BTD in place of logits, which are softcap(x @ head_kernel + head_bias).

        tokens_BT: ids below V. positions_BT: not read. segments_BT: 0 is padding, which changes no state. encoded: of
        `encode`. carry: Output.cache of the tokens before; none is the source's. collect: fill Output.intermediates
        with embedding_BTD and cross_attention_weights_BTS (float32). Dropout needs rngs={"dropout": key} and
        deterministic=False. Raises UserError without encoded.
        """
        config = self.config
        if encoded is None:
            if not self.is_initializing():
                raise UserError("an encoder-decoder reads a source: give encoded=, the result of method 'encode'")
            encoded = self.encode(tokens_BT)
        x_TBD = self.embedding(tokens_BT.T)
        embedding_TBD = x_TBD
        if not (deterministic or is_zero(config.embedding_dropout)):
            x_TBD = drop_steps(config, x_TBD, config.embedding_dropout, self.make_rng("dropout"))
        parameters = DecoderParameters(
            tuple(layer() for layer in self.recurrent), self.attention.parameters(), self._readout())
        segments_BS = encoded.segments_BS
        memory = Memory(encoded.cross.keys_BSA, encoded.features_BSD, None if segments_BS is None else segments_BS > 0)
        real_TB1 = None if segments_BT is None else (segments_BT.T > 0)[..., None]
        x_TBD, carry, weights_TBS = decode(
            config.cell, parameters, x_TBD, encoded.cross.carry if carry is None else carry, memory,
            self._dropped(tokens_BT.shape, deterministic), real_TB1, collect=collect)
        if not (deterministic or is_zero(config.residual_dropout)):
            x_TBD = drop_steps(config, x_TBD, config.residual_dropout, self.make_rng("dropout"))
        collected = None
        if collect:
            collected = {"embedding_BTD": jnp.swapaxes(embedding_TBD, 0, 1),
                         "cross_attention_weights_BTS": jnp.swapaxes(weights_TBS, 0, 1)}
        return Output(jnp.swapaxes(x_TBD, 0, 1), carry, collected)

    def _readout(self) -> tuple[jax.Array, jax.Array]:
        config = self.config
        size = hidden_size(config) + feature_size(config)
        return self.readout.matrix(size + config.width if config.recurrent_attention == "bahdanau" else size)

    def _dropped(self, shape: tuple[int, int], deterministic: bool) -> Dropped:
        config, (B, T) = self.config, shape
        state, between = [None] * config.num_layers, [None] * (config.num_layers - 1)
        if not (deterministic or is_zero(config.recurrent_dropout)):
            state = [dropout_mask((B, hidden_size(config)), config.recurrent_dropout, self.make_rng("dropout"))
                     for _ in state]
        if not (deterministic or is_zero(config.residual_dropout)):
            ones_TBH = jnp.ones((T, B, hidden_size(config)), jnp.float32)
            between = [drop_steps(config, ones_TBH, config.residual_dropout, self.make_rng("dropout")) for _ in between]
        return Dropped(tuple(state), tuple(between))


def _one_segment(segments_BS: jax.Array | None) -> jax.Array | None:
    return None if segments_BS is None else (segments_BS > 0).astype(jnp.int32)
