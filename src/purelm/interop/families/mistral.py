"""Mistral (Jiang et al. 2023, arXiv 2310.06825) and later ones of its shape: Llama's decoder with a window on attention
(version 0.1) or without (0.2, 0.3, Nemo)."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.interop.families import llama_like
from purelm.interop.fields import Fields

MODEL_TYPES = ("mistral",)
TASKS = {"MistralForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

_DEFAULTS = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    changes = llama_like.read_common(fields, _DEFAULTS)
    return changes | {"attention_window": llama_like.window(fields)}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    return llama_like.write_common(model) | {"sliding_window": model.attention_window}
