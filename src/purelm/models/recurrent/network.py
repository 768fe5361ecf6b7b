"""The recurrent network: embedding, layers of LSTM or GRU, and the output layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.errors import UserError
from purelm.models.attention_forms import softcap
from purelm.models.embedding import Embedding, Head
from purelm.models.head import head_logits
from purelm.models.recurrent.cells import CellState, zero_state
from purelm.models.recurrent.layers import Layer, directions, drop_steps, feature_size, hidden_size
from purelm.models.recurrent.recurrence import masks_of_segments
from purelm.models.transformer import Output

# The state of each layer, each leaf [B, H].
Carry = tuple[CellState, ...]


def init_carry(config: ModelConfig, batch_size: int) -> Carry:
    """The state before the first token. Raises UserError where there is none to carry on."""
    _check_one_way(config)
    return tuple(zero_state(config.cell, batch_size, hidden_size(config)) for _ in range(config.num_layers))


def _check_one_way(config: ModelConfig) -> None:
    if config.bidirectional:
        raise UserError("a network with config.model.bidirectional=True has no state to go on from, since it reads the "
                        "text from its end too: set it to False, or leave carry out")


class OutputLayer(nn.Module):
    """What a network of recurrent layers needs for logits: subclasses have `embedding`, `head` and `hidden`."""

    config: ModelConfig

    def __call__(self, tokens_BT: jax.Array, **inputs: Any) -> Output:
        """float32 logits in place of what `hidden` gives; `inputs` are those of `hidden`."""
        output = self.hidden(tokens_BT, **inputs)
        return output._replace(logits_BTV=self.logits(output.logits_BTV))

    def logits(self, x_XD: jax.Array) -> jax.Array:
        """float32 logits_XV of what `hidden` gives, or of part of it; X may be several axes."""
        matrix, axis = (self._table(), 1) if self.config.tied_embeddings else (self.head.matrix(), 0)
        logits = head_logits(x_XD.reshape(-1, x_XD.shape[-1]), matrix.astype(x_XD.dtype), axis)
        if self.config.head_bias:
            logits = logits + self.head.offset().astype(jnp.float32)
        return softcap(logits, self.config.logits_softcap).reshape(*x_XD.shape[:-1], -1)

    def head_kernel(self) -> jax.Array:
        """[D, V]: the output layer, or the embedding transposed (Press & Wolf 2017, arXiv 1608.05859)."""
        return self._table().T if self.config.tied_embeddings else self.head.matrix()

    def head_bias(self) -> jax.Array | None:
        """[V], added to the products with head_kernel; None without config.head_bias."""
        return self.head.offset() if self.config.head_bias else None

    def _table(self) -> jax.Array:
        return self.embedding.table()


class Recurrent(OutputLayer):
    """Recurrent network (LSTM: Hochreiter & Schmidhuber 1997; GRU: Cho et al. 2014, arXiv 1406.1078), a language model
    (Mikolov et al. 2010; Zaremba et al. 2014, arXiv 1409.2329) or, with bidirectional, an encoder of texts.

    init(key, tokens_BT) -> {"params": params}; apply({"params": params}, tokens_BT, ...) -> Output, whose cache is the
    state after the last token (None if bidirectional). params: embedding, recurrent_0, recurrent_1, ... and head.
    """

    def setup(self) -> None:
        config = self.config
        self.embedding = Embedding(config)
        self.recurrent = [Layer(config) for _ in range(config.num_layers)]
        if config.head_bias or not config.tied_embeddings:
            self.head = Head(dataclasses.replace(config, width=feature_size(config)))

    def hidden(self, tokens_BT: jax.Array, **inputs: Any) -> Output:
        """The last layer's features in place of logits, which are softcap(x @ head_kernel + head_bias).

        `inputs` are those of `features`.
        """
        return self.features(tokens_BT, **inputs)[0]

    def features(
        self, tokens_BT: jax.Array, *, positions_BT: jax.Array | None = None, segments_BT: jax.Array | None = None,
        carry: Carry | None = None, deterministic: bool = True, collect: bool = False,
        embedding: Embedding | None = None,
    ) -> tuple[Output, tuple[tuple[CellState, ...], ...]]:
        """(Output with x_BTD, D the feature size; the last state of each layer, of each direction).

        tokens_BT: ids below V. positions_BT: not read, since tokens are read in order. segments_BT: 0 is padding, which
        changes no state; the state is zero again where another segment begins than that of the token before. carry:
        Output.cache of the text before, which the row's first token goes on from; none is zero. collect: fill
        Output.intermediates (embedding_BTD, and each layer's output as residual_LBTD and hidden_LBTD). embedding: read
        in place of this network's own. Dropout needs rngs={"dropout": key} and deterministic=False.
        """
        config = self.config
        if carry is not None:
            _check_one_way(config)
        # Time first, from here to the last layer: what the scan's steps slice.
        x_TBD = (self.embedding if embedding is None else embedding)(tokens_BT.T)
        if not (deterministic or is_zero(config.embedding_dropout)):
            x_TBD = drop_steps(config, x_TBD, config.embedding_dropout, self.make_rng("dropout"))
        masks = tuple(masks_of_segments(segments_BT, reverse=name == "backward") for name in directions(config))
        embedding_TBD, outputs, last = x_TBD, [], []
        for number, layer in enumerate(self.recurrent):
            states = None if carry is None else (carry[number],)
            x_TBD, states = layer(x_TBD, states, masks, deterministic=deterministic)
            outputs.append(x_TBD)
            last.append(states)
            if not (deterministic or is_zero(config.residual_dropout)):
                x_TBD = drop_steps(config, x_TBD, config.residual_dropout, self.make_rng("dropout"))
        collected = None
        if collect:
            residual_LBTD = jnp.swapaxes(jnp.stack(outputs), 1, 2)
            collected = {"embedding_BTD": jnp.swapaxes(embedding_TBD, 0, 1), "residual_LBTD": residual_LBTD,
                         "hidden_LBTD": residual_LBTD}
        carry = None if config.bidirectional else tuple(states[0] for states in last)
        return Output(jnp.swapaxes(x_TBD, 0, 1), carry, collected), tuple(last)

    def _table(self) -> jax.Array:
        config = self.config
        if feature_size(config) != config.width:
            raise UserError(
                f"config.model.tied_embeddings needs features of config.model.width={config.width}, but the recurrent "
                f"layers' have {feature_size(config)}: set config.model.tied_embeddings=False, or "
                "config.model.hidden_size")
        return self.embedding.table()
