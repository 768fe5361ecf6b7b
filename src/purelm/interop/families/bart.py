"""BART (Lewis et al. 2020, ACL, arXiv 1910.13461): an encoder-decoder that was trained to undo noise.

Post-norm stacks with normalized embeddings and learned positions that start at row 2, and an output layer tied to the
embeddings that has a bias. The stacks may differ in their number of layers, and in nothing else.
"""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import encoder_layers, feed_forward_width
from purelm.interop.fields import Fields, activation, activation_name
from purelm.interop.mapping import Tensor, linear, norm

MODEL_TYPES = ("bart",)
TASKS = {"BartForConditionalGeneration": "sequence_to_sequence", "BartModel": "sequence_to_sequence"}
BASE = "model."
KEPT: tuple[str, ...] = (r"(encoder|decoder)\.version",)


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig."""
    changes = read_stacks(fields, vocabulary_size=50_265)
    fields.require("normalize_embedding", True, "embeddings without their norm cannot be taken over")
    fields.require("static_position_embeddings", False, "must be false: positions are learned")
    fields.require("extra_pos_embeddings", 2, "positions start at row 2 of their table", default=2)
    fields.require("tie_word_embeddings", True, "an output layer of its own cannot be taken over")
    # The class without an output layer, of which BART's own checkpoints are, has no bias for it.
    has_bias = fields.take("architectures", None) != ["BartModel"]
    return changes | {"positions": "learned", "position_offset": 2, "embedding_norm": True, "tied_embeddings": True,
                      "shared_embeddings": True, "head_bias": has_bias}


def read_stacks(fields: Fields, vocabulary_size: int) -> dict[str, Any]:
    """What BART and Marian have in common; `vocabulary_size` where the file leaves it out."""
    layers, decoder_layers = (fields.layers(f"{stack}_layers", 12) for stack in ("encoder", "decoder"))
    width, scaled = fields.size("d_model", 1024), fields.take("scale_embedding", False, bool)
    hidden, heads = _of_both(fields, "ffn_dim", 4096), _of_both(fields, "attention_heads", 16)
    fields.heads("encoder_attention_heads", 16, width)
    dropout = fields.number("dropout", 0.1)
    for name in ("normalize_before", "add_final_layer_norm", "is_decoder"):
        fields.require(name, False, "must be false: no such network can be taken over")
    for name in ("encoder_layerdrop", "decoder_layerdrop"):
        fields.require(name, 0.0, "whole layers are not dropped out here; set it to 0.0")
    fields.require("num_hidden_layers", layers, "disagrees with encoder_layers")
    fields.ignore("init_std", "classifier_dropout", "classif_dropout", "add_bias_logits", "save_step", "_num_labels",
                  "force_bos_token_to_be_generated")
    return {
        "architecture": "encoder_decoder", "vocabulary_size": fields.size("vocab_size", vocabulary_size),
        "context_length": fields.size("max_position_embeddings", 1024), "num_layers": decoder_layers,
        "encoder_layers": None if layers == decoder_layers else layers, "width": width, "num_heads": heads,
        "feed_forward": activation(fields, "activation_function", "gelu"),
        "feed_forward_width": hidden, "norm": "layer_norm", "norm_place": "post", "norm_epsilon": 1e-5, "bias": True,
        "head_scale": "one", "embedding_scale": "sqrt_width" if scaled else "one",
        "embedding_dropout": dropout, "residual_dropout": dropout,
        "attention_dropout": fields.number("attention_dropout", 0.0),
        "feed_forward_dropout": fields.number("activation_dropout", 0.0)}


def _of_both(fields: Fields, name: str, default: int) -> int:
    encoder, decoder = (fields.size(f"{stack}_{name}", default) for stack in ("encoder", "decoder"))
    if encoder != decoder:
        raise fields.error(f"encoder_{name}", f"must be that of the decoder, decoder_{name}={decoder}")
    return decoder


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json."""
    return write_stacks(model) if model.positions == "learned" else None


def write_stacks(model: ModelConfig) -> dict[str, Any] | None:
    """What BART and Marian have in common."""
    name = activation_name(model.feed_forward)
    if model.architecture != "encoder_decoder" or name is None:
        return None
    both = {f"{stack}_{what}": value for stack in ("encoder", "decoder") for what, value in (
        ("attention_heads", model.num_heads), ("ffn_dim", feed_forward_width(model)))}
    return {
        "vocab_size": model.vocabulary_size, "max_position_embeddings": model.context_length, "d_model": model.width,
        "encoder_layers": encoder_layers(model), "decoder_layers": model.num_layers, **both,
        "activation_function": name, "scale_embedding": model.embedding_scale == "sqrt_width",
        "dropout": model.residual_dropout, "attention_dropout": model.attention_dropout,
        "activation_dropout": model.feed_forward_dropout, "is_encoder_decoder": True}


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    positions = [Tensor(f"{ours}positions/embedding", f"model.{theirs}.embed_positions.weight")
                 for ours, theirs in (("encoder/", "encoder"), ("", "decoder"))]
    norms = [line for ours, theirs in (("encoder/", "encoder"), ("", "decoder"))
             for line in norm(f"{ours}embedding_norm", f"model.{theirs}.layernorm_embedding", bias=True)]
    return [Tensor("embedding/embedding", "model.shared.weight"), *positions, *norms,
            *stacks(model.head_bias)]


def stacks(head_bias: bool) -> list[Tensor]:
    """The layers of both stacks and the bias of the output layer, of BART and Marian."""
    table = [Tensor("head/bias", "final_logits_bias", row=True)] if head_bias else []
    for ours, theirs in (("encoder/layers", "model.encoder.layers.{}"), ("layers", "model.decoder.layers.{}")):
        sublayers = {"attention": "self_attn"} | ({"cross_attention": "encoder_attn"} if ours == "layers" else {})
        for name, their in sublayers.items():
            for part, projection in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"),
                                     ("output", "out_proj")):
                table += linear(f"{ours}/{name}/{part}", f"{theirs}.{their}.{projection}", bias=True)
            table += norm(f"{ours}/{name}_norm", f"{theirs}.{their}_layer_norm", bias=True)
        table += linear(f"{ours}/feed_forward/up", f"{theirs}.fc1", bias=True)
        table += linear(f"{ours}/feed_forward/down", f"{theirs}.fc2", bias=True)
        table += norm(f"{ours}/feed_forward_norm", f"{theirs}.final_layer_norm", bias=True)
    return table


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """Names that may be in a file beside the tensor that they are tied to."""
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return dict.fromkeys(names, "model.shared.weight")
