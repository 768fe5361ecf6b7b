"""The Transformer: embedding, a stack of blocks, and the output layer; a decoder, an encoder, or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.config.shapes import check_model, encoder_config, layer_config, layer_kinds
from purelm.models.attention_forms import softcap
from purelm.models.block import KeysValues
from purelm.models.cache import access, token_rows
from purelm.models.call_checks import check_call, check_inputs
from purelm.models.choice import choose_implementation
from purelm.models.context import AttentionContext, attention_context, cross_context, paged_context
from purelm.models.dropout import dropout
from purelm.models.dtypes import compute_dtype
from purelm.models.embedding import Embedding, Head, TokenTypes
from purelm.models.feed_forward import ACTIVATIONS, GATES
from purelm.models.head import head_logits
from purelm.models.linear import Linear
from purelm.models.norms import Norm
from purelm.models.paged_cache import PagedCache, paged_access
from purelm.models.positions import LearnedPositions, RelativeBias, sinusoidal
from purelm.models.quantization import Quantized, dequantize
from purelm.models.stack import AnyCache, apply_layers, init_layers, source_keys_values


class Output(NamedTuple):
    """Result of a call.

    logits_BTV: float32 (methods "hidden" and "features": x_BTD in the compute type). cache: the given one with the new
    tokens. intermediates: None, or with collect=True a dict of
      embedding_BTD                what enters the first layer;
      residual_LBTD                the residual stream after each layer;
      hidden_LBTD                  each layer's residual stream taken for the last one, so that the output layer reads
                                   it as a prediction (logit lens: nostalgebraist 2020);
      attention_weights_LBNTS      float32, before dropout;
      cross_attention_weights_LBNTS  the same over the source, of an encoder-decoder.
    """

    logits_BTV: jax.Array
    cache: AnyCache | None
    intermediates: dict[str, jax.Array] | None


class Encoded(NamedTuple):
    """What a decoder reads of its source.

    features_BSD: the encoder's output. segments_BS: the source's, 0 is padding; None has no padding. cross: None, or
    each decoder layer's keys and values of the features, [B * K, S, H] (method "precompute"); then features_BSD is
    read no more, and may be None.
    """

    features_BSD: jax.Array | None
    segments_BS: jax.Array | None
    cross: tuple[KeysValues, ...] | None = None


class Transformer(nn.Module):
    """Vaswani et al. 2017 (arXiv 1706.03762): config.architecture is decoder (Radford et al. 2019), encoder (Devlin et
    al. 2019, arXiv 1810.04805), or encoder_decoder, whose encoder is a Transformer too, at params["encoder"].

    init(key, tokens_BT) -> {"params": params}; apply({"params": params}, tokens_BT, ...) -> Output. params["layers"] is
    one subtree with leaves stacked over layers (see models/stack.py). Raises UserError for options that cannot be
    combined.
    """

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        check_model(config)
        self.embedding = Embedding(config)
        if config.embedding_width is not None:
            self.embedding_projection = Linear(config, config.width, "hidden", bias=False)
            self.head_projection = Linear(config, config.embedding_width, "hidden", bias=False)
        if config.embedding_norm:
            self.embedding_norm = Norm(config)
        if config.positions == "learned":
            self.positions = LearnedPositions(config)
        if config.positions == "t5":
            self.relative_bias = RelativeBias(config)
        if config.token_types:
            self.token_types = TokenTypes(config)
        if config.norm_place != "post":
            self.final_norm = Norm(config)
        if config.head_transform:
            self.head_transform = Linear(config, config.width, "hidden", config.bias)
            self.head_transform_norm = Norm(config)
        if config.head_bias or not config.tied_embeddings:
            self.head = Head(config)
        if config.architecture == "encoder_decoder":
            self.encoder = Transformer(encoder_config(config))
        if self.is_initializing():
            self.param("layers", init_layers, config)

    def __call__(self, tokens_BT: jax.Array, **inputs: Any) -> Output:
        """Logits, of the next token where the model is causal; `inputs` are those of `features`."""
        output = self.hidden(tokens_BT, **inputs)
        return output._replace(logits_BTV=self.logits(output.logits_BTV))

    def logits(self, x_XD: jax.Array) -> jax.Array:
        """float32 logits_XV of what `hidden` gives, or of part of it; X may be several axes."""
        # A tied table is contracted as it lies: transposed first, XLA's CPU backend copies it at each decoded token.
        matrix, axis = (self.embedding.table(), 1) if self.config.tied_embeddings else (self.head.matrix(), 0)
        logits = head_logits(x_XD.reshape(-1, x_XD.shape[-1]), matrix, axis)
        if self.config.head_bias:
            logits = logits + self.head.offset().astype(jnp.float32)
        return softcap(logits, self.config.logits_softcap).reshape(*x_XD.shape[:-1], -1)

    def head_kernel(self) -> jax.Array:
        """[D, V]: the output layer, or the embedding transposed ([E, V]; Press & Wolf 2017, arXiv 1608.05859)."""
        matrix = self.embedding.table() if self.config.tied_embeddings else self.head.matrix()
        if isinstance(matrix, Quantized):
            matrix = dequantize(matrix, compute_dtype(self.config))
        return matrix.T if self.config.tied_embeddings else matrix

    def head_bias(self) -> jax.Array | None:
        """[V], added to the products with head_kernel; None without config.head_bias."""
        return self.head.offset() if self.config.head_bias else None

    def hidden(self, tokens_BT: jax.Array, **inputs: Any) -> Output:
        """What the output layer reads, in place of logits, which are softcap(x_BTD @ head_kernel + head_bias).

        `inputs` are those of `features`. head_transform: norm(activation(linear(x))) as in BERT (Devlin et al. 2019);
        head_scale: x / sqrt(D) before a tied table (T5 v1.0: Raffel et al. 2020, arXiv 1910.10683). A tied table of
        embedding_width reads a projection x_BTE (OPT: Zhang et al. 2022, arXiv 2205.01068).
        """
        config, output = self.config, self.features(tokens_BT, **inputs)
        if not (config.head_transform or self._is_projected()) and config.head_scale == "one":
            return output
        collected = output.intermediates
        if collected is not None:
            collected = {**collected, "hidden_LBTD": self._head_input(collected["hidden_LBTD"])}
        return output._replace(logits_BTV=self._head_input(output.logits_BTV), intermediates=collected)

    def _head_input(self, x: jax.Array) -> jax.Array:
        config = self.config
        if config.head_transform:
            activation = (ACTIVATIONS | GATES)[config.feed_forward]
            x = self.head_transform_norm(activation(self.head_transform(x)))
        if self._is_projected():
            x = self.head_projection(x)
        return x if config.head_scale == "one" else x * config.width ** -0.5

    def _is_projected(self) -> bool:
        return self.config.tied_embeddings and self.config.embedding_width is not None

    def token_embedding(self, tokens_BT: jax.Array) -> jax.Array:
        """x_BTD of tokens alone, without positions; a factorized table's (ALBERT: Lan et al. 2020) projected."""
        x_BTE = self.embedding(tokens_BT)
        return x_BTE if self.config.embedding_width is None else self.embedding_projection(x_BTE)

    def encode(
        self, source_BS: jax.Array, *, source_positions_BS: jax.Array | None = None,
        source_segments_BS: jax.Array | None = None, deterministic: bool = True,
    ) -> Encoded:
        """What an encoder-decoder's encoder makes of the source, for calls' `encoded`; inputs as in `features`."""
        output = self.encoder.features(
            source_BS, positions_BT=source_positions_BS, segments_BT=source_segments_BS, deterministic=deterministic,
            embedding=self.token_embedding if self.config.shared_embeddings else None)
        return Encoded(output.logits_BTV, source_segments_BS)

    def precompute(self, encoded: Encoded) -> Encoded:
        """With the keys and values that every later call would compute again."""
        layers = self.get_variable("params", "layers")
        return encoded._replace(cross=source_keys_values(self.config, layers, encoded.features_BSD))

    def features(
        self, tokens_BT: jax.Array, *, positions_BT: jax.Array | None = None, segments_BT: jax.Array | None = None,
        token_types_BT: jax.Array | None = None, prefix_BT: jax.Array | None = None, encoded: Encoded | None = None,
        cache: AnyCache | None = None, new_lengths: jax.Array | None = None, deterministic: bool = True,
        collect: bool = False, embedding: Callable[[jax.Array], jax.Array] | None = None,
    ) -> Output:
        """The final, normalized x_BTD of the stack in place of logits.

        tokens_BT: ids below V. positions_BT: each token's index in its segment; none counts from the cache's length.
        segments_BT: attention stays inside a segment, of the source too; none is one for all. token_types_BT: below
        config.token_types; none is all 0. prefix_BT: True on a prompt's tokens, which see each other both ways
        (config.prefix_attention; with a cache, a prompt comes in one call). encoded: of an encoder-decoder, what
        `encode` gave. cache: what was seen before. new_lengths: int32, a scalar or [B], how many of the T tokens are no
        padding, which is on the right and which the cache forgets; none is all. collect: fill Output.intermediates.
        embedding: read in place of the model's own `token_embedding`. Dropout needs rngs={"dropout": key} and
        deterministic=False.
        """
        config = self.config
        num_tokens = tokens_BT.shape[1]
        if self.is_initializing() and config.architecture == "encoder_decoder" and encoded is None:
            encoded = self.encode(tokens_BT)
        check_call(config, num_tokens, segments_BT, cache, new_lengths, collect)
        check_inputs(config, token_types_BT, prefix_BT, encoded)
        if positions_BT is None:
            positions_BT = jnp.arange(num_tokens)[None] if cache is None else token_rows(cache.length, num_tokens)
        x_BTD = self._embed(tokens_BT, positions_BT, token_types_BT, embedding, deterministic)
        implementation = choose_implementation(
            config, num_tokens=num_tokens, cached=cache is not None, collect=collect or self.is_initializing(),
            training=not deterministic)
        cross = None
        if encoded is not None:
            cross = cross_context(implementation, encoded.features_BSD, segments_BT, encoded.segments_BS)
        contexts = {kind: self._context(layer_config(config, kind), implementation, positions_BT, segments_BT,
                                        prefix_BT, cross, cache, new_lengths)
                    for kind in dict.fromkeys(layer_kinds(config))}
        if self.is_initializing():
            return Output(self._final(x_BTD), cache, None)
        rates = (config.attention_dropout, config.residual_dropout, config.feed_forward_dropout)
        drops = not (deterministic or all(map(is_zero, rates)))
        dropout_key = self.make_rng("dropout") if drops else None
        layers = self.get_variable("params", "layers")
        embedding_BTD = x_BTD
        x_BTD, cache, seen = apply_layers(
            config, layers, x_BTD, contexts, cache, dropout_key,
            sources=None if encoded is None else encoded.cross, collect=collect)
        collected = None
        if seen is not None:
            residual_LBTD = seen.pop("residual")
            collected = {"embedding_BTD": embedding_BTD, "residual_LBTD": residual_LBTD,
                         "hidden_LBTD": self._final(residual_LBTD),
                         **{f"{name}_LBNTS": weights for name, weights in seen.items()}}
        return Output(self._final(x_BTD), cache, collected)

    def _final(self, x: jax.Array) -> jax.Array:
        return x if self.config.norm_place == "post" else self.final_norm(x)

    def _embed(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, token_types_BT: jax.Array | None,
        embedding: Callable[[jax.Array], jax.Array] | None, deterministic: bool,
    ) -> jax.Array:
        """Embedding, plus absolute positions and token types, normalized and dropped out where asked for."""
        config = self.config
        x_BTD = (self.token_embedding if embedding is None else embedding)(tokens_BT)
        if config.positions == "learned":
            x_BTD = x_BTD + self.positions(positions_BT)
        if config.positions == "sinusoidal":
            sines_BTD = sinusoidal(positions_BT, config.width, halves=config.sinusoidal_halves)
            x_BTD = x_BTD + sines_BTD.astype(x_BTD.dtype)
        if config.token_types:
            x_BTD = x_BTD + self.token_types(token_types_BT)
        if config.embedding_norm:
            x_BTD = self.embedding_norm(x_BTD)
        if not (deterministic or is_zero(config.embedding_dropout)):
            x_BTD = dropout(x_BTD, config.embedding_dropout, self.make_rng("dropout"))
        return x_BTD

    def _context(
        self, config: ModelConfig, implementation: str, positions_BT: jax.Array, segments_BT: jax.Array | None,
        prefix_BT: jax.Array | None, cross: AttentionContext | None, cache: AnyCache | None,
        new_lengths: jax.Array | None,
    ) -> AttentionContext:
        """What all layers of one kind share, whose config is given. With a cache, a key's position is how many tokens
        its row held before."""
        relative = self.relative_bias if config.positions == "t5" else None
        if isinstance(cache, PagedCache):
            bias_ND = None
            if relative is not None:  # By distance, so that its size does not follow the queries' number.
                bias_ND = relative(jnp.arange(cache.capacity)[None], jnp.zeros((1, 1), jnp.int32))[0, :, :, 0]
            use = paged_access(config, cache, positions_BT, new_lengths, bias_ND, prefix_BT)
            return paged_context(config, use, cross)
        key_positions_BS, use = positions_BT, None
        if cache is not None:
            use = access(cache, positions_BT.shape[1], config.attention_window, new_lengths)
            key_positions_BS = jnp.arange(cache.capacity)[None] if use.key_rows_BS is None else use.key_rows_BS
        bias_BNTS = None if relative is None else relative(positions_BT, key_positions_BS)
        return attention_context(
            config, implementation, positions_BT, key_positions_BS, bias_BNTS, segments_BT, use, prefix_BT, cross)
