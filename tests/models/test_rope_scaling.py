"""Scaled rotary frequencies, against the formulas of transformers and against attention computed by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from small_models import any_params, logits, small, tokens
from test_switches import LLAMA3, YARN

from purelm.config import Config
from purelm.config.shapes import rotated_size
from purelm.models.attention import Attention
from purelm.models.context import attention_context
from purelm.models.positions import rotate, rotation
from purelm.training.lifted import program_key, with_values

LARGE = {"head_size": 128, "rope_base": 500_000.0}
CASES = [
    {"rope_scaling": "linear", "rope_scaling_factor": 8.0, "head_size": 16, "rope_base": 1_000_000.0},
    {"rope_scaling": "linear", "rope_scaling_factor": 2.5, "head_size": 80, "rope_fraction": 0.25},
    {"rope_scaling": "llama3", "rope_scaling_factor": 8.0, "rope_original_length": 8192, **LARGE},
    {"rope_scaling": "llama3", "rope_scaling_factor": 32.0, "rope_original_length": 64, "head_size": 64,
     "rope_low_frequency_factor": 1.5, "rope_high_frequency_factor": 6.0, "rope_fraction": 0.5},
    {"rope_scaling": "yarn", "rope_scaling_factor": 4.0, "rope_original_length": 32_768, **LARGE},
    {"rope_scaling": "yarn", "rope_scaling_factor": 16.0, "rope_original_length": 256, "head_size": 96,
     "rope_beta_fast": 20.0, "rope_beta_slow": 2.0, "rope_attention_factor": 1.7, "rope_fraction": 0.75},
    {"rope_scaling": "yarn", "rope_scaling_factor": 3.0, "rope_original_length": 8, "head_size": 16},  # One dimension.
    {"rope_scaling": "yarn", "rope_scaling_factor": 1.0, "rope_original_length": 4, "head_size": 8},  # Below a turn.
]


def theirs(config):
    """(frequencies, factor on cosines and sines) by transformers."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": config.rope_scaling, "rope_theta": config.rope_base,
                  "factor": config.rope_scaling_factor, "partial_rotary_factor": config.rope_fraction,
                  "original_max_position_embeddings": config.rope_original_length,
                  "low_freq_factor": config.rope_low_frequency_factor,
                  "high_freq_factor": config.rope_high_frequency_factor, "beta_fast": config.rope_beta_fast,
                  "beta_slow": config.rope_beta_slow, "attention_factor": config.rope_attention_factor}
    wanted = {"linear": (), "llama3": ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
              "yarn": ("beta_fast", "beta_slow", "attention_factor", "original_max_position_embeddings")}
    common = ("rope_type", "rope_theta", "factor", "partial_rotary_factor")
    parameters = {name: parameters[name] for name in (*common, *wanted[config.rope_scaling])
                  if parameters[name] is not None}
    length = int((config.rope_original_length or 64) * config.rope_scaling_factor)
    other = transformers.LlamaConfig(head_dim=config.head_size, hidden_size=config.num_heads * config.head_size,
                                     num_attention_heads=config.num_heads, max_position_embeddings=length,
                                     rope_parameters=parameters)
    frequencies, factor = ROPE_INIT_FUNCTIONS[config.rope_scaling](other)
    return frequencies.numpy(), factor


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_rotation_is_that_of_transformers(changes):
    config = small(positions="rope", **changes)
    frequencies, factor = theirs(config)
    positions = np.array([[0, 1, 5, 63]])
    angles = positions[..., None].astype(np.float32) * frequencies
    cos, sin = rotation(config, positions)
    assert cos.shape == (1, 4, 1, rotated_size(config) // 2)
    # Reddens with another bound, direction of the ramp, or a factor that is left out.
    np.testing.assert_allclose(cos[:, :, 0], np.cos(angles) * factor, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(sin[:, :, 0], np.sin(angles) * factor, rtol=1e-5, atol=2e-5)
    plain_cos, _ = rotation(small(positions="rope", head_size=config.head_size, rope_base=config.rope_base,
                                  rope_fraction=config.rope_fraction), positions)
    if config.rope_scaling_factor > 1:
        assert np.abs(plain_cos - cos).max() > 1e-3


def test_yarns_factor_multiplies_the_scores_twice():
    config = small(**YARN, num_layers=1, rope_fraction=0.5)
    x_BTD = np.random.default_rng(0).standard_normal((1, 6, 16)).astype(np.float32)
    params = {name: {leaf: value[0] for leaf, value in tree.items()}
              for name, tree in any_params(config)["layers"]["attention"].items()}
    context = attention_context(config, "naive", np.arange(6)[None], np.arange(6)[None], None, None, None)
    _, _, weights_BNTS = Attention(config).apply({"params": params}, x_BTD, context, None, deterministic=True)
    # By hand: angles p f, with frequencies and the factor from transformers.
    frequencies, factor = theirs(config)
    angles = np.arange(6)[:, None] * frequencies

    def turned(name):
        y_TNH = (x_BTD[0] @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])).reshape(6, 4, 16)
        first, second, rest = y_TNH[..., :4], y_TNH[..., 4:8], y_TNH[..., 8:]
        cos, sin = factor * np.cos(angles)[:, None], factor * np.sin(angles)[:, None]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)

    scores = np.einsum("tnh,snh->nts", turned("query"), turned("key")) / 4
    scores = np.where(np.tril(np.ones((6, 6), bool)), scores, -np.inf)
    expected = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(weights_BNTS[0], expected / expected.sum(-1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_linear_scaling_is_positions_divided():
    config = small(positions="rope", rope_scaling="linear", rope_scaling_factor=4.0, num_kv_heads=2)
    params, tokens_BT = any_params(config), tokens()
    far = logits(config, params, tokens_BT, 4 * np.arange(12)[None])
    plain = small(positions="rope", num_kv_heads=2)
    np.testing.assert_allclose(far, logits(plain, params, tokens_BT, np.arange(12)[None]), rtol=1e-5, atol=1e-5)


def test_a_rotation_by_another_base_is_another_program_with_yarn_alone():
    def key(base, **changes):
        model = small(positions="rope", rope_base=base, **changes)
        return program_key(Config(model=model)), model

    shared = {name: value for name, value in LLAMA3.items() if name != "positions"}
    assert key(100.0, **shared)[0] == key(200.0, **shared)[0]
    yarn = {name: value for name, value in YARN.items() if name not in ("positions", "rope_base")}
    # Reddens when a traced base reaches the dimensions that yarn rounds.
    assert key(100.0, **yarn)[0] != key(200.0, **yarn)[0]
    _, model = key(100.0, **shared)
    turned = jax.jit(lambda base: rotate(
        np.ones((1, 3, 1, 4), np.float32),
        *rotation(with_values(Config(model=model), {"model.rope_base": base}).model, np.arange(3)[None])))
    expected = rotate(np.ones((1, 3, 1, 4), np.float32), *rotation(key(200.0, **shared)[1], np.arange(3)[None]))
    np.testing.assert_allclose(turned(200.0), expected, rtol=1e-5, atol=1e-6)
