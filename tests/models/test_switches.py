from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    SOURCE_SEGMENTS,
    init,
    jit,
    logits,
    loss_and_gradient,
    random_params,
    small,
    source,
    tokens,
    training_logits,
    translation_logits,
)

from purelm.config import ModelConfig
from purelm.config.applies import reads
from purelm.config.shapes import TRANSFORMERS
from purelm.errors import UserError
from purelm.models import Transformer

# field -> (what must change, the base it is changed on, its other value). "parameters": their shapes, types or initial
# values. "outputs": the logits of the same parameters. "training": the same, with dropout. "program": what is compiled.
ENCODER_DECODER = {"architecture": "encoder_decoder"}
LLAMA3 = {"positions": "rope", "rope_scaling": "llama3", "rope_scaling_factor": 8.0, "rope_original_length": 16}
YARN = {"positions": "rope", "rope_scaling": "yarn", "rope_scaling_factor": 8.0, "rope_original_length": 64,
        "rope_base": 100.0, "rope_beta_fast": 4.0, "head_size": 16}
LOCAL = {"positions": "rope", "attention_window": 3, "attention_pattern": ("window", "full")}
CHANGES = {
    "architecture": ("outputs", {}, "encoder"),
    "encoder_layers": ("parameters", ENCODER_DECODER, 1),
    "shared_embeddings": ("parameters", ENCODER_DECODER, False),
    "prefix_attention": ("outputs", {}, True),
    "token_types": ("parameters", {}, 2),
    "head_transform": ("parameters", {}, True),
    "head_bias": ("parameters", {}, True),
    "head_scale": ("outputs", {}, "inverse_sqrt_width"),
    "vocabulary_size": ("parameters", {}, 31),
    "context_length": ("parameters", {}, 20),
    "num_layers": ("parameters", {}, 3),
    "width": ("parameters", {}, 32),
    "num_heads": ("outputs", {}, 2),
    "num_kv_heads": ("parameters", {}, 2),
    "head_size": ("parameters", {}, 8),
    "feed_forward": ("outputs", {}, "gelu_tanh"),
    "feed_forward_width": ("parameters", {}, 24),
    "positions": ("outputs", {"positions": "none"}, "alibi"),
    "position_offset": ("parameters", {}, 2),
    "sinusoidal_halves": ("outputs", {"positions": "sinusoidal"}, True),
    "rope_base": ("outputs", {"positions": "rope"}, 500.0),
    "rope_scaling": ("outputs", LLAMA3, "yarn"),
    "rope_scaling_factor": ("outputs", {"positions": "rope", "rope_scaling": "linear"}, 8.0),
    "rope_original_length": ("outputs", LLAMA3, 64),
    "rope_low_frequency_factor": ("outputs", LLAMA3, 2.0),
    "rope_high_frequency_factor": ("outputs", LLAMA3, 8.0),
    "rope_beta_fast": ("outputs", YARN, 2.0),
    "rope_beta_slow": ("outputs", YARN, 3.0),
    "rope_attention_factor": ("outputs", YARN, 2.0),
    "rope_fraction": ("outputs", {"positions": "rope"}, 0.5),
    "relative_buckets": ("parameters", {"positions": "t5"}, 8),
    "relative_max_distance": ("outputs", {"positions": "t5", "relative_buckets": 8}, 12),
    "norm": ("outputs", {"bias": False}, "rms_norm"),
    "norm_place": ("parameters", {}, "post"),
    "norm_scale": ("parameters", {}, False),
    "norm_offset": ("parameters", {}, True),
    "norm_bias": ("parameters", {}, False),
    "norm_epsilon": ("outputs", {}, 0.5),
    "embedding_norm": ("parameters", {}, True),
    "qk_norm": ("parameters", {}, True),
    "qk_norm_over": ("parameters", {"qk_norm": True}, "all_heads"),
    "attention_scale": ("outputs", {}, 2.0),
    "attention_window": ("outputs", {}, 3),
    "attention_pattern": ("outputs", {"attention_window": 3}, ("full", "window")),
    "rope_local_base": ("outputs", LOCAL, 300.0),
    "attention_softcap": ("outputs", {}, 0.1),
    "attention_sink": ("parameters", {}, True),
    "attention_implementation": ("program", {"attention_implementation": "naive"}, "xla"),
    "logits_softcap": ("outputs", {}, 0.1),
    "bias": ("parameters", {}, False),
    "query_key_value_bias": ("parameters", {}, False),
    "attention_output_bias": ("parameters", {}, False),
    "feed_forward_bias": ("parameters", {}, False),
    "tied_embeddings": ("parameters", {}, False),
    "embedding_width": ("parameters", {}, 8),
    "embedding_scale": ("outputs", {}, "sqrt_width"),
    "residual_scale": ("outputs", {}, "inverse_sqrt_depth"),
    "initialization": ("parameters", {}, "xavier"),
    "initialization_stddev": ("parameters", {}, 0.1),
    "zero_outputs": ("parameters", {}, True),
    "zero_head": ("parameters", {"tied_embeddings": False}, True),
    "embedding_dropout": ("training", {}, 0.5),
    "attention_dropout": ("training", {}, 0.5),
    "residual_dropout": ("training", {}, 0.5),
    "feed_forward_dropout": ("training", {}, 0.5),
    "parallel_block": ("parameters", {}, True),
    "parallel_norms": ("parameters", {"parallel_block": True}, "separate"),
    "layer_sharing": ("parameters", {}, 2),
    "scan_layers": ("program", {}, True),
    "remat": ("program", {}, "full"),
    "param_dtype": ("parameters", {}, "bfloat16"),
    "compute_dtype": ("outputs", {}, "bfloat16"),
}
# What each further value of a switch changes on the base of small_models.
VALUES = [
    ("feed_forward", value) for value in
    ("relu", "silu", "squared_relu", "glu", "geglu", "geglu_tanh", "swiglu", "reglu", "bilinear")] + [
    ("positions", value) for value in ("none", "sinusoidal", "rope", "t5")] + [
    ("norm", "none"), ("norm_place", "sandwich"), ("norm_place", "output"), ("residual_scale", "rezero"),
    ("initialization", "lecun"), ("remat", "dots")]


