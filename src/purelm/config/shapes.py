"""Sizes that follow from a ModelConfig, and the combinations of options that cannot be built."""

from __future__ import annotations

import dataclasses
import math

from purelm.config.schema import ModelConfig
from purelm.errors import UserError

TRANSFORMERS = ("decoder", "encoder", "encoder_decoder")
TWO_STACKS = ("encoder_decoder", "recurrent_encoder_decoder")


def head_size(config: ModelConfig) -> int:
    """H: config.head_size, or width / num_heads."""
    return config.width // config.num_heads if config.head_size is None else config.head_size


def num_kv_heads(config: ModelConfig) -> int:
    """K: config.num_kv_heads, or one a query head.

    One is multi-query attention (Shazeer 2019, arXiv 1911.02150), between is grouped-query attention (Ainslie et
    al. 2023, arXiv 2305.13245): query head n reads key/value head n // (N / K).
    """
    return config.num_heads if config.num_kv_heads is None else config.num_kv_heads


def is_gated(config: ModelConfig) -> bool:
    """Whether the feed-forward has a gate (Shazeer 2020)."""
    return "glu" in config.feed_forward or config.feed_forward == "bilinear"


def feed_forward_width(config: ModelConfig) -> int:
    """F: config.feed_forward_width, or 4 x width, or where gated 8/3 x width rounded up to a multiple of 8."""
    if config.feed_forward_width is not None:
        return config.feed_forward_width
    if is_gated(config):
        return -(-8 * config.width // 24) * 8
    return 4 * config.width


def rotated_size(config: ModelConfig) -> int:
    """Dimensions of each head that RoPE rotates: rope_fraction of it, rounded down to whole pairs."""
    return int(head_size(config) * config.rope_fraction) // 2 * 2


def has_bias(config: ModelConfig, switch: bool | None) -> bool:
    """What one of config's switches of biases says, or config.bias where it is none."""
    return config.bias if switch is None else switch


def embedding_width(config: ModelConfig) -> int:
    """E: columns of the table of embeddings, config.embedding_width or width."""
    return config.width if config.embedding_width is None else config.embedding_width


def layer_kinds(config: ModelConfig, num_layers: int | None = None) -> tuple[str, ...]:
    """The kind of attention of each layer (none is config.num_layers of them): attention_pattern, repeated.

    Full and windowed layers take turns in Longformer (Beltagy, Peters & Cohan 2020, arXiv 2004.05150, section 3.1, by
    larger windows higher up), Gemma 2 (2024, arXiv 2408.00118, section 2) and Gemma 3 (2025, arXiv 2503.19786, section
    2). Without a pattern all are of the one kind that the other fields describe, here "window".
    """
    pattern = config.attention_pattern or ("window",)
    return tuple(pattern[number % len(pattern)] for number in range(num_layers or config.num_layers))


def layer_config(config: ModelConfig, kind: str) -> ModelConfig:
    """The config whose attention all layers of this kind have: its window, and the rotation of its positions."""
    if not config.attention_pattern:
        return config
    if kind == "full":
        return dataclasses.replace(config, attention_pattern=(), attention_window=None, rope_local_base=None)
    local = {"rope_base": config.rope_local_base, "rope_scaling": "none"} if config.rope_local_base is not None else {}
    return dataclasses.replace(config, attention_pattern=(), rope_local_base=None, **local)


def layer_period(config: ModelConfig) -> int:
    """Layers after which parameters and attention_pattern both begin anew, so that a scan can repeat them."""
    return math.lcm(config.layer_sharing, len(config.attention_pattern) or 1)


def vocabulary_size(config: ModelConfig) -> int:
    """V. Raises UserError while it is still to be taken from a tokenizer."""
    if config.vocabulary_size is None:
        raise UserError("config.model.vocabulary_size is none: give a number, or finalize with a tokenizer's")
    return config.vocabulary_size


def encoder_layers(config: ModelConfig) -> int:
    """Blocks of the encoder of an encoder-decoder: config.encoder_layers, or num_layers."""
    return config.num_layers if config.encoder_layers is None else config.encoder_layers


def encoder_config(config: ModelConfig) -> ModelConfig:
    """The encoder of an encoder-decoder as a model of its own, without an output layer."""
    return dataclasses.replace(
        config, architecture="encoder", num_layers=encoder_layers(config), encoder_layers=None, shared_embeddings=True,
        tied_embeddings=True, head_transform=False, head_bias=False, head_scale="one", zero_head=False)


def _architecture_requirements(config: ModelConfig) -> list[tuple[bool, str]]:
    """Options that only some architectures have."""
    architecture = f"config.model.architecture={config.architecture}"
    two_ways = config.positions == "t5" and config.architecture in ("encoder", "encoder_decoder")
    return [
        (config.encoder_layers is None or config.architecture in TWO_STACKS,
         f"config.model.encoder_layers has no effect with {architecture}: set num_layers, or choose encoder_decoder"),
        (config.encoder_layers is None or encoder_layers(config) % config.layer_sharing == 0,
         f"config.model.layer_sharing={config.layer_sharing} does not divide "
         f"config.model.encoder_layers={config.encoder_layers}: choose one of {divisors(encoder_layers(config))}"),
        (config.shared_embeddings or config.architecture in TWO_STACKS,
         f"config.model.shared_embeddings=False has no effect with {architecture}, which has one stack: leave it out, "
         "or choose encoder_decoder"),
        (not config.prefix_attention or config.architecture == "decoder",
         f"config.model.prefix_attention has no effect with {architecture}: choose decoder"),
        (not config.token_types or config.architecture != "encoder_decoder",
         f"config.model.token_types has no effect with {architecture}: choose encoder or decoder"),
        (config.head_scale == "one" or config.tied_embeddings,
         f"config.model.head_scale={config.head_scale} is of a tied output layer: "
         "set config.model.tied_embeddings=True"),
        (not two_ways or config.relative_buckets % 4 == 0,
         f"config.model.relative_buckets={config.relative_buckets} of an encoder is halved twice: "
         "choose a multiple of 4"),
    ]


def _requirements(config: ModelConfig) -> list[tuple[bool, str]]:
    return [
        (config.head_size is not None or config.width % config.num_heads == 0,
         f"config.model.num_heads={config.num_heads} does not divide config.model.width={config.width}: "
         f"choose one of {divisors(config.width)}, or set config.model.head_size"),
        (config.num_heads % num_kv_heads(config) == 0,
         f"config.model.num_kv_heads={config.num_kv_heads} does not divide config.model.num_heads={config.num_heads}: "
         f"choose one of {divisors(config.num_heads)}"),
        (config.num_layers % config.layer_sharing == 0,
         f"config.model.layer_sharing={config.layer_sharing} does not divide "
         f"config.model.num_layers={config.num_layers}: choose one of {divisors(config.num_layers)}"),
        (config.positions != "rope" or rotated_size(config) >= 2,
         f"config.model.rope_fraction={config.rope_fraction} of heads of {head_size(config)} leaves no pair to rotate: "
         "make either larger"),
        (config.positions != "sinusoidal" or config.width % 2 == 0,
         f"config.model.positions=sinusoidal needs an even config.model.width, not {config.width}"),
        (config.positions != "t5" or config.relative_max_distance > config.relative_buckets // 2,
         f"config.model.relative_max_distance={config.relative_max_distance} must be above half of "
         f"config.model.relative_buckets={config.relative_buckets}"),
        (not (config.tied_embeddings and config.zero_head),
         "config.model.zero_head needs an output layer of its own: set config.model.tied_embeddings=False"),
        (not (config.zero_outputs and config.residual_scale == "rezero"),
         "config.model.zero_outputs with config.model.residual_scale=rezero can never learn, both factors being zero: "
         "choose one"),
        (not (config.embedding_norm and config.norm == "none"),
         "config.model.embedding_norm has no effect with config.model.norm=none: choose layer_norm or rms_norm"),
        *_norm_requirements(config),
        (config.position_offset == 0 or config.positions == "learned",
         f"config.model.position_offset={config.position_offset} has no effect with config.model.positions="
         f"{config.positions}: choose learned, or leave it out"),
        (not config.sinusoidal_halves or config.positions == "sinusoidal",
         f"config.model.sinusoidal_halves has no effect with config.model.positions={config.positions}: choose "
         "sinusoidal, or leave it out"),
        (config.norm_place == "pre" or config.norm != "none",
         f"config.model.norm_place={config.norm_place} has no effect with config.model.norm=none: "
         "choose layer_norm or rms_norm"),
    ]


def _attention_requirements(config: ModelConfig) -> list[tuple[bool, str]]:
    """Options of attention and its positions that lack what they need, or are set where nothing reads them."""
    scaling, default = config.rope_scaling, ModelConfig()
    readers = {"rope_scaling_factor": ("linear", "llama3", "yarn"), "rope_original_length": ("llama3", "yarn"),
               "rope_low_frequency_factor": ("llama3",), "rope_high_frequency_factor": ("llama3",),
               "rope_beta_fast": ("yarn",), "rope_beta_slow": ("yarn",), "rope_attention_factor": ("yarn",)}
    return [
        (scaling == "none" or config.positions == "rope",
         f"config.model.rope_scaling={scaling} has no effect with config.model.positions={config.positions}: "
         "choose rope"),
        *((scaling in wanted or getattr(config, name) == getattr(default, name),
           f"config.model.{name}={getattr(config, name)} has no effect with config.model.rope_scaling={scaling}: "
           f"leave it out, or choose {' or '.join(wanted)}") for name, wanted in readers.items()),
        (scaling not in ("llama3", "yarn") or config.rope_original_length is not None,
         f"config.model.rope_scaling={scaling} needs config.model.rope_original_length, the context of pretraining: "
         "set that too"),
        (config.rope_low_frequency_factor < config.rope_high_frequency_factor,
         f"config.model.rope_low_frequency_factor={config.rope_low_frequency_factor} must be below "
         f"config.model.rope_high_frequency_factor={config.rope_high_frequency_factor}"),
        (config.rope_beta_slow < config.rope_beta_fast,
         f"config.model.rope_beta_slow={config.rope_beta_slow} must be below "
         f"config.model.rope_beta_fast={config.rope_beta_fast}"),
        (not config.attention_pattern or "window" in config.attention_pattern,
         f"config.model.attention_pattern={config.attention_pattern} has no window in it: leave it and "
         "config.model.attention_window out, or name the layers that have it"),
        (not config.attention_pattern or config.attention_window is not None,
         f"config.model.attention_pattern={config.attention_pattern} needs config.model.attention_window: set that, or "
         "leave the pattern out"),
        (config.rope_local_base is None or "window" in config.attention_pattern,
         f"config.model.rope_local_base={config.rope_local_base} is of the layers with a window in "
         "config.model.attention_pattern: set that too, or rope_base alone"),
        (config.rope_local_base is None or config.positions == "rope",
         f"config.model.rope_local_base={config.rope_local_base} has no effect with "
         f"config.model.positions={config.positions}: choose rope"),
        *((not (config.scan_layers and config.attention_pattern) or layers % layer_period(config) == 0,
           f"config.model.scan_layers repeats {layer_period(config)} layers (config.model.attention_pattern has "
           f"{len(config.attention_pattern)}, config.model.layer_sharing={config.layer_sharing}), which do not divide "
           f"config.model.{name}={layers}: set scan_layers=False")
          for name, layers in (("num_layers", config.num_layers), ("encoder_layers", encoder_layers(config)))),
        (config.qk_norm or config.qk_norm_over == "head",
         f"config.model.qk_norm_over={config.qk_norm_over} has no effect without config.model.qk_norm: set that too"),
    ]


def _norm_requirements(config: ModelConfig) -> list[tuple[bool, str]]:
    """Switches of norms, which some norms do not have."""
    separate = config.parallel_norms == "separate"
    return [
        (not config.norm_offset or config.norm != "none",
         "config.model.norm_offset has no effect with config.model.norm=none: choose layer_norm or rms_norm"),
        (not config.norm_offset or config.norm_scale,
         "config.model.norm_offset has no effect with config.model.norm_scale=False: set that to True"),
        (config.norm_bias is None or config.norm == "layer_norm",
         f"config.model.norm_bias={config.norm_bias} has no effect with config.model.norm={config.norm}: choose "
         "layer_norm, or leave it out"),
        (not separate or config.parallel_block,
         "config.model.parallel_norms=separate has no effect with config.model.parallel_block=False: set that to True, "
         "or leave it out"),
        (not separate or config.norm_place in ("pre", "sandwich"),
         f"config.model.parallel_norms=separate has no effect with config.model.norm_place={config.norm_place}: choose "
         "pre or sandwich"),
        (not separate or config.norm != "none",
         "config.model.parallel_norms=separate has no effect with config.model.norm=none: choose layer_norm or "
         "rms_norm"),
    ]


def check_model(config: ModelConfig) -> None:
    """Raises UserError for a combination of a Transformer's options that cannot be built, or can have no effect."""
    if config.architecture not in TRANSFORMERS:
        return
    for holds, message in _requirements(config) + _attention_requirements(config) + _architecture_requirements(config):
        if not holds:
            raise UserError(message)


def divisors(number: int) -> str:
    """The divisors of a number, for a message."""
    small = [divisor for divisor in range(1, math.isqrt(max(number, 0)) + 1) if number % divisor == 0]
    return ", ".join(map(str, sorted({*small, *(number // divisor for divisor in small)})))
