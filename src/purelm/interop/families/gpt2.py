"""GPT-2 (Radford et al. 2019) and what has its shape: DistilGPT-2, DialoGPT, Cerebras-GPT."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width, vocabulary_size
from purelm.interop.fields import Fields, activation, activation_name
from purelm.interop.mapping import Part, Tensor, linear, norm

MODEL_TYPES = ("gpt2",)
TASKS = {"GPT2LMHeadModel": "language_modeling"}
BASE = "transformer."
# The causal mask, which files of before transformers 4.30 hold.
KEPT = (r"h\.\d+\.attn\.(bias|masked_bias)",)

_LAYER = "transformer.h.{}."


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    # Of heads for other tasks; and the order of operations of a sum that is the same.
    fields.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
                  "summary_first_dropout", "reorder_and_upcast_attn")
    # Of files of before transformers 4; n_ctx is n_positions again.
    fields.ignore("n_ctx", "n_special", "predict_special_tokens", "_num_labels")
    fields.require("scale_attn_by_inverse_layer_idx", False, "one scale of attention a layer cannot be taken over")
    width = fields.size("n_embd", 768)
    heads = fields.heads("n_head", 12, width)
    inner = fields.take("n_inner", None, int)
    residual_dropout = fields.number("resid_pdrop", 0.1)
    return {
        "architecture": "decoder", "vocabulary_size": fields.size("vocab_size", 50_257),
        "context_length": fields.size("n_positions", 1024), "num_layers": fields.layers("n_layer", 12),
        "width": width, "num_heads": heads, "num_kv_heads": heads, "head_size": width // heads,
        "feed_forward": activation(fields, "activation_function", "gelu_new"),
        "feed_forward_width": 4 * width if inner is None else inner,
        "positions": "learned", "position_offset": 0, "norm": "layer_norm", "norm_place": "pre", "norm_scale": True,
        "norm_offset": False, "norm_epsilon": fields.number("layer_norm_epsilon", 1e-5),
        "embedding_norm": False, "qk_norm": False, "attention_window": None, "attention_pattern": (),
        "attention_scale": None if fields.take("scale_attn_weights", True, bool) else 1.0, "bias": True,
        "query_key_value_bias": None, "attention_output_bias": None, "feed_forward_bias": None, "norm_bias": None,
        "tied_embeddings": fields.take("tie_word_embeddings", True, bool), "embedding_width": None, "token_types": 0,
        "head_transform": False, "head_bias": False, "embedding_scale": "one", "residual_scale": "one",
        "parallel_block": False, "initialization": "gpt2",
        "initialization_stddev": fields.number("initializer_range", 0.02),
        "embedding_dropout": fields.number("embd_pdrop", 0.1),
        "attention_dropout": fields.number("attn_pdrop", 0.1),
        "residual_dropout": residual_dropout, "feed_forward_dropout": 0.0,
    }


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model."""
    # GPT-2's own name of this GELU, which programs other than transformers expect.
    name = "gelu_new" if model.feed_forward == "gelu_tanh" else activation_name(model.feed_forward)
    return {
        "vocab_size": vocabulary_size(model), "n_positions": model.context_length, "n_ctx": model.context_length,
        "n_embd": model.width, "n_layer": model.num_layers, "n_head": model.num_heads,
        "n_inner": feed_forward_width(model), "activation_function": name,
        "layer_norm_epsilon": model.norm_epsilon, "scale_attn_weights": model.attention_scale is None,
        "tie_word_embeddings": model.tied_embeddings, "initializer_range": model.initialization_stddev,
        "embd_pdrop": model.embedding_dropout, "attn_pdrop": model.attention_dropout,
        "resid_pdrop": model.residual_dropout,
    }


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table; matrices are [in, out], query, key and value one after the other."""
    table = [Tensor("embedding/embedding", "transformer.wte.weight"),
             Tensor("positions/embedding", "transformer.wpe.weight"), *norm("final_norm", "transformer.ln_f", True)]
    for ours, theirs in (("attention_norm", "ln_1"), ("feed_forward_norm", "ln_2")):
        table += norm(f"layers/{ours}", f"{_LAYER}{theirs}", True)
    for number, ours in enumerate(("query", "key", "value")):
        table += linear(f"layers/attention/{ours}", f"{_LAYER}attn.c_attn", True, part=Part(number, 3), conv1d=True)
    for ours, theirs in (("attention/output", "attn.c_proj"), ("feed_forward/up", "mlp.c_fc"),
                         ("feed_forward/down", "mlp.c_proj")):
        table += linear(f"layers/{ours}", f"{_LAYER}{theirs}", True, conv1d=True)
    return table if model.tied_embeddings else table + linear("head", "lm_head", False)


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """The tied output layer, which some files hold beside the table of embeddings."""
    return {"lm_head.weight": "transformer.wte.weight"} if model.tied_embeddings else {}
