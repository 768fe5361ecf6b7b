"""Qwen3, dense (Yang et al. 2025, arXiv 2505.09388): Qwen2's decoder with each head's queries and keys normalized, no
biases unless asked for, and a head size of its own."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.interop.families import llama_like, qwen2
from purelm.interop.fields import Fields

MODEL_TYPES = ("qwen3",)
TASKS = {"Qwen3ForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

_DEFAULTS = qwen2.DEFAULTS | {"head_dim": 128}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    changes = llama_like.read_common(fields, _DEFAULTS) | {"qk_norm": True} | llama_like.read_attention_bias(fields)
    return changes | qwen2.read_layers(fields, changes["num_layers"])


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    bias = {"attention_bias": llama_like.attention_bias(model)}
    return llama_like.write_common(model) | bias | qwen2.write_layers(model)
