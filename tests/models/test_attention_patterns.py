"""Layers with a window and without in turn, each with its rotation: alone, cached, paged, scanned, by every form."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    SOURCE_SEGMENTS,
    any_params,
    first_quick,
    jit,
    logits,
    loss,
    loss_and_gradient,
    small,
    source,
    tokens,
    translated,
)

from purelm.errors import UserError
from purelm.models import PagedCache, Transformer, cache_bytes, flops_per_token, init_cache, init_pages, unstack_layers
from purelm.models.block import Block
from purelm.models.context import attention_context

LOCAL = {"positions": "rope", "num_kv_heads": 2, "attention_window": 3, "attention_pattern": ("window", "full"),
         "rope_base": 500.0, "rope_local_base": 50.0, "rope_scaling": "linear", "rope_scaling_factor": 4.0}
VARIANTS = [
    {**LOCAL, "num_layers": 3},
    {"positions": "alibi", "attention_window": 4, "attention_pattern": ("full", "window", "window"), "num_layers": 4,
     "layer_sharing": 2, "attention_sink": True},
    {"positions": "t5", "relative_buckets": 8, "attention_window": 2, "attention_pattern": ("window", "full"),
     "attention_implementation": "xla"},
    {"attention_window": 5, "attention_pattern": ("full", "window"), "norm_place": "sandwich", "scan_layers": True},
]


@jit
def collected(config, params):
    return Transformer(config).apply({"params": params}, tokens(), collect=True).intermediates


def test_each_layer_is_that_of_a_model_without_a_pattern():
    # Reddens when a layer has another's window, base or scaling.
    config = small(**{**LOCAL, "num_layers": 4, "attention_pattern": ("window", "full", "full")})
    plain = {"positions": "rope", "num_kv_heads": 2, "num_layers": 4}
    local = small(**plain, attention_window=3, rope_base=50.0)
    full = small(**plain, rope_base=500.0, rope_scaling="linear", rope_scaling_factor=4.0)
    params, places_BT = any_params(config), jnp.arange(12)[None]
    seen = collected(config, params)
    before = [seen["embedding_BTD"], *seen["residual_LBTD"][:-1]]

    @jax.jit
    def each_alone(params, before):
        found = []
        for number, layer in enumerate((local, full, full, local)):
            context = attention_context(layer, "naive", places_BT, places_BT, None, None, None)
            of_layer = jax.tree.map(lambda leaf, number=number: leaf[number], params["layers"])
            after_BTD, _, weights = Block(layer).apply({"params": of_layer}, before[number], context)
            found.append((after_BTD, weights["attention_weights"]))
        return found

    for number, (after_BTD, weights_BNTS) in enumerate(each_alone(params, before)):
        np.testing.assert_allclose(seen["residual_LBTD"][number], after_BTD, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seen["attention_weights_LBNTS"][number], weights_BNTS, atol=1e-5)


@jit
def influences(config, params, tokens_BT):
    """[L, T, T]: how much each layer's stream at t moves with the embedding of token s."""

    def streams(table):
        changed = {"params": {**params, "embedding": {"embedding": table}}}
        output = Transformer(config).apply(changed, tokens_BT, collect=True)
        return output.intermediates["residual_LBTD"][:, 0].sum(axis=-1)

    return jnp.abs(jax.jacobian(streams)(params["embedding"]["embedding"]))[:, :, tokens_BT[0]].sum(axis=-1)


@pytest.mark.parametrize(("architecture", "pattern", "expected"), [
    ("decoder", ("window", "full"), [(2, 0), (9, 0)]), ("decoder", ("full", "window"), [(9, 0), (9, 0)]),
    ("decoder", ("window",), [(2, 0), (4, 0)]), ("encoder", ("window", "full"), [(1, 1), (9, 9)])], ids=str)
def test_a_gradient_reaches_as_far_as_the_windows_of_the_layers_below(architecture, pattern, expected):
    # expected: how many tokens back and ahead, after each layer. The token ids differ, so that columns are tokens.
    config = small(architecture=architecture, positions="rope", attention_window=3, attention_pattern=pattern,
                   norm="none", context_length=10)
    found_LTS = influences(config, any_params(config), jnp.arange(10)[None]) > 0
    distance_TS = np.arange(10)[:, None] - np.arange(10)
    for layer, (back, ahead) in enumerate(expected):
        np.testing.assert_array_equal(found_LTS[layer], (distance_TS <= back) & (distance_TS >= -ahead))