def same_values(one, other):
    if jax.tree.map(lambda a: (a.shape, a.dtype), one) != jax.tree.map(lambda a: (a.shape, a.dtype), other):
        return False
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


@jit
def prefix_logits(config, params):
    return Transformer(config).apply({"params": params}, tokens(), prefix_BT=jnp.arange(12)[None] < 5).logits_BTV


def outputs(config, params):
    if config.architecture == "encoder_decoder":
        return translation_logits(config, params, source(), SOURCE_SEGMENTS, tokens())
    if config.prefix_attention:
        return prefix_logits(config, params)
    return logits(config, params, tokens())


def program(config):
    params = init(config, jax.random.key(0))
    gradient = jax.grad(lambda p: Transformer(config).apply({"params": p}, tokens()).logits_BTV.sum())
    return re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(gradient)(params)))


# Read by what stands on a Transformer's features, not by it (tests/models/test_classifier.py).
CLASSIFIER = ("num_classes", "pooling", "pooling_transform", "classifier_dropout")
FIELDS = [field.name for field in dataclasses.fields(ModelConfig)
          if field.name not in CLASSIFIER and any(reads(name, field.name) for name in TRANSFORMERS)]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_something(field):
    # A field that is accepted and ignored reddens here; a new field without a row is a KeyError.
    what, base, value = CHANGES[field]
    config, changed = small(**base), small(**{**base, field: value})
    if what == "parameters":
        assert not same_values(init(config, jax.random.key(0)), init(changed, jax.random.key(0)))
    elif what == "program":
        assert program(config) != program(changed)
    else:
        params = random_params(config)
        assert same_values(init(config, jax.random.key(0)), init(changed, jax.random.key(0)))
        if what == "outputs":
            one, other = (outputs(c, params) for c in (config, changed))
        else:
            one, other = (training_logits(c, params, tokens(), jax.random.key(1)) for c in (config, changed))
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize(("field", "value"), VALUES)
def test_further_values_of_a_switch_change_the_program_or_the_parameters(field, value):
    config, changed = small(), small(**{field: value})
    values = [init(c, jax.random.key(0)) for c in (config, changed)]
    assert program(config) != program(changed) or not same_values(*values)


