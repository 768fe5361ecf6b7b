"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745) and Pythia (Biderman et al. 2023, arXiv 2304.01373)."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width, has_bias, vocabulary_size
from purelm.interop.fields import Fields, activation, activation_name, rope, write_old_rope, write_rope
from purelm.interop.mapping import Part, Tensor, linear, norm

MODEL_TYPES = ("gpt_neox",)
TASKS = {"GPTNeoXForCausalLM": "language_modeling"}
BASE = "gpt_neox."
# The causal mask and RoPE's wavelengths, which files of before transformers 4.30 hold.
KEPT = (r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",)
# transformers 5 has another name for the output layer in memory than in files.
RENAMED = ((r"^lm_head\.", "embed_out."),)

_LAYER = "gpt_neox.layers.{}."


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    # Of a head for tags; a note; and two names that GPT-NeoX-20B's file has and transformers never read.
    fields.ignore("classifier_dropout", "is_decoder", "attention_probs_dropout_prob", "hidden_dropout_prob")
    width = fields.size("hidden_size", 6144)
    heads = fields.heads("num_attention_heads", 64, width)
    context_length = fields.size("max_position_embeddings", 2048)
    attention_bias = None if fields.take("attention_bias", True, bool) else False
    parallel = fields.take("use_parallel_residual", True, bool)
    dropout = fields.number("hidden_dropout", 0.0)
    return {
        "architecture": "decoder", "vocabulary_size": fields.size("vocab_size", 50_432),
        "context_length": context_length, "num_layers": fields.layers("num_hidden_layers", 44), "width": width,
        "num_heads": heads, "num_kv_heads": heads, "head_size": width // heads,
        "feed_forward": activation(fields, "hidden_act", "gelu"),
        "feed_forward_width": fields.size("intermediate_size", 24_576),
        **rope(fields, fields.number("rotary_emb_base", 10_000), context_length, partial=True),
        "rope_fraction": _rope_fraction(fields, width // heads), "norm": "layer_norm", "norm_place": "pre",
        "norm_scale": True, "norm_offset": False,
        "norm_epsilon": fields.number("layer_norm_eps", 1e-5), "embedding_norm": False,
        "qk_norm": False, "attention_scale": None, "attention_window": None, "attention_pattern": (), "bias": True,
        "query_key_value_bias": attention_bias, "attention_output_bias": attention_bias, "feed_forward_bias": None,
        "norm_bias": None, "tied_embeddings": fields.take("tie_word_embeddings", False, bool),
        "embedding_width": None, "token_types": 0, "head_transform": False, "head_bias": False,
        "embedding_scale": "one", "residual_scale": "one", "parallel_block": parallel,
        "parallel_norms": "separate" if parallel else "shared", "initialization": "gpt2",
        "initialization_stddev": fields.number("initializer_range", 0.02),
        "embedding_dropout": dropout, "residual_dropout": dropout, "feed_forward_dropout": 0.0,
        "attention_dropout": fields.number("attention_dropout", 0.0),
    }


def _rope_fraction(fields: Fields, head_size: int) -> float:
    """rope_parameters.partial_rotary_factor (transformers 5), or rotary_pct (before); UserError for an odd number of
    dimensions, of which transformers turns one that has no partner, none, or more than there are."""
    parameters = fields.take("rope_parameters", None, dict) or {}
    name, fraction = "rotary_pct", fields.number("rotary_pct", 0.25)
    if "partial_rotary_factor" in parameters:
        name = "rope_parameters"
        fraction = Fields(parameters, f"{fields.where}: rope_parameters").number("partial_rotary_factor")
    rotated = int(head_size * fraction)
    if rotated % 2 or not 0 < rotated <= head_size:
        raise fields.error(name, f"rotates {rotated} dimensions of each head's {head_size}, which must be even and "
                                 "from 2")
    return fraction


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    return {
        "vocab_size": vocabulary_size(model), "max_position_embeddings": model.context_length,
        "hidden_size": model.width, "num_hidden_layers": model.num_layers, "num_attention_heads": model.num_heads,
        "intermediate_size": feed_forward_width(model), "hidden_act": activation_name(model.feed_forward),
        "rope_parameters": write_rope(model) | {"partial_rotary_factor": model.rope_fraction},
        **write_old_rope(model), "rotary_emb_base": model.rope_base, "rotary_pct": model.rope_fraction,
        "layer_norm_eps": model.norm_epsilon, "attention_bias": _attention_bias(model),
        "use_parallel_residual": model.parallel_block, "tie_word_embeddings": model.tied_embeddings,
        "initializer_range": model.initialization_stddev, "hidden_dropout": model.residual_dropout,
        "attention_dropout": model.attention_dropout,
    }


def _attention_bias(model: ModelConfig) -> bool:
    return has_bias(model, model.query_key_value_bias) or has_bias(model, model.attention_output_bias)


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table; query, key and value lie one after the other in each head."""
    bias = _attention_bias(model)
    table = [Tensor("embedding/embedding", "gpt_neox.embed_in.weight"),
             *norm("final_norm", "gpt_neox.final_layer_norm", True)]
    for ours, theirs in (("attention_norm", "input_layernorm"), ("feed_forward_norm", "post_attention_layernorm")):
        table += norm(f"layers/{ours}", f"{_LAYER}{theirs}", True)
    for number, ours in enumerate(("query", "key", "value")):
        table += linear(f"layers/attention/{ours}", f"{_LAYER}attention.query_key_value", bias,
                        part=Part(number, 3, groups=model.num_heads))
    table += linear("layers/attention/output", f"{_LAYER}attention.dense", bias)
    for ours, theirs in (("up", "dense_h_to_4h"), ("down", "dense_4h_to_h")):
        table += linear(f"layers/feed_forward/{ours}", f"{_LAYER}mlp.{theirs}", True)
    return table if model.tied_embeddings else table + linear("head", "embed_out", False)


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """The tied output layer, which some files hold beside the table of embeddings."""
    return {"embed_out.weight": "gpt_neox.embed_in.weight"} if model.tied_embeddings else {}
