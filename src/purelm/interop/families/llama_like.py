"""What Llama (Touvron et al. 2023, arXiv 2302.13971) and the decoders after it have alike: names of tensors, fields.

A family says which norms, biases and windows it has by its ModelConfig, and the table follows from that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width, head_size, num_kv_heads, vocabulary_size
from purelm.interop.fields import Fields, activation, activation_name, rope, write_old_rope, write_rope
from purelm.interop.mapping import Tensor, linear, norm

BASE = "model."
# The wavelengths of RoPE, which files of before transformers 4.30 hold.
KEPT = (r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)

_LAYER = "model.layers.{}."
# Our name of a norm -> theirs, by config.model.norm_place.
_NORMS = {
    "pre": {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"},
    "sandwich": {
        "attention_norm": "input_layernorm", "attention_output_norm": "post_attention_layernorm",
        "feed_forward_norm": "pre_feedforward_layernorm", "feed_forward_output_norm": "post_feedforward_layernorm"},
    "output": {"attention_output_norm": "post_attention_layernorm",
               "feed_forward_output_norm": "post_feedforward_layernorm"},
}
_LAYER_KINDS = {"full_attention": "full", "sliding_attention": "window"}
# Switches that are the same in all of them where a family sets nothing else.
_SWITCHES = {
    "architecture": "decoder", "norm": "rms_norm", "norm_place": "pre", "norm_scale": True, "norm_offset": False,
    "embedding_norm": False, "qk_norm": False, "qk_norm_over": "head", "attention_scale": None,
    "attention_softcap": None, "attention_sink": False, "attention_window": None, "attention_pattern": (),
    "logits_softcap": None, "prefix_attention": False, "bias": False, "query_key_value_bias": None,
    "attention_output_bias": None, "feed_forward_bias": None, "norm_bias": None, "embedding_width": None,
    "token_types": 0, "head_transform": False, "head_bias": False, "head_scale": "one", "embedding_scale": "one",
    "residual_scale": "one", "parallel_block": False, "layer_sharing": 1, "embedding_dropout": 0.0,
    "residual_dropout": 0.0, "feed_forward_dropout": 0.0, "rope_fraction": 1.0, "rope_local_base": None,
    "rope_scaling": "none",
}


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """The tied output layer, which some files hold beside the table of embeddings."""
    return {"lm_head.weight": "model.embed_tokens.weight"} if model.tied_embeddings else {}


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table, of which every name follows from the model's switches."""
    either = {name: model.bias if value is None else value for name, value in (
        ("input", model.query_key_value_bias), ("output", model.attention_output_bias),
        ("feed_forward", model.feed_forward_bias))}
    table = [Tensor("embedding/embedding", "model.embed_tokens.weight"), *norm("final_norm", "model.norm", False)]
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        table += linear(f"layers/attention/{ours}", f"{_LAYER}self_attn.{theirs}", either["input"])
    table += linear("layers/attention/output", f"{_LAYER}self_attn.o_proj", either["output"])
    for ours, theirs in (("gate", "gate_proj"), ("up", "up_proj"), ("down", "down_proj")):
        table += linear(f"layers/feed_forward/{ours}", f"{_LAYER}mlp.{theirs}", either["feed_forward"])
    for ours, theirs in _NORMS[model.norm_place].items():
        table += norm(f"layers/{ours}", f"{_LAYER}{theirs}", False)
    if model.qk_norm:
        for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            table += norm(f"layers/attention/{ours}", f"{_LAYER}self_attn.{theirs}", False)
    return table if model.tied_embeddings else table + linear("head", "lm_head", False)


def read_common(
    fields: Fields, defaults: Mapping[str, Any], *, activation_field: str = "hidden_act", takes_rope: bool = True,
) -> dict[str, Any]:
    """Changes of ModelConfig for the fields that all families have.

    `defaults` are those of transformers' configuration class; takes_rope: rope_parameters is one for all layers.
    """
    width, context_length = (fields.size(name, defaults[name]) for name in ("hidden_size", "max_position_embeddings"))
    changes = _SWITCHES | _read_heads(fields, defaults, width) | {
        "vocabulary_size": fields.size("vocab_size", defaults["vocab_size"]), "context_length": context_length,
        "num_layers": fields.layers("num_hidden_layers", defaults["num_hidden_layers"]), "width": width,
        "feed_forward_width": fields.size("intermediate_size", defaults["intermediate_size"]),
        "feed_forward": activation(fields, activation_field, defaults[activation_field], gated=True),
        "norm_epsilon": fields.number("rms_norm_eps", defaults["rms_norm_eps"]),
        "tied_embeddings": bool(fields.take("tie_word_embeddings", defaults["tie_word_embeddings"], bool)),
        "attention_dropout": fields.number("attention_dropout", 0.0) if fields.has("attention_dropout") else 0.0,
        "initialization_stddev": fields.number("initializer_range", 0.02),
    }
    return changes | (rope(fields, 10_000.0, context_length) if takes_rope else {})


