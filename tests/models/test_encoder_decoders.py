"""What an encoder-decoder must be, whatever its weights."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    POSITIONS,
    SOURCE_SEGMENTS,
    any_params,
    encoder_decoder,
    first_quick,
    init,
    jit,
    loss_and_gradient,
    small,
    source,
    tokens,
    translated,
    translation_logits,
)

from purelm.models import Transformer, unstack_layers
from purelm.models.context import cross_mask


def assert_close(actual, expected, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


def test_cross_mask_by_its_words():
    target, read = np.array([1, 1, 2, 0]), np.array([1, 2, 2, 0, 0])
    mask_BTS = cross_mask(jnp.asarray(target[None]), jnp.asarray(read[None]))
    expected = [[s > 0 and t in (0, s) for s in read] for t in target]
    np.testing.assert_array_equal(mask_BTS[0], expected)
    np.testing.assert_array_equal(cross_mask(None, jnp.asarray(read[None]))[0], (read > 0)[None])
    assert cross_mask(jnp.asarray(target[None]), None) is None


FORMS = [{"positions": positions} for positions in POSITIONS] + [
    {"shared_embeddings": False, "tied_embeddings": False, "num_kv_heads": 2, "qk_norm": True, "encoder_layers": 1},
    {"norm_place": "post", "attention_sink": True, "embedding_norm": True, "attention_implementation": "naive"},
    {"norm_place": "sandwich", "residual_scale": "rezero", "attention_softcap": 2.0},
    {"parallel_block": True, "scan_layers": True, "positions": "rope", "layer_sharing": 2},
    {"parallel_block": True, "norm_place": "post", "attention_window": 3, "attention_implementation": "xla"},
]


@jit
def translation_influence(config, params, source_BS, segments_BS, tokens_BT):
    """[T, S] and [T, T]: the size of d logits of target t / d features of source s, / d embedding of target s."""
    model, variables = Transformer(config), {"params": params}

    def by_source(features_BSD):
        encoded = model.apply(variables, source_BS, source_segments_BS=segments_BS, method="encode")
        encoded = encoded._replace(features_BSD=features_BSD)
        return model.apply(variables, tokens_BT, encoded=encoded).logits_BTV[0].sum(axis=-1)

    def by_target(table):
        features = model.apply(variables, source_BS, source_segments_BS=segments_BS, method="encode")
        changed = {"params": {**params, "embedding": {"embedding": table}}}
        return model.apply(changed, tokens_BT, encoded=features).logits_BTV[0].sum(axis=-1)

    features_BSD = model.apply(variables, source_BS, source_segments_BS=segments_BS, method="encode").features_BSD
    source_TS = jnp.abs(jax.jacobian(by_source)(features_BSD))[:, 0].sum(axis=-1)
    target_TV = jnp.abs(jax.jacobian(by_target)(params["embedding"]["embedding"])).sum(axis=-1)
    return source_TS, target_TV[:, tokens_BT[0]]


@pytest.mark.parametrize("changes", first_quick(2, FORMS[::-3]), ids=str)
def test_each_target_sees_all_of_the_source_and_none_of_what_comes_after_it(changes):
    config = encoder_decoder(**{**changes, "tied_embeddings": False, "scan_layers": True})
    segments_BS = SOURCE_SEGMENTS[1:]
    source_TS, target_TT = translation_influence(
        config, any_params(config), source()[1:], segments_BS, jnp.arange(8)[None])
    assert (source_TS[:, :5] > 0).all()  # reddens where the decoder does not attend to the encoder, or only causally
    assert (source_TS[:, 5:] == 0).all()  # padding
    assert not np.triu(target_TT, 1).any() and (np.diag(target_TT) > 0).all()


@jit
def chained(config, params, source_BS, segments_BS, tokens_BT):
    """Gradients of the mean of sin(logits) by all parameters, and the logits."""

    def total(params):
        output = translated(config, params, source_BS, segments_BS, tokens_BT).logits_BTV
        return jnp.mean(jnp.sin(output)), output

    return jax.grad(total, has_aux=True)(params)


@pytest.mark.parametrize("changes", first_quick(2, FORMS[5:9]), ids=str)
def test_padding_changes_nothing_and_rows_are_independent(changes):
    config = encoder_decoder(**{**changes, "scan_layers": True})
    params, tokens_BT = any_params(config), tokens()
    expected = translation_logits(config, params, source()[1:, :5], None, tokens_BT[1:])
    padded = translation_logits(config, params, source(), SOURCE_SEGMENTS, tokens_BT)
    assert_close(padded[1:], expected, 2e-5)
    other = source().at[1, 5:].set(7)
    assert_close(translation_logits(config, params, other, SOURCE_SEGMENTS, tokens_BT), padded)
    # A row that is all padding, as those that fill up a last batch, hurts no one.
    nothing = SOURCE_SEGMENTS.at[0].set(0)
    gradients, output = chained(config, params, source(), nothing, tokens_BT)
    assert_close(output[1:], expected, 2e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, output)))


@jit
def packed_logits(config, params, source_BS, segments_BS, tokens_BT, segments_BT):
    return translated(config, params, source_BS, segments_BS, tokens_BT, segments_BT=segments_BT).logits_BTV


def test_packed_pairs_equal_each_alone():
    config = encoder_decoder(positions="rope", scan_layers=True)
    params = any_params(config)
    sources, targets = (source()[:1, :3], source()[:1, 3:]), (tokens()[:1, :5], tokens()[:1, 5:])
    segments_BS, segments_BT = jnp.array([[1] * 3 + [2] * 4]), jnp.array([[1] * 5 + [2] * 7])
    # RoPE reads differences alone: positions may go on.
    together = packed_logits(config, params, source()[:1], segments_BS, tokens()[:1], segments_BT)
    alone = [translation_logits(config, params, s, None, t) for s, t in zip(sources, targets)]
    assert_close(together, jnp.concatenate(alone, axis=1))


@pytest.mark.parametrize("changes", [{"architecture": "encoder"}, {"architecture": "encoder_decoder"}], ids=str)
def test_scan_remat_and_xla_change_nothing(changes):
    plain = small(**changes, num_layers=4, layer_sharing=2, attention_implementation="naive")
    params = any_params(plain)

    def outcome(config):
        if config.architecture == "encoder":
            return loss_and_gradient(config, params, tokens())
        return chained(config, params, source(), SOURCE_SEGMENTS, tokens())

    expected = outcome(plain)
    for other in ({"scan_layers": True, "remat": "dots"}, {"attention_implementation": "xla", "remat": "full"}):
        assert_close(outcome(dataclasses.replace(plain, **other)), expected)


LEARNABLE = [{"architecture": "encoder", "head_transform": True, "head_bias": True, "token_types": 1},
             {"architecture": "encoder", "positions": "t5", "relative_buckets": 8, "norm_place": "post"},
             {"head_bias": True, "tied_embeddings": False, "zero_head": True, "zero_outputs": True},
             {"head_scale": "inverse_sqrt_width", "shared_embeddings": False, "positions": "t5", "relative_buckets": 8},
             {"parallel_block": True, "residual_scale": "rezero", "norm": "rms_norm", "initialization": "xavier"},
             {"norm_place": "sandwich", "attention_sink": True, "encoder_layers": 1}]


@jit
def translation_gradient(config, params, source_BS, segments_BS, tokens_BT):
    def total(params):
        output = translated(config, params, source_BS, segments_BS, tokens_BT[:, :-1]).logits_BTV
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(output), tokens_BT[:, 1:, None], axis=-1))

    return jax.grad(total)(params)


@pytest.mark.parametrize("changes", first_quick(3, LEARNABLE), ids=str)
def test_every_parameter_gets_a_gradient_within_a_few_steps(changes):
    config = small(**{"architecture": "encoder_decoder", "scan_layers": True, **changes})
    params = init(config, jax.random.key(0))
    largest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    for _ in range(8):
        if config.architecture == "encoder":
            _, gradient = loss_and_gradient(config, params, tokens(4, 16))
        else:
            gradient = translation_gradient(config, params, source(), SOURCE_SEGMENTS, tokens())
        largest = jax.tree.map(lambda most, g: np.maximum(most, np.abs(g)), largest, gradient)
        params = jax.tree.map(lambda p, g: p - g, params, gradient)
    for path, leaf in jax.tree_util.tree_leaves_with_path(largest):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("attention/key/bias"):
            continue  # the same number on all of a query's scores: the softmax does not see it
        by_layer = leaf.reshape(leaf.shape[0], -1) if "layers" in name else leaf.reshape(1, -1)
        assert (by_layer.max(axis=1) > 1e-12).all(), name


def test_an_encoder_is_the_same_alone_and_beside_a_decoder():
    config = encoder_decoder(positions="rope", shared_embeddings=False, encoder_layers=1)
    params = any_params(config)
    model = Transformer(config)
    alone = Transformer(small(architecture="encoder", positions="rope", num_layers=1))

    @jax.jit
    def both(params):
        encoded = model.apply({"params": params}, source(), source_segments_BS=SOURCE_SEGMENTS, method="encode")
        output = alone.apply({"params": params["encoder"]}, source(), segments_BT=SOURCE_SEGMENTS, method="features")
        return encoded.features_BSD, output.logits_BTV

    assert_close(*both(params))


@jit
def collected(config, params):
    return translated(config, params, source(), SOURCE_SEGMENTS, tokens(), collect=True).intermediates


@pytest.mark.parametrize("scan_layers", first_quick(1, [True, False]))
def test_cross_attention_weights_come_out_by_name(scan_layers):
    config = encoder_decoder(scan_layers=scan_layers)
    weights = collected(config, any_params(config))["cross_attention_weights_LBNTS"]
    assert weights.shape == (2, 2, 4, 12, 7)
    assert_close(weights.sum(axis=-1), np.ones(weights.shape[:-1]))
    assert (weights[:, 1, ..., 5:] == 0).all() and (weights[:, 1, ..., :5] > 0).all()


@jit
def dropped_logits(config, params, key):
    return translated(config, params, source(), SOURCE_SEGMENTS, tokens(), deterministic=False,
                      rngs={"dropout": key}).logits_BTV


def test_dropout_of_both_stacks_needs_a_key_and_depends_on_it():
    rates = dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout", "feed_forward_dropout"), 0.3)
    config = encoder_decoder(**rates, scan_layers=True)
    params = any_params(config)
    one, same, other = (dropped_logits(config, params, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    inputs = (params, source(), SOURCE_SEGMENTS, tokens())
    assert_close(translation_logits(config, *inputs), translation_logits(encoder_decoder(), *inputs))


def test_unstacked_layers_are_the_same_encoder_decoder():
    config = encoder_decoder()
    params = any_params(config)
    inputs = (source(), SOURCE_SEGMENTS, tokens())
    expected = translation_logits(config, params, *inputs)
    assert_close(translation_logits(config, unstack_layers(params), *inputs), expected)
