"""What an encoder, a prefix language model and the output layers must be, whatever their weights."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    POSITIONS,
    any_params,
    encoder_decoder,
    first_quick,
    init,
    jit,
    logits,
    small,
    source,
    tokens,
)

from purelm.errors import UserError
from purelm.models import Transformer, init_cache
from purelm.models.choice import choose_implementation
from purelm.models.context import attention_mask
from purelm.tasks.losses import chunked_statistics, statistics


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


@jit
def influence(config, params, tokens_BT, **inputs):
    """[T, S]: the size of d logits of token t / d embedding of token s (tokens all different)."""

    def probed(table):
        changed = {"params": {**params, "embedding": {"embedding": table}}}
        return Transformer(config).apply(changed, tokens_BT, **inputs).logits_BTV[0].sum(axis=-1)

    return jnp.abs(jax.jacobian(probed)(params["embedding"]["embedding"]))[:, tokens_BT[0]].sum(axis=-1)


@pytest.mark.parametrize("positions", first_quick(3, reversed(POSITIONS)))
def test_each_token_of_an_encoder_sees_every_other_of_its_segment(positions):
    config = small(architecture="encoder", positions=positions, tied_embeddings=False, num_layers=1)
    segments = jnp.array([[1] * 5 + [2] * 4 + [0] * 3])
    seen_TS = influence(config, any_params(config), jnp.arange(12)[None], segments_BT=segments) > 0
    np.testing.assert_array_equal(seen_TS, segments[0][:, None] == segments[0][None])  # reddens under a causal mask


def test_a_window_of_an_encoder_has_two_sides():
    config = small(architecture="encoder", tied_embeddings=False, num_layers=1, attention_window=4)
    seen_TS = influence(config, any_params(config), jnp.arange(12)[None]) > 0
    assert [list(np.flatnonzero(seen_TS[t])) for t in (0, 5, 11)] == [[0, 1, 2], [4, 5, 6, 7], [10, 11]]


@pytest.mark.parametrize("changes", [{}, {"positions": "alibi", "attention_window": 6}, {"positions": "t5"}], ids=str)
def test_the_tokens_of_a_prefix_see_each_other(changes):
    config = small(prefix_attention=True, tied_embeddings=False, num_layers=1, **changes)
    prefix_BT = jnp.array([[1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0]])
    segments_BT = jnp.array([[1] * 6 + [2] * 4 + [0] * 2])
    seen_TS = influence(config, any_params(config), jnp.arange(12)[None], prefix_BT=prefix_BT,
                        segments_BT=segments_BT) > 0
    expected = [[segments_BT[0, t] == segments_BT[0, s] and bool(s <= t or (prefix_BT[0, t] and prefix_BT[0, s]))
                 for s in range(12)] for t in range(12)]
    np.testing.assert_array_equal(seen_TS, expected)
    causal_TS = influence(config, any_params(config), jnp.arange(12)[None]) > 0
    assert not np.triu(causal_TS, 1).any()  # without prefix_BT, a decoder as any


@jit
def prefixed(config, params, tokens_BT, prefix_BT, cache=None):
    return Transformer(config).apply({"params": params}, tokens_BT, prefix_BT=prefix_BT, cache=cache)


@pytest.mark.parametrize("positions", first_quick(2, reversed(POSITIONS)))
def test_a_prefix_read_into_a_cache_equals_the_full_forward(positions):
    config = small(prefix_attention=True, positions=positions)
    params, tokens_BT = any_params(config), tokens()
    prefix_BT = jnp.arange(12)[None] < jnp.array([[5], [3]])
    full = prefixed(config, params, tokens_BT, prefix_BT).logits_BTV
    first = prefixed(config, params, tokens_BT[:, :6], prefix_BT[:, :6], init_cache(config, 2, 16))
    second = prefixed(config, params, tokens_BT[:, 6:], None, first.cache)
    assert_close(jnp.concatenate([first.logits_BTV, second.logits_BTV], axis=1), full, 2e-5)
    assert np.abs(full - logits(config, params, tokens_BT)).max() > 1e-3


def test_prefix_mask_by_its_words():
    config = small(prefix_attention=True, attention_window=3)
    prefix = np.array([1, 1, 1, 1, 0, 0], bool)
    mask_BTS = attention_mask(config, jnp.arange(6) + 2, 10, None, jnp.asarray(prefix[None]))
    written = np.concatenate([np.zeros(2, bool), prefix, np.zeros(2, bool)])
    expected = [[abs(t + 2 - s) < 3 and (s <= t + 2 or (prefix[t] and written[s])) for s in range(10)]
                for t in range(6)]
    np.testing.assert_array_equal(mask_BTS[0], expected)


HEADS = [{"head_bias": True, "head_transform": True, "feed_forward": "geglu"}, {"head_scale": "inverse_sqrt_width"},
         {"head_bias": True, "tied_embeddings": False, "logits_softcap": 2.0, "norm_place": "post"}]


@jit
def parts_of_logits(config, params, tokens_BT):
    model, variables = Transformer(config), {"params": params}
    output = model.apply(variables, tokens_BT, method="hidden", collect=True)
    kernel, bias = (model.apply(variables, method=method) for method in ("head_kernel", "head_bias"))
    return output.logits_BTV, output.intermediates["hidden_LBTD"][-1], kernel, bias


@pytest.mark.parametrize("changes", HEADS, ids=str)
def test_hidden_kernel_and_bias_make_the_logits_whole_or_in_chunks(changes):
    config = small(**changes)
    params = any_params(config)
    hidden, last, kernel, bias = parts_of_logits(config, params, tokens())
    assert (bias is None) != config.head_bias
    product = hidden @ kernel + (0 if bias is None else bias)
    cap = config.logits_softcap
    assert_close(logits(config, params, tokens()), product if cap is None else cap * jnp.tanh(product / cap))
    chunked = chunked_statistics(hidden, kernel, bias, tokens(seed=8), 8, cap)
    assert_close(chunked, statistics(logits(config, params, tokens()), tokens(seed=8)))
    assert_close(last, hidden)
    init_headless = partial(Transformer(config).init, method="features")
    headless = jax.eval_shape(init_headless, jax.random.key(0), tokens())["params"]
    assert not {"head", "head_transform"} & set(headless)


@pytest.mark.parametrize("changes", [
    {"architecture": "encoder"}, {"architecture": "encoder_decoder"}, {"prefix_attention": True}], ids=str)
def test_kernels_that_are_causal_are_not_taken(changes, monkeypatch):
    call = {"num_tokens": 128, "cached": False, "collect": False, "training": False}
    for platform, form in (("gpu", "cudnn"), ("tpu", "splash")):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        config = small(head_size=128, compute_dtype="bfloat16", **changes)
        assert choose_implementation(config, **call) == "naive"
        with pytest.raises(UserError, match=f"attention_implementation={form} cannot be used: here it is causal"):
            choose_implementation(dataclasses.replace(config, attention_implementation=form), **call)
        assert choose_implementation(dataclasses.replace(config, attention_implementation="xla"), **call) == "xla"


def test_inputs_that_nobody_reads_or_that_are_missing_are_refused():
    def call(config, **inputs):
        shapes = jax.eval_shape(lambda: Transformer(config).init(jax.random.key(0), tokens()))
        return jax.eval_shape(lambda p: Transformer(config).apply(p, tokens(), **inputs), shapes)

    encoded = jax.eval_shape(lambda p: Transformer(encoder_decoder()).apply(p, source(), method="encode"), {
        "params": init(encoder_decoder(), jax.random.key(0))})
    with pytest.raises(UserError, match="an encoder-decoder reads a source"):
        call(encoder_decoder())
    with pytest.raises(UserError, match="architecture=decoder, which reads none"):
        call(small(), encoded=encoded)
    with pytest.raises(UserError, match="an encoder has no cache"):
        call(small(architecture="encoder"), cache=init_cache(small(), 2, 16))
    with pytest.raises(UserError, match="prefix_attention is off"):
        call(small(), prefix_BT=jnp.ones((2, 12), bool))
    with pytest.raises(UserError, match="token_types is 0"):
        call(small(), token_types_BT=jnp.zeros((2, 12), jnp.int32))
