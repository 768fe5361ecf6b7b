"""In which fields two models compute otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import encoder_layers, has_bias, layer_kinds

BIASES = ("query_key_value_bias", "attention_output_bias", "feed_forward_bias", "norm_bias")
# Fields that are of training, of this machine, or of a window's length where positions are no parameters.
_WITHOUT_EFFECT = frozenset({
    "initialization", "initialization_stddev", "zero_outputs", "zero_head", "embedding_dropout", "attention_dropout",
    "residual_dropout", "feed_forward_dropout", "classifier_dropout", "attention_implementation", "scan_layers",
    "remat", "param_dtype", "compute_dtype"})
# Fields that one scheme of positions reads.
_OF_POSITIONS = {"rope_": "rope", "relative_": "t5", "position_offset": "learned", "sinusoidal_halves": "sinusoidal",
                 "context_length": "learned"}


def differences(model: ModelConfig, other: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Fields in which two resolved models compute otherwise, with both values.

    Where their positions are of two schemes, that is said alone, and not what either scheme has besides.
    """
    mine, theirs = _said(model), _said(other)
    return {field: (mine[field], theirs[field]) for field in mine if mine[field] != theirs[field]
            and (model.positions == other.positions or not field.startswith(tuple(_OF_POSITIONS)))}


def _said(model: ModelConfig) -> Mapping[str, Any]:
    """Every field that changes what is computed, those that follow from others filled in."""
    said = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)
            if field.name not in _WITHOUT_EFFECT}
    for name in BIASES:
        said[name] = has_bias(model, said[name])
    said["norm_bias"] = said["norm_bias"] and model.norm == "layer_norm"
    # All that `bias` says besides is said by the four; a layer before the output has one of its own.
    said["bias"] = model.bias if model.head_transform else said["feed_forward_bias"]
    for start, scheme in _OF_POSITIONS.items():
        said |= {name: None for name in said if name.startswith(start) and model.positions != scheme}
    if model.architecture == "encoder_decoder":
        said["encoder_layers"] = encoder_layers(model)
    if model.attention_pattern:
        kinds = layer_kinds(model, max(model.num_layers, encoder_layers(model)))
        said["attention_pattern"] = () if len(set(kinds)) == 1 else kinds
        said["attention_window"] = model.attention_window if "window" in kinds else None
    return said
