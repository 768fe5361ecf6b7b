"""Qwen2 (Yang et al. 2024, arXiv 2407.10671) and Qwen2.5 (arXiv 2412.15115): Llama's decoder with biases on queries,
keys and values, and where asked for a window in the layers from max_window_layers on."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import head_size
from purelm.interop.families import llama_like
from purelm.interop.fields import Fields

MODEL_TYPES = ("qwen2",)
TASKS = {"Qwen2ForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

DEFAULTS = {
    "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22_016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    fields.require("use_mrope", False, "rotary positions of images cannot be taken over", default=False)
    changes = llama_like.read_common(fields, DEFAULTS) | {"query_key_value_bias": True}
    return changes | read_layers(fields, changes["num_layers"])


def read_layers(fields: Fields, num_layers: int) -> dict[str, Any]:
    """attention_window and attention_pattern of Qwen's fields: with use_sliding_window, layers from max_window_layers
    on have a window where layer_types does not say otherwise."""
    tokens = llama_like.window(fields)
    if not fields.take("use_sliding_window", False, bool):
        tokens = None
    whole = fields.take("max_window_layers", 28, int)
    kinds = ["full_attention" if tokens is None or layer < whole else "sliding_attention"
             for layer in range(num_layers)]
    return llama_like.read_windows(fields, num_layers, tokens, kinds)


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    fields = llama_like.write_common(model)
    if head_size(model) * model.num_heads == model.width:
        del fields["head_dim"]  # Qwen2's own configuration has no such field; transformers reads it where it is.
    return fields | write_layers(model)


def write_layers(model: ModelConfig) -> dict[str, Any]:
    """The fields that read_layers reads; max_window_layers is for readers that know no layer_types."""
    kinds = llama_like.layer_types(model)
    windows = "sliding_attention" in kinds
    return {"layer_types": kinds, "use_sliding_window": windows, "sliding_window": model.attention_window,
            "max_window_layers": kinds.index("sliding_attention") if windows else model.num_layers}
