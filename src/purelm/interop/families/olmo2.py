"""OLMo 2 (Team OLMo 2024, arXiv 2501.00656): Llama's decoder with norms on the sublayers' outputs in place of their
inputs, and on all heads' queries and keys together."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import head_size
from purelm.interop.families import llama_like
from purelm.interop.fields import Fields

MODEL_TYPES = ("olmo2",)
TASKS = {"Olmo2ForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

_DEFAULTS = {
    "vocab_size": 50_304, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    changes = {"norm_place": "output", "qk_norm": True, "qk_norm_over": "all_heads"}
    return llama_like.read_common(fields, _DEFAULTS) | changes | llama_like.read_attention_bias(fields)


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    fields = llama_like.write_common(model) | {"attention_bias": llama_like.attention_bias(model)}
    if head_size(model) * model.num_heads == model.width:
        del fields["head_dim"]  # OLMo 2's own configuration has no such field; transformers reads it where it is.
    return fields