LEARNABLE = [{"feed_forward": value} for value in
             ("gelu", "relu", "squared_relu", "silu", "gelu_tanh", "glu", "geglu", "swiglu", "reglu", "bilinear")] + [
    {"norm": "rms_norm", "qk_norm": True, "embedding_norm": True, "attention_sink": True},
    {"norm": "none"},
    {"norm_place": "post", "positions": "t5", "relative_buckets": 8},
    {"norm_place": "sandwich", "initialization": "xavier"},
    {"norm_place": "output", "norm_offset": True, "embedding_width": 8},
    {"parallel_block": True, "parallel_norms": "separate", "bias": False, "query_key_value_bias": True},
    {"parallel_block": True, "residual_scale": "rezero"},
    {"parallel_block": True, "norm_place": "sandwich", "residual_scale": "inverse_sqrt_depth"},
    {"initialization": "lecun", "tied_embeddings": False, "zero_head": True, "zero_outputs": True},
    {"param_dtype": "bfloat16", "scan_layers": True, "num_kv_heads": 1},
]


@pytest.mark.parametrize("changes", LEARNABLE, ids=str)
def test_every_parameter_gets_a_gradient_within_a_few_steps(changes):
    config = small(**{"positions": "rope", **changes})
    params, tokens_BT = init(config, jax.random.key(0)), tokens(4, 16)
    largest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    for _ in range(4):
        _, gradient = loss_and_gradient(config, params, tokens_BT)
        largest = jax.tree.map(lambda most, g: np.maximum(most, np.abs(g.astype(jnp.float32))), largest, gradient)
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    for path, leaf in jax.tree_util.tree_leaves_with_path(largest):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("attention/key/bias") and config.positions != "rope":
            continue  # the same number on all of a query's scores: the softmax does not see it
        by_layer = leaf.reshape(config.num_layers, -1) if name.startswith("layers") else leaf.reshape(1, -1)
        assert (by_layer.max(axis=1) > 1e-12).all(), name  # reddens when two factors in a row start at zero


def test_zero_outputs_start_every_block_as_the_identity():
    config = small(zero_outputs=True)
    variables = {"params": init(config, jax.random.key(0))}
    collected = Transformer(config).apply(variables, tokens(), collect=True).intermediates
    np.testing.assert_array_equal(collected["residual_LBTD"][-1], collected["embedding_BTD"])


