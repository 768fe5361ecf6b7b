"""The Transformer language model: embedding, a stack of blocks, and the output layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import check_model
from purelm.errors import UserError
from purelm.models.attention_forms import softcap
from purelm.models.cache import Cache
from purelm.models.choice import choose_implementation
from purelm.models.context import AttentionContext, attention_context
from purelm.models.dropout import dropout
from purelm.models.embedding import Embedding, Head
from purelm.models.head import head_logits
from purelm.models.norms import Norm
from purelm.models.positions import LearnedPositions, RelativeBias, sinusoidal
from purelm.models.stack import apply_layers, init_layers


class Output(NamedTuple):
    """Result of a call.

    logits_BTV: float32 (method "hidden": the final x_BTD in the compute type). cache: the given one with the new
    tokens. intermediates: None, or with collect=True a dict of
      embedding_BTD                what enters the first layer;
      residual_LBTD                the residual stream after each layer;
      hidden_LBTD                  the same after the final norm, so that softcap(hidden @ head_kernel) reads each layer
                                   as a prediction (logit lens: nostalgebraist 2020);
      attention_weights_LBNTS      float32, before dropout.
    """

    logits_BTV: jax.Array
    cache: Cache | None
    intermediates: dict[str, jax.Array] | None


class Transformer(nn.Module):
    """Decoder-only language model (Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019).

    init(key, tokens_BT) -> {"params": params}; apply({"params": params}, tokens_BT, ...) -> Output. params["layers"] is
    one subtree with leaves stacked over layers (see models/stack.py). Raises UserError for options that cannot be
    combined.
    """

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        check_model(config)
        self.embedding = Embedding(config)
        if config.embedding_norm:
            self.embedding_norm = Norm(config)
        if config.positions == "learned":
            self.positions = LearnedPositions(config)
        if config.positions == "t5":
            self.relative_bias = RelativeBias(config)
        if config.norm_place != "post":
            self.final_norm = Norm(config)
        if not config.tied_embeddings:
            self.head = Head(config)
        if self.is_initializing():
            self.param("layers", init_layers, config)

    def __call__(self, tokens_BT: jax.Array, **inputs: Any) -> Output:
        """Next-token logits; `inputs` are those of `hidden`."""
        output = self.hidden(tokens_BT, **inputs)
        x_BTD = output.logits_BTV
        # A tied table is contracted as it lies: transposed first, XLA's CPU backend copies it at each decoded token.
        matrix, axis = (self.embedding.table(), 1) if self.config.tied_embeddings else (self.head(), 0)
        logits = head_logits(x_BTD.reshape(-1, x_BTD.shape[-1]), matrix.astype(x_BTD.dtype), axis)
        logits_BTV = softcap(logits, self.config.logits_softcap).reshape(*tokens_BT.shape, -1)
        return output._replace(logits_BTV=logits_BTV)

    def head_kernel(self) -> jax.Array:
        """[D, V]: the output layer, or the embedding transposed (Press & Wolf 2017, arXiv 1608.05859); no bias."""
        return self.embedding.table().T if self.config.tied_embeddings else self.head()

    def hidden(
        self, tokens_BT: jax.Array, *, positions_BT: jax.Array | None = None, segments_BT: jax.Array | None = None,
        cache: Cache | None = None, deterministic: bool = True, collect: bool = False,
    ) -> Output:
        """The normalized final x_BTD in place of logits: logits are softcap(x_BTD @ head_kernel).

        tokens_BT: ids below V. positions_BT: each token's index in its segment; none counts from the cache's length.
        segments_BT: attention stays inside a segment; none is one for all. cache: what was seen before. collect: fill
        Output.intermediates. Dropout needs rngs={"dropout": key} and deterministic=False.
        """
        config = self.config
        num_tokens = tokens_BT.shape[1]
        start = None if cache is None else cache.length
        self._check_call(num_tokens, segments_BT, cache)
        if positions_BT is None:
            positions_BT = jnp.arange(num_tokens)[None] + (0 if start is None else start)
        x_BTD = self._embed(tokens_BT, positions_BT, deterministic)
        implementation = choose_implementation(
            config, num_tokens=num_tokens, cached=cache is not None, collect=collect or self.is_initializing(),
            training=not deterministic)
        context = self._context(implementation, positions_BT, segments_BT, cache)
        if self.is_initializing():
            return Output(self._final(x_BTD), cache, None)
        drops = config.attention_dropout or config.residual_dropout or config.feed_forward_dropout
        dropout_key = self.make_rng("dropout") if drops and not deterministic else None
        layers = self.get_variable("params", "layers")
        embedding_BTD = x_BTD
        x_BTD, cache, collected = apply_layers(config, layers, x_BTD, context, cache, dropout_key, collect=collect)
        if collected is not None:
            collected["embedding_BTD"] = embedding_BTD
            collected["hidden_LBTD"] = self._final(collected["residual_LBTD"])
        return Output(self._final(x_BTD), cache, collected)

    def _final(self, x: jax.Array) -> jax.Array:
        return x if self.config.norm_place == "post" else self.final_norm(x)

    def _embed(self, tokens_BT: jax.Array, positions_BT: jax.Array, deterministic: bool) -> jax.Array:
        """Embedding, plus absolute positions, normalized and dropped out where asked for."""
        config = self.config
        x_BTD = self.embedding(tokens_BT)
        if config.positions == "learned":
            x_BTD = x_BTD + self.positions(positions_BT)
        if config.positions == "sinusoidal":
            x_BTD = x_BTD + sinusoidal(positions_BT, config.width).astype(x_BTD.dtype)
        if config.embedding_norm:
            x_BTD = self.embedding_norm(x_BTD)
        if config.embedding_dropout and not deterministic:
            x_BTD = dropout(x_BTD, config.embedding_dropout, self.make_rng("dropout"))
        return x_BTD

    def _context(
        self, implementation: str, positions_BT: jax.Array, segments_BT: jax.Array | None, cache: Cache | None
    ) -> AttentionContext:
        """What all layers share. With a cache, a key's position is its row in the cache."""
        if cache is None:
            key_positions_BS, start = positions_BT, None
        else:
            key_positions_BS, start = jnp.arange(cache.capacity)[None], cache.length
        relative_bias = self.relative_bias(positions_BT, key_positions_BS) if self.config.positions == "t5" else None
        return attention_context(
            self.config, implementation, positions_BT, key_positions_BS, relative_bias, segments_BT, start)

    def _check_call(self, num_tokens: int, segments_BT: jax.Array | None, cache: Cache | None) -> None:
        config = self.config
        if cache is None and config.positions == "learned" and num_tokens > config.context_length:
            raise UserError(f"{num_tokens} tokens do not fit config.model.context_length={config.context_length} "
                            "learned positions: give fewer tokens")
        if cache is not None and segments_BT is not None:
            raise UserError("segments_BT cannot be given with a cache, which holds one segment a row: give one of them")
        if cache is not None and num_tokens > cache.capacity:
            raise UserError(f"{num_tokens} tokens do not fit a cache of {cache.capacity}: make it longer")