@jit
def read(config, params, tokens_BT, cache, new_lengths=None):
    output = Transformer(config).apply({"params": params}, tokens_BT, cache=cache, new_lengths=new_lengths)
    return output.logits_BTV, output.cache


def in_chunks(config, params, tokens_BT, cache, sizes=(6, *[1] * 8)):
    outputs = []
    for part_BT in jnp.split(tokens_BT, np.cumsum(sizes)[:-1], axis=1):
        chunk, cache = read(config, params, part_BT, cache)
        outputs.append(chunk)
    return jnp.concatenate(outputs, axis=1), cache


@pytest.mark.parametrize("changes", first_quick(1, VARIANTS), ids=str)
@pytest.mark.parametrize("kind", [{}, {"per_row": True}, {"int8": True}], ids=str)
def test_cached_logits_equal_the_full_forward(changes, kind):
    config = small(**changes)
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    found, _ = in_chunks(config, unstack_layers(params), tokens_BT, init_cache(config, 2, 16, **kind))
    error = np.abs(found - full).max() / np.abs(full).max()
    assert error < (0.03 if "int8" in kind else 1e-5)


def test_rows_of_their_own_lengths_have_windows_of_their_own():
    config = small(**LOCAL)
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    lengths_B = jnp.asarray([9, 4])
    cache = read(config, params, tokens_BT[:, :9], init_cache(config, 2, 12, per_row=True), lengths_B)[1]
    next_BT = jnp.stack([tokens_BT[0, 9:11], tokens_BT[1, 4:6]])
    found, _ = read(config, params, next_BT, cache)
    np.testing.assert_allclose(found, jnp.stack([full[0, 9:11], full[1, 4:6]]), rtol=1e-5, atol=1e-5)


PAGE = 4


def paged(config, batch_size, pages=4):
    numbers = 1 + np.random.default_rng(0).permutation(batch_size * pages).reshape(batch_size, pages)
    keys, values = init_pages(config, 1 + batch_size * pages, PAGE)
    return PagedCache(keys, values, jnp.asarray(numbers, jnp.int32), jnp.zeros(batch_size, jnp.int32))


@pytest.fixture
def small_steps(monkeypatch):
    """One page a step of attention and two rows together, so that even these rows take several."""
    monkeypatch.setattr("purelm.models.paged_cache._MOST_KEYS", {"cpu": PAGE})
    monkeypatch.setattr("purelm.models.paged_cache._ROWS_TOGETHER", {"cpu": 2})


@pytest.mark.parametrize("changes", first_quick(1, VARIANTS), ids=str)
def test_paged_logits_equal_the_full_forward(changes, small_steps):
    config = small(**changes)
    params, tokens_BT = any_params(config), tokens(2, 14)
    full = logits(config, params, tokens_BT)
    found, _ = in_chunks(config, unstack_layers(params), tokens_BT, paged(config, 2))
    np.testing.assert_allclose(found, full, rtol=1e-5, atol=1e-5)


def test_pages_outside_the_window_are_skipped_by_its_layers_alone(small_steps):
    config = small(**LOCAL)
    params, tokens_BT = any_params(config), tokens(2, 14)
    _, cache = in_chunks(config, params, tokens_BT[:, :12], paged(config, 2), (6, 6))
    old = cache.tables_BP[:, :2].reshape(-1)  # The window of token 12 begins at token 10, on the third page.

    def spoiled(layer):
        def spoil(pages):
            return tuple(leaf.at[old].set(jnp.nan) if number == layer else leaf for number, leaf in enumerate(pages))

        return cache._replace(keys=spoil(cache.keys), values=spoil(cache.values))

    expected, of_window, of_full = (read(config, params, tokens_BT[:, 12:13], held)[0]
                                    for held in (cache, spoiled(0), spoiled(1)))
    np.testing.assert_array_equal(of_window, expected)
    assert not np.isfinite(of_full).any()


def test_a_ring_holds_windows_and_nothing_else():
    config = small(**{**LOCAL, "attention_pattern": ("window",)})
    params, tokens_BT = any_params(config), tokens(2, 14)
    found, _ = in_chunks(config, params, tokens_BT, init_cache(config, 2, 3, rolling=True))
    np.testing.assert_allclose(found, logits(config, params, tokens_BT), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="a rolling cache forgets, but .*attention_pattern has full layers"):
        init_cache(small(**LOCAL), 2, 3, rolling=True)


