"""Several hypotheses a row that go on from one prompt or source, and from one another: a model's side of beam search.

A Transformer's hypotheses are branches of one text: the keys and values of the prompt are there once a row, those of
each new token once, where they were written, and a hypothesis sees the rows that its own tokens wrote. So nothing is
copied when hypotheses are dropped and doubled, and each key is read once a step for all of them. (The hypotheses are
what the model sees as T tokens of a row; a mask and positions of their own make them branches.) A recurrent network's
hypotheses are rows of its state, which move.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.models import decoding
from purelm.models.cache import Cache, init_cache
from purelm.models.context import AttentionContext
from purelm.models.positions import alibi_bias
from purelm.models.recurrent import decoding as recurrent_decoding
from purelm.models.transformer import Encoded, Transformer

Params = Any


class Branches(NamedTuple):
    """A Transformer's memory of T hypotheses a row: fit as the carry of a lax.while_loop.

    cache: of prompt and hypotheses; a step writes T rows of it. positions_BS: where in the text the token of each row
    of the cache stands. seen_BTS: the rows that each hypothesis is made of. encoded: of an encoder-decoder's source.
    """

    cache: Cache
    positions_BS: jax.Array
    seen_BTS: jax.Array
    encoded: Encoded | None


class _Branching(Transformer):
    """A Transformer whose cache's rows stand at positions_BS, and whose tokens see mask_BTS of them, and in layers with
    a window those in it."""

    positions_BS: jax.Array | None = None
    mask_BTS: jax.Array | None = None

    def _context(
        self, config: ModelConfig, implementation: str, positions_BT: jax.Array, *others: Any
    ) -> AttentionContext:
        context, bias_BNTS = super()._context(config, implementation, positions_BT, *others), None
        if config.positions == "t5":
            bias_BNTS = self.relative_bias(positions_BT, self.positions_BS)
        if config.positions == "alibi":
            bias_BNTS = alibi_bias(config.num_heads, positions_BT, self.positions_BS)
        mask_BTS = self.mask_BTS
        if config.attention_window is not None:
            mask_BTS &= positions_BT[:, :, None] - self.positions_BS[:, None] < config.attention_window
        return context._replace(bias_BNTS=bias_BNTS, mask_BTS=mask_BTS)


def start_prompts(config: ModelConfig, params: Params, prompt_BT: jax.Array, lengths_B: jax.Array, *, beam_size: int,
                  length: int) -> Any:
    """A language model's state after the prompts without their last tokens, which the first step reads.

    prompt_BT: a row's prompt is its first lengths_B tokens, at least one; the others are not read. beam_size:
    hypotheses a row. length: steps that there is room for. Raises UserError for an architecture that continues no text.
    """
    if config.architecture == "recurrent":
        carry = recurrent_decoding.read(config, params, prompt_BT, lengths_B - 1)
        return _repeated(carry, prompt_BT.shape[0], beam_size)
    if config.architecture != "decoder":
        raise UserError(f"config.model.architecture={config.architecture} continues no prompt: choose decoder or "
                        "recurrent")
    rows, size = prompt_BT.shape
    cache = init_cache(config, rows, size)
    # The last token is among them for a prompt that is read both ways; its row is seen by no hypothesis, since the
    # first step writes it again.
    prefix = {}
    if config.prefix_attention:
        prefix = {"prefix_BT": jnp.arange(size) < lengths_B[:, None]}
    cache = Transformer(config).apply({"params": params}, prompt_BT, cache=cache, method="hidden", **prefix).cache

    def lengthen(layer: jax.Array) -> jax.Array:
        return jnp.pad(layer, ((0, 0), (0, beam_size * length), (0, 0)))

    cache = cache._replace(keys=jax.tree.map(lengthen, cache.keys), values=jax.tree.map(lengthen, cache.values))
    return _branches(cache, lengths_B - 1, size, beam_size, None)


def start_sources(config: ModelConfig, params: Params, source_BS: jax.Array, source_segments_BS: jax.Array | None, *,
                  beam_size: int, length: int) -> Any:
    """The state before the first target token; arguments as `decoding.start`'s and `start_prompts`'."""
    if config.architecture == "recurrent_encoder_decoder":
        state = decoding.start(config, params, source_BS, source_segments_BS, length)
        return _repeated(state, source_BS.shape[0], beam_size)
    encoded = decoding.start(config, params, source_BS, source_segments_BS, length).encoded
    # Rows of the cache are no positions here, of which learned ones have fewer.
    anywhere = dataclasses.replace(config, positions="none")
    cache = init_cache(anywhere, source_BS.shape[0], beam_size * length)
    return _branches(cache, jnp.zeros(source_BS.shape[0], jnp.int32), 0, beam_size, encoded)


def _branches(cache: Cache, read_B: jax.Array, prompt_size: int, beam_size: int, encoded: Encoded | None) -> Branches:
    rows_S = jnp.arange(cache.capacity)
    new_S = (rows_S - prompt_size) // beam_size
    positions_BS = jnp.where(rows_S < prompt_size, rows_S, read_B[:, None] + new_S)
    seen_BS = (rows_S < prompt_size) & (rows_S < read_B[:, None])
    seen_BTS = jnp.broadcast_to(seen_BS[:, None], (len(read_B), beam_size, len(rows_S)))
    return Branches(cache, positions_BS, seen_BTS, encoded)


def _repeated(state: Any, rows: int, beam_size: int) -> Any:
    return recurrent_decoding.take_rows(state, jnp.repeat(jnp.arange(rows), beam_size))


def step(config: ModelConfig, params: Params, tokens_BT: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """(float32 logits_BTV of what follows each hypothesis' next token tokens_BT, the state after them).

    Steps of a Transformer are quicker with unstack_layers(params), as made once before the loop.
    """
    if not isinstance(state, Branches):
        logits_XV, state = recurrent_decoding.step(config, params, tokens_BT.reshape(-1, 1), state)
        return logits_XV.reshape(*tokens_BT.shape, -1), state
    cache, width = state.cache, tokens_BT.shape[1]
    positions_BT = jax.lax.dynamic_slice_in_dim(state.positions_BS, cache.length, width, axis=1)
    own_TS = cache.length + jnp.arange(width)[:, None] == jnp.arange(cache.capacity)
    seen_BTS = state.seen_BTS | own_TS
    model = _Branching(config, positions_BS=state.positions_BS, mask_BTS=seen_BTS)
    output = model.apply(
        {"params": params}, tokens_BT, positions_BT=positions_BT, cache=cache, encoded=state.encoded)
    return output.logits_BTV, state._replace(cache=output.cache, seen_BTS=seen_BTS)


def follow(state: Any, parents_BT: jax.Array) -> Any:
    """The state whose hypothesis t of row b is the given one's hypothesis parents_BT[b, t] of that row."""
    if isinstance(state, Branches):
        return state._replace(seen_BTS=jnp.take_along_axis(state.seen_BTS, parents_BT[:, :, None], axis=1))
    rows, width = parents_BT.shape
    rows_X = (jnp.arange(rows)[:, None] * width + parents_BT).reshape(-1)
    return recurrent_decoding.take_rows(state, rows_X, same_source=True)
