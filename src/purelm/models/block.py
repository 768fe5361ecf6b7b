"""One layer: attention, cross-attention where there is an encoder, and feed-forward; each with its norms, dropout and
residual sum."""

from __future__ import annotations

import flax.linen as nn
import jax

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.models.attention import Attention
from purelm.models.context import AttentionContext
from purelm.models.dropout import dropout
from purelm.models.dtypes import param_dtype
from purelm.models.feed_forward import FeedForward
from purelm.models.norms import Norm

KeysValues = tuple[jax.Array, jax.Array]


class Block(nn.Module):
    """x_BTD -> x_BTD.

    Pre-norm: x + f(norm(x)) (Radford et al. 2019; Xiong et al. 2020, arXiv 2002.04745). Post-norm: norm(x + f(x))
    (Vaswani et al. 2017, arXiv 1706.03762). Sandwich: x + norm(f(norm(x))) (Ding et al. 2021, CogView, arXiv
    2105.13290; Gemma 2, arXiv 2408.00118). Output: x + norm(f(x)) (Liu et al. 2022, Swin v2, arXiv 2111.09883; OLMo 2,
    2025, arXiv 2501.00656). Parallel: attention a and feed-forward f read the same stream and are summed,
    x + a(norm(x)) + f(norm(x)) (Wang & Komatsuzaki 2021, GPT-J; PaLM, arXiv 2204.02311), with parallel_norms=separate
    each by a norm of its own (Black et al. 2022, GPT-NeoX, arXiv 2204.06745), with post-norm norm(x + a(x) + f(x)).
    Cross-attention stands between the two as a sublayer like them, or third in the sum.
    """

    config: ModelConfig

    def _branch(self, y_BTD: jax.Array, name: str, deterministic: bool) -> jax.Array:
        """A sublayer's output as it is added to the stream: normalized (sandwich, output), dropped out, scaled.

        inverse_sqrt_depth: 1/sqrt(2 x layers), as GPT-2's initialization but for good (De & Smith 2020, arXiv
        2002.10444). rezero: a learned scalar from zero (Bachlechner et al. 2020, arXiv 2003.04887).
        """
        config = self.config
        if config.norm_place in ("sandwich", "output"):
            y_BTD = Norm(config, name=f"{name}_output_norm")(y_BTD)
        if not (deterministic or is_zero(config.residual_dropout)):
            y_BTD = dropout(y_BTD, config.residual_dropout, self.make_rng("dropout"))
        if config.residual_scale == "inverse_sqrt_depth":
            return y_BTD * (2 * config.num_layers) ** -0.5
        if config.residual_scale == "rezero":
            scale = self.param(f"{name}_residual_scale", nn.initializers.zeros, (), param_dtype(config))
            return y_BTD * scale.astype(y_BTD.dtype)
        return y_BTD

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, context: AttentionContext, cached: KeysValues | None = None,
        source: KeysValues | None = None, *, deterministic: bool = True,
    ) -> tuple[jax.Array, KeysValues | None, dict[str, jax.Array | None]]:
        """(x_BTD, this layer's cache, attention weights_BNTS or None by name).

        source: keys and values of what cross-attention reads, where they were computed before.
        """
        config = self.config
        pre, post = config.norm_place in ("pre", "sandwich"), config.norm_place == "post"
        attention = Attention(config, name="attention")
        feed_forward = FeedForward(config, name="feed_forward")
        weights = {}
        if config.parallel_block:
            norm, stream_BTD = Norm(config, name="norm"), x_BTD
            separate = pre and config.parallel_norms == "separate"
            shared_BTD = norm(x_BTD) if pre and not separate else x_BTD

            def read(name: str) -> jax.Array:
                return Norm(config, name=f"{name}_norm")(stream_BTD) if separate else shared_BTD

            h_BTD = read("attention")
            y_BTD, cached, weights["attention_weights"] = attention(h_BTD, context, cached, deterministic=deterministic)
            x_BTD = x_BTD + self._branch(y_BTD, "attention", deterministic)
            if context.cross is not None:
                h_BTD = read("cross_attention")
                y_BTD, weights["cross_attention_weights"] = self._cross(h_BTD, context, source, deterministic)
                x_BTD = x_BTD + self._branch(y_BTD, "cross_attention", deterministic)
            y_BTD = feed_forward(read("feed_forward"), deterministic=deterministic)
            x_BTD = x_BTD + self._branch(y_BTD, "feed_forward", deterministic)
            return norm(x_BTD) if post else x_BTD, cached, weights
        norm = Norm(config, name="attention_norm")
        h_BTD = norm(x_BTD) if pre else x_BTD
        y_BTD, cached, weights["attention_weights"] = attention(h_BTD, context, cached, deterministic=deterministic)
        x_BTD = x_BTD + self._branch(y_BTD, "attention", deterministic)
        x_BTD = norm(x_BTD) if post else x_BTD
        if context.cross is not None:
            norm = Norm(config, name="cross_attention_norm")
            h_BTD = norm(x_BTD) if pre else x_BTD
            y_BTD, weights["cross_attention_weights"] = self._cross(h_BTD, context, source, deterministic)
            x_BTD = x_BTD + self._branch(y_BTD, "cross_attention", deterministic)
            x_BTD = norm(x_BTD) if post else x_BTD
        norm = Norm(config, name="feed_forward_norm")
        h_BTD = norm(x_BTD) if pre else x_BTD
        y_BTD = feed_forward(h_BTD, deterministic=deterministic)
        x_BTD = x_BTD + self._branch(y_BTD, "feed_forward", deterministic)
        return norm(x_BTD) if post else x_BTD, cached, weights

    def _cross(
        self, h_BTD: jax.Array, context: AttentionContext, source: KeysValues | None, deterministic: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """(y_BTD, weights_BNTS): attention to what the encoder made of the source (Vaswani et al. 2017, 3.2.3)."""
        cross_attention = Attention(self.config, name="cross_attention")
        y_BTD, _, weights_BNTS = cross_attention(h_BTD, context.cross, source, deterministic=deterministic)
        return y_BTD, weights_BNTS