SCANNED = [
    {**LOCAL, "num_layers": 4, "residual_dropout": 0.5, "attention_dropout": 0.2},
    {**LOCAL, "num_layers": 12, "layer_sharing": 2, "attention_pattern": ("full", "window", "window"), "remat": "dots"},
]


@pytest.mark.parametrize("changes", first_quick(1, SCANNED), ids=str)
def test_a_scan_over_periods_is_the_loop(changes):
    # Reddens when a period's layers take each other's parameters, kind or dropout.
    configs = [small(**changes, scan_layers=scanned) for scanned in (False, True)]
    params = any_params(configs[0])
    results = [loss_and_gradient(config, params, tokens(), jax.random.key(1)) for config in configs]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


@pytest.mark.slow
@pytest.mark.parametrize("changes", SCANNED, ids=str)
def test_what_a_scan_collects_is_what_the_loop_does(changes):
    configs = [small(**changes, scan_layers=scanned) for scanned in (False, True)]
    params = any_params(configs[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                 *(collected(config, params) for config in configs))


@pytest.mark.parametrize("form", first_quick(1, ["cudnn", "xla"]))
def test_library_attention_gets_each_layers_window(form, monkeypatch):
    config = small(**LOCAL, attention_implementation="naive")
    params, tokens_BT = any_params(config), tokens()
    expected, expected_gradient = loss_and_gradient(config, params, tokens_BT)
    windows, library = [], jax.nn.dot_product_attention

    def recorded(*inputs, **options):
        windows.append(options["local_window_size"])
        return library(*inputs, **{**options, "implementation": "xla"})

    monkeypatch.setattr("jax.nn.dot_product_attention", recorded)
    monkeypatch.setattr("purelm.models.transformer.choose_implementation", lambda *_, **__: form)
    found, gradient = jax.jit(jax.value_and_grad(lambda params: loss(config, params, tokens_BT)))(params)
    assert windows == ([(2, 0), None] if form == "cudnn" else [None, None])  # By flags, or by masks.
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected_gradient)


@pytest.mark.slow
def test_packed_documents_equal_each_alone():
    config = small(**LOCAL)
    params, first, second = any_params(config), tokens(1, 5, seed=5), tokens(1, 7, seed=6)
    places_BT, segments_BT = jnp.array([[*range(5), *range(7)]]), jnp.array([[1] * 5 + [2] * 7])
    together = logits(config, params, jnp.concatenate([first, second], axis=1), places_BT, segments_BT)
    np.testing.assert_allclose(together[:, :5], logits(config, params, first), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together[:, 5:], logits(config, params, second), rtol=1e-5, atol=1e-5)


@jit
def encode(config, params):
    return Transformer(config).apply({"params": params}, source(), method="encode").features_BSD


def test_both_stacks_of_an_encoder_decoder_have_the_pattern():
    config = small(**LOCAL, architecture="encoder_decoder")
    params = any_params(config)
    seen = jax.jit(lambda params: translated(
        config, params, source(), SOURCE_SEGMENTS, tokens(), collect=True).intermediates)(params)
    seen_LTS = seen["attention_weights_LBNTS"][:, 0, 0] > 0
    causal_TS = np.tril(np.ones((12, 12), bool))
    np.testing.assert_array_equal(seen_LTS, [causal_TS & ~np.tril(causal_TS, -3), causal_TS])

    encoded = [encode(dataclasses.replace(config, attention_pattern=pattern), params)
               for pattern in (("window", "full"), ("window",))]
    assert np.abs(encoded[0] - encoded[1]).max() > 1e-3


def test_flops_count_each_layers_window():
    config = small(attention_window=2, attention_pattern=("window", "full", "window"), num_layers=4)
    plain = small(num_layers=4)
    assert flops_per_token(plain, 8) - flops_per_token(config, 8) == 12 * 16 * 3 * (8 - 2)
    both = {"architecture": "encoder_decoder", "encoder_layers": 3}
    saved = (flops_per_token(small(num_layers=4, **both), 8)
             - flops_per_token(dataclasses.replace(config, **both), 8))
    assert saved == 12 * 16 * (3 + 2) * (8 - 2)
    assert cache_bytes(config, 2, 8) == cache_bytes(plain, 2, 8)  # Rows that its window hides are kept too.
