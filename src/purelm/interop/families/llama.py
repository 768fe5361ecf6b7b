"""Llama 1 to 3.2 (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; Llama 3, 2024, arXiv 2407.21783) and later ones
of its shape: TinyLlama, Vicuna, SmolLM, Yi."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import has_bias
from purelm.interop.families import llama_like
from purelm.interop.fields import Fields

MODEL_TYPES = ("llama",)
TASKS = {"LlamaForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

_DEFAULTS = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    # The order in which a sum is computed; and a field of files of before transformers 4.31.
    fields.ignore("pretraining_tp", "max_sequence_length")
    changes = llama_like.read_common(fields, _DEFAULTS) | llama_like.read_attention_bias(fields)
    return changes | {"feed_forward_bias": fields.take("mlp_bias", False, bool) or None}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    return llama_like.write_common(model) | {
        "attention_bias": llama_like.attention_bias(model), "mlp_bias": has_bias(model, model.feed_forward_bias)}
