"""Gemma 2 (Gemma Team 2024, arXiv 2408.00118): norms before and after each sublayer, GEGLU, soft caps on scores and
logits, and a window in every second layer; scales are 1 + the parameter, embeddings are read times sqrt(width)."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import head_size
from purelm.interop.families import llama_like
from purelm.interop.fields import Fields

MODEL_TYPES = ("gemma2",)
TASKS = {"Gemma2ForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

ACTIVATION = "hidden_activation"
DEFAULTS = {
    "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, ACTIVATION: "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    changes = llama_like.read_common(fields, DEFAULTS, activation_field=ACTIVATION)
    changes |= read_gemma(fields, changes["head_size"])
    changes["attention_softcap"] = softcap(fields, "attn_logit_softcapping", 50.0)
    changes["logits_softcap"] = softcap(fields, "final_logit_softcapping", 30.0)
    kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(changes["num_layers"])]
    return changes | llama_like.read_windows(fields, len(kinds), llama_like.window(fields), kinds)


def read_gemma(fields: Fields, size: int) -> dict[str, Any]:
    """Changes for what Gemma 2 and 3 share; `size`: of a head."""
    # Other libraries' names of hidden_activation and sliding_window, and the kind of cache that generation begins with.
    fields.ignore("hidden_act", "sliding_window_size", "cache_implementation")
    fields.require("use_bidirectional_attention", (None, False), "a decoder that looks ahead cannot be taken over")
    scalar = fields.number("query_pre_attn_scalar", 256)
    if scalar <= 0:
        raise fields.error("query_pre_attn_scalar", "wants a number above 0")
    return {"norm_place": "sandwich", "norm_offset": True, "embedding_scale": "sqrt_width",
            "attention_scale": None if scalar == size else scalar ** -0.5} | llama_like.read_attention_bias(fields)


def softcap(fields: Fields, name: str, default: float | None) -> float | None:
    """A soft cap; null is none."""
    value = fields.take(name, default, (int, float))
    return None if value is None else fields.number(name, value)


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    return llama_like.write_common(model, activation_field=ACTIVATION) | write_gemma(model) | {
        "attn_logit_softcapping": model.attention_softcap}


def write_gemma(model: ModelConfig) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 share."""
    scalar = head_size(model) if model.attention_scale is None else model.attention_scale ** -2
    # transformers makes the mask of a window even where no layer has one: one of the context's length is none.
    window = model.context_length if model.attention_window is None else model.attention_window
    return {"query_pre_attn_scalar": round(scalar), "sliding_window": window,
            "layer_types": llama_like.layer_types(model), "attention_bias": llama_like.attention_bias(model),
            "final_logit_softcapping": model.logits_softcap, "use_bidirectional_attention": False}