REFUSED = [
    ({"attention_pattern": ("full", "window")}, "attention_pattern=.* needs config.model.attention_window: set that"),
    ({"attention_pattern": ("full",), "attention_window": 3}, r"attention_pattern=\('full',\) has no window in it"),
    ({"positions": "rope", "rope_local_base": 9.0}, "rope_local_base=9.0 is of the layers with a window"),
    ({**LOCAL, "positions": "alibi", "rope_local_base": 9.0}, "rope_local_base=9.0 has no effect .*positions=alibi"),
    ({**LOCAL, "scan_layers": True, "num_layers": 3}, "scan_layers repeats 2 layers .* config.model.num_layers=3: set"),
    ({**LOCAL, "scan_layers": True, "num_layers": 6, "layer_sharing": 3, "attention_pattern": ("window", "full") * 2},
     "scan_layers repeats 12 layers .*layer_sharing=3.*, which do not divide config.model.num_layers=6"),
    ({**LOCAL, **ENCODER_DECODER, "scan_layers": True, "encoder_layers": 1}, "divide config.model.encoder_layers=1"),
    ({"rope_scaling": "linear"}, "rope_scaling=linear has no effect with config.model.positions=learned"),
    ({"positions": "rope", "rope_scaling_factor": 2.0}, "rope_scaling_factor=2.0 has no effect .*rope_scaling=none"),
    ({**LLAMA3, "rope_scaling": "linear"}, "rope_original_length=16 has no effect with .*rope_scaling=linear"),
    ({**LLAMA3, "rope_beta_fast": 16.0}, "rope_beta_fast=16.0 has no effect .*llama3: leave it out, or choose yarn"),
    ({**YARN, "rope_low_frequency_factor": 2.0}, "rope_low_frequency_factor=2.0 has no effect .*yarn"),
    ({**LLAMA3, "rope_original_length": None}, "rope_scaling=llama3 needs config.model.rope_original_length"),
    ({**LLAMA3, "rope_low_frequency_factor": 4.0}, "must be below config.model.rope_high_frequency_factor=4.0"),
    ({**YARN, "rope_beta_slow": 4.0}, "rope_beta_slow=4.0 must be below config.model.rope_beta_fast=4.0"),
    ({"qk_norm_over": "all_heads"}, "qk_norm_over=all_heads has no effect without config.model.qk_norm"),
    ({"width": 18}, "num_heads=4 does not divide config.model.width=18"),
    ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide config.model.num_heads=4"),
    ({"layer_sharing": 2, "num_layers": 3}, "layer_sharing=2 does not divide config.model.num_layers=3"),
    ({"positions": "rope", "rope_fraction": 0.3}, "leaves no pair to rotate"),
    ({"positions": "sinusoidal", "width": 15, "num_heads": 3}, "needs an even config.model.width, not 15"),
    ({"positions": "t5", "relative_max_distance": 16}, "relative_max_distance=16 must be above half"),
    ({"zero_head": True}, "zero_head needs an output layer of its own"),
    ({"zero_outputs": True, "residual_scale": "rezero"}, "can never learn"),
    ({"norm": "none", "embedding_norm": True}, "embedding_norm has no effect"),
    ({"norm": "none", "norm_offset": True}, "norm_offset has no effect with config.model.norm=none"),
    ({"norm_scale": False, "norm_offset": True}, "norm_offset has no effect with config.model.norm_scale=False"),
    ({"norm": "rms_norm", "norm_bias": False}, "norm_bias=False has no effect with config.model.norm=rms_norm"),
    ({"norm": "none", "norm_place": "output"}, "norm_place=output has no effect"),
    ({"parallel_norms": "separate"}, "parallel_norms=separate has no effect with config.model.parallel_block=False"),
    ({"parallel_block": True, "parallel_norms": "separate", "norm_place": "post"},
     "parallel_norms=separate has no effect with config.model.norm_place=post"),
    ({"parallel_block": True, "parallel_norms": "separate", "norm": "none"}, "separate has no effect .*norm=none"),
    ({"position_offset": 2, "positions": "rope"}, "position_offset=2 has no effect with config.model.positions=rope"),
    ({"sinusoidal_halves": True}, "sinusoidal_halves has no effect with config.model.positions=learned"),
    ({"norm": "none", "norm_place": "post"}, "norm_place=post has no effect"),
    ({"vocabulary_size": None}, "vocabulary_size is none"),
    ({"encoder_layers": 2}, "encoder_layers has no effect with config.model.architecture=decoder"),
    ({**ENCODER_DECODER, "encoder_layers": 3, "layer_sharing": 2}, "does not divide config.model.encoder_layers=3"),
    ({"shared_embeddings": False}, "shared_embeddings=False has no effect with config.model.architecture=decoder"),
    ({"architecture": "encoder", "prefix_attention": True}, "prefix_attention has no effect .*architecture=encoder"),
    ({**ENCODER_DECODER, "token_types": 2}, "token_types has no effect .*architecture=encoder_decoder"),
    ({"tied_embeddings": False, "head_scale": "inverse_sqrt_width"}, "head_scale=inverse_sqrt_width is of a tied"),
    ({**ENCODER_DECODER, "positions": "t5", "relative_buckets": 6}, "relative_buckets=6 of an encoder"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=str)
def test_combinations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(Transformer(small(**changes)).init, jax.random.key(0), tokens())
