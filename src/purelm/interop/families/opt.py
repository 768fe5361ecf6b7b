"""OPT (Zhang et al. 2022, arXiv 2205.01068), its 350M with norms after the sum and a narrow table too; Galactica."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width, has_bias, vocabulary_size
from purelm.interop.fields import Fields, activation, activation_name
from purelm.interop.mapping import Tensor, linear, norm

MODEL_TYPES = ("opt",)
TASKS = {"OPTForCausalLM": "language_modeling"}
BASE = "model."
KEPT = (r"decoder\.version",)

_LAYER = "model.decoder.layers.{}."
_NARROW = "a table of another width than hidden_size is taken over with a tied output layer alone"


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig for the fields of a config.json."""
    fields.ignore("activation_dropout")  # In published files, and never read by transformers.
    fields.require("layerdrop", 0.0, "leaving out layers in training cannot be taken over")
    fields.require("_remove_final_layer_norm", False, "a stack without its final norm cannot be taken over")
    width = fields.size("hidden_size", 768)
    heads = fields.heads("num_attention_heads", 12, width)
    before, bias = (fields.take(name, True, bool) for name in ("do_layer_norm_before", "enable_bias"))
    affine = fields.take("layer_norm_elementwise_affine", True, bool)
    tied = fields.take("tie_word_embeddings", True, bool)
    embedding_width = fields.take("word_embed_proj_dim", None, int)
    embedding_width = None if embedding_width == width else embedding_width
    if embedding_width is not None and not tied:
        raise fields.error("word_embed_proj_dim", _NARROW)
    return {
        "architecture": "decoder", "vocabulary_size": fields.size("vocab_size", 50_272),
        "context_length": fields.size("max_position_embeddings", 2048),
        "num_layers": fields.layers("num_hidden_layers", 12), "width": width, "num_heads": heads,
        "num_kv_heads": heads, "head_size": width // heads,
        "feed_forward": activation(fields, "activation_function", "relu"),
        "feed_forward_width": fields.size("ffn_dim", 3072), "positions": "learned", "position_offset": 2,
        "norm": "layer_norm", "norm_place": "pre" if before else "post", "norm_scale": affine, "norm_offset": False,
        "norm_epsilon": 1e-5, "embedding_norm": False, "qk_norm": False, "attention_scale": None,
        "attention_window": None, "attention_pattern": (), "bias": bias, "query_key_value_bias": None,
        "attention_output_bias": None, "feed_forward_bias": None, "norm_bias": None if affine == bias else affine,
        "tied_embeddings": tied, "embedding_width": embedding_width, "token_types": 0, "head_transform": False,
        "head_bias": False, "embedding_scale": "one", "residual_scale": "one", "parallel_block": False,
        "initialization": "gpt2", "initialization_stddev": fields.number("init_std", 0.02),
        "embedding_dropout": 0.0, "residual_dropout": fields.number("dropout", 0.1),
        "attention_dropout": fields.number("attention_dropout", 0.0), "feed_forward_dropout": 0.0,
    }


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json for a model; with one bias that it has, there are all."""
    bias = any(has_bias(model, switch) for switch in (
        model.query_key_value_bias, model.attention_output_bias, model.feed_forward_bias))
    affine = model.norm_scale or has_bias(model, model.norm_bias)
    return {
        "vocab_size": vocabulary_size(model), "max_position_embeddings": model.context_length,
        "hidden_size": model.width, "num_hidden_layers": model.num_layers, "num_attention_heads": model.num_heads,
        "ffn_dim": feed_forward_width(model), "activation_function": activation_name(model.feed_forward),
        "do_layer_norm_before": model.norm_place == "pre", "layer_norm_elementwise_affine": affine,
        "enable_bias": bias, "tie_word_embeddings": model.tied_embeddings,
        "word_embed_proj_dim": model.width if model.embedding_width is None else model.embedding_width,
        "init_std": model.initialization_stddev, "dropout": model.residual_dropout,
        "attention_dropout": model.attention_dropout,
    }


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    table = [Tensor("embedding/embedding", "model.decoder.embed_tokens.weight"),
             Tensor("positions/embedding", "model.decoder.embed_positions.weight")]
    if model.embedding_width is not None:
        table += linear("embedding_projection", "model.decoder.project_in", False)
        table += linear("head_projection", "model.decoder.project_out", False)
    if model.norm_scale:
        final = norm("final_norm", "model.decoder.final_layer_norm", True)
        table += final if model.norm_place == "pre" else []
        for ours, theirs in (("attention_norm", "self_attn_layer_norm"), ("feed_forward_norm", "final_layer_norm")):
            table += norm(f"layers/{ours}", f"{_LAYER}{theirs}", True)
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "out_proj")):
        table += linear(f"layers/attention/{ours}", f"{_LAYER}self_attn.{theirs}", model.bias)
    for ours, theirs in (("up", "fc1"), ("down", "fc2")):
        table += linear(f"layers/feed_forward/{ours}", f"{_LAYER}{theirs}", model.bias)
    return table if model.tied_embeddings else table + linear("head", "lm_head", False)


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """The tied output layer, which some files hold beside the table of embeddings."""
    return {"lm_head.weight": "model.decoder.embed_tokens.weight"} if model.tied_embeddings else {}
