"""Gemma 3's text models (Gemma Team 2025, arXiv 2503.19786): Gemma 2 without its soft caps, with each head's queries
and keys normalized, and five layers with a window, whose rotary base is another one, to one without.

The models with images (model_type gemma3) are not taken over.
"""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.interop.families import gemma2, llama_like
from purelm.interop.fields import Fields, rope_of, write_rope

MODEL_TYPES = ("gemma3_text", "gemma3")
TASKS = {"Gemma3ForCausalLM": "language_modeling"}
BASE, KEPT = llama_like.BASE, llama_like.KEPT
tensors, aliases = llama_like.tensors, llama_like.aliases

_DEFAULTS = gemma2.DEFAULTS | {"vocab_size": 262_208, "max_position_embeddings": 131_072}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    if fields.take("model_type", "gemma3_text") == "gemma3":
        raise fields.error("model_type", "a model of images and text cannot be taken over; take one of text alone "
                           "(model_type gemma3_text, such as gemma-3-1b)")
    changes = llama_like.read_common(fields, _DEFAULTS, activation_field=gemma2.ACTIVATION, takes_rope=False)
    changes |= gemma2.read_gemma(fields, changes["head_size"]) | {"qk_norm": True}
    fields.require("attn_logit_softcapping", None, "transformers reads none in this family; take null")
    changes["logits_softcap"] = gemma2.softcap(fields, "final_logit_softcapping", None)
    fields.ignore("_sliding_window_pattern")
    period = fields.size("sliding_window_pattern", 6)
    kinds = ["sliding_attention" if (layer + 1) % period else "full_attention"
             for layer in range(changes["num_layers"])]
    changes |= llama_like.read_windows(fields, len(kinds), llama_like.window(fields), kinds)
    return changes | _read_rope(fields, changes)


def _read_rope(fields: Fields, changes: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions of the layers without a window, and rope_local_base of those with one."""
    both = Fields(fields.take("rope_parameters", None, dict) or {}, f"{fields.where}: rope_parameters")
    scaling = fields.take("rope_scaling", None, dict) or {}
    whole = {**(both.take("full_attention", None, dict) or {}), **scaling}
    local = both.take("sliding_attention", None, dict) or {}
    both.finish()
    length = changes["context_length"]
    whole = rope_of(whole, fields, fields.take("rope_theta", 1_000_000.0, (int, float)), length)
    local = rope_of(local, fields, fields.take("rope_local_base_freq", 10_000.0, (int, float)), length)
    if "rope_scaling" in local:
        raise both.error("sliding_attention", "scaling in layers with a window cannot be taken over; take default")
    if changes["attention_window"] is None:
        return whole
    if not changes["attention_pattern"]:
        return local
    same = local == whole
    return whole | {"rope_local_base": None if same else local["rope_base"]}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    local = model.rope_base if model.rope_local_base is None else model.rope_local_base
    return llama_like.write_common(model, activation_field=gemma2.ACTIVATION) | gemma2.write_gemma(model) | {
        "rope_parameters": {"full_attention": write_rope(model),
                            "sliding_attention": {"rope_type": "default", "rope_theta": local}}}
