"""Rotary frequencies for contexts longer than those of pretraining (config.rope_scaling)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.config.shapes import rotated_size


def scaled_frequencies(config: ModelConfig, frequencies_R: jax.Array) -> tuple[jax.Array, float]:
    """(frequencies, factor on cosines and sines) from RoPE's own frequencies base^(-2i/R), in radians a position.

    linear: all divided by s = rope_scaling_factor, as if positions were (position interpolation: Chen et al. 2023,
    arXiv 2306.15595). llama3, yarn: see there. The factor is 1 but with yarn.
    """
    if config.rope_scaling == "linear":
        return frequencies_R / config.rope_scaling_factor, 1.0
    if config.rope_scaling == "llama3":
        return _llama3(config, frequencies_R), 1.0
    if config.rope_scaling == "yarn":
        return _yarn(config, frequencies_R), _yarn_factor(config)
    return frequencies_R, 1.0


def _llama3(config: ModelConfig, frequencies_R: jax.Array) -> jax.Array:
    """Divided by s where the wavelength is above original length / low factor, kept where it is below original length /
    high factor, and between in proportion to how often the original length is turned (Llama 3.1: Grattafiori et al.
    2024, arXiv 2407.21783, and Meta's published code)."""
    low, high = config.rope_low_frequency_factor, config.rope_high_frequency_factor
    turns_R = config.rope_original_length * frequencies_R / (2 * math.pi)
    kept_R = jnp.clip((turns_R - low) / (high - low), 0, 1)
    return (1 - kept_R) * frequencies_R / config.rope_scaling_factor + kept_R * frequencies_R


def _yarn(config: ModelConfig, frequencies_R: jax.Array) -> jax.Array:
    """Kept up to the dimension that turns beta_fast times in the original length, divided by s from that of beta_slow
    times on, between on a line over dimensions (Peng et al. 2023, YaRN, arXiv 2309.00071, section 3.2; both bounds are
    rounded to whole dimensions, outwards, as in the authors' code)."""
    rotated = rotated_size(config)

    def dimension(turns: float) -> float:
        return rotated * math.log(config.rope_original_length / (turns * 2 * math.pi)) / (
            2 * math.log(config.rope_base))

    first = max(math.floor(dimension(config.rope_beta_fast)), 0)
    last = min(math.ceil(dimension(config.rope_beta_slow)), rotated - 1)
    width = last - first if last != first else 0.001  # A step, where no dimension is between.
    scaled_R = jnp.clip((jnp.arange(len(frequencies_R), dtype=jnp.float32) - first) / width, 0, 1)
    return frequencies_R / config.rope_scaling_factor * scaled_R + frequencies_R * (1 - scaled_R)


def _yarn_factor(config: ModelConfig) -> float:
    """rope_attention_factor, or 0.1 ln(s) + 1: its square is 1/t of the attention's temperature (equation 22)."""
    if config.rope_attention_factor is not None:
        return config.rope_attention_factor
    return 0.1 * math.log(config.rope_scaling_factor) + 1