def _read_heads(fields: Fields, defaults: Mapping[str, Any], width: int) -> dict[str, Any]:
    head_dim = fields.take("head_dim", defaults["head_dim"], int)
    if head_dim is None:
        heads = fields.heads("num_attention_heads", defaults["num_attention_heads"], width)
        size = width // heads
    else:
        heads = fields.size("num_attention_heads", defaults["num_attention_heads"])
        size = fields.size("head_dim", head_dim)
    shared = fields.take("num_key_value_heads", defaults["num_key_value_heads"], int)
    if shared is not None and (shared < 1 or heads % shared):
        raise fields.error("num_key_value_heads", f"does not divide num_attention_heads={heads}")
    return {"num_heads": heads, "num_kv_heads": heads if shared is None else shared, "head_size": size}


def write_common(model: ModelConfig, *, activation_field: str = "hidden_act") -> dict[str, Any]:
    """The fields that read_common reads, with one rope_parameters."""
    return {
        "vocab_size": vocabulary_size(model), "max_position_embeddings": model.context_length,
        "num_hidden_layers": model.num_layers, "hidden_size": model.width, "num_attention_heads": model.num_heads,
        "num_key_value_heads": num_kv_heads(model), "head_dim": head_size(model),
        "intermediate_size": feed_forward_width(model), activation_field: activation_name(model.feed_forward),
        "rms_norm_eps": model.norm_epsilon, "tie_word_embeddings": model.tied_embeddings,
        "attention_dropout": model.attention_dropout, "initializer_range": model.initialization_stddev,
        "rope_parameters": write_rope(model), **write_old_rope(model),
    }


def window(fields: Fields) -> int | None:
    """sliding_window, in tokens, itself included; UserError for less than 1."""
    value = fields.take("sliding_window", 4096, int)
    return None if value is None else fields.size("sliding_window", value)


def shortest_pattern(kinds: Sequence[str]) -> tuple[str, ...]:
    """The shortest tuple that, repeated and cut, gives `kinds`: window window full window -> window window full."""
    return next(tuple(kinds[:length]) for length in range(1, len(kinds) + 1)
                if all(kind == kinds[number % length] for number, kind in enumerate(kinds)))


def read_windows(fields: Fields, num_layers: int, tokens: int | None, default_types: Sequence[str]) -> dict[str, Any]:
    """attention_window, which is `tokens`, and attention_pattern for layer_types, `default_types` where there are none.

    Raises:
      UserError: they are not one a layer, of another kind, or have windows where `tokens` is none.
    """
    types = fields.take("layer_types", None, list)
    types = list(default_types) if types is None else types
    if len(types) != num_layers:
        raise fields.error("layer_types", f"wants one for each of num_hidden_layers={num_layers}, not {len(types)}")
    for kind in types:
        if kind not in _LAYER_KINDS:
            raise fields.error("layer_types", f"{kind!r} cannot be taken over; one of {', '.join(_LAYER_KINDS)} can")
    pattern = shortest_pattern([_LAYER_KINDS[kind] for kind in types])
    if pattern == ("full",):
        return {"attention_window": None, "attention_pattern": ()}
    if tokens is None:
        raise fields.error("layer_types", "has layers with a window, and no sliding_window is in use; give its length, "
                           "or full_attention")
    return {"attention_window": tokens, "attention_pattern": () if pattern == ("window",) else pattern}


def layer_types(model: ModelConfig) -> list[str]:
    """layer_types of a model, as read_windows reads them."""
    pattern = model.attention_pattern or ("full" if model.attention_window is None else "window",)
    names = {ours: theirs for theirs, ours in _LAYER_KINDS.items()}
    return [names[pattern[layer % len(pattern)]] for layer in range(model.num_layers)]


def read_attention_bias(fields: Fields) -> dict[str, Any]:
    """Biases of all four layers of attention."""
    bias = fields.take("attention_bias", False, bool) or None
    return {"query_key_value_bias": bias, "attention_output_bias": bias}


def attention_bias(model: ModelConfig) -> bool:
    """attention_bias of a model, as read_attention_bias reads it."""
    return model.bias if model.query_key_value_bias is None else model.query_key_value_bias
