"""T5 (Raffel et al. 2020, JMLR 21, arXiv 1910.10683), T5 1.1 and Flan-T5 (Chung et al. 2022, arXiv 2210.11416), and mT5
(Xue et al. 2021, arXiv 2010.11934): text to text.

Version 1.0 has a ReLU, and an output layer tied to the embeddings that is read times 1/sqrt(width); 1.1, Flan and mT5
have a gated GELU and an output layer of their own. All layers of a stack read the table of relative positions that lies
in its first. T5 also drops out what the output layer reads: there is no such place here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import encoder_layers, feed_forward_width, head_size, is_gated
from purelm.interop.fields import Fields, activation, activation_name
from purelm.interop.mapping import Tensor, norm

MODEL_TYPES = ("t5", "mt5")
TASKS = dict.fromkeys(("T5ForConditionalGeneration", "T5WithLMHeadModel", "MT5ForConditionalGeneration"),
                      "sequence_to_sequence")
BASE = ""
KEPT = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)
# Ours -> theirs, and what transformers takes where the file leaves it out: T5's, mT5's.
_SIZES = {
    "vocabulary_size": ("vocab_size", 32_128, 250_112), "context_length": ("n_positions", 512, 512),
    "width": ("d_model", 512, 512), "num_heads": ("num_heads", 8, 6), "head_size": ("d_kv", 64, 64),
    "feed_forward_width": ("d_ff", 2048, 1024), "relative_buckets": ("relative_attention_num_buckets", 32, 32),
    "relative_max_distance": ("relative_attention_max_distance", 128, 128),
}


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig."""
    is_mt5 = fields.take("model_type", "t5") == "mt5"
    layers = fields.layers("num_layers", 8 if is_mt5 else 6)
    decoder_layers = fields.layers("num_decoder_layers", layers) if fields.has("num_decoder_layers") else layers
    fields.ignore("num_decoder_layers", "initializer_factor", "classifier_dropout")
    dropout = fields.number("dropout_rate", 0.1)
    tied = _is_tied(fields, is_mt5)
    fields.require("is_decoder", False, "a decoder without its encoder cannot be taken over")
    return {
        "architecture": "encoder_decoder", "num_layers": decoder_layers,
        "encoder_layers": None if layers == decoder_layers else layers, "attention_scale": 1.0,
        "feed_forward": _feed_forward(fields, "gated-gelu" if is_mt5 else "relu"), "positions": "t5",
        "norm": "rms_norm", "norm_place": "pre", "norm_epsilon": fields.number("layer_norm_epsilon", 1e-6),
        "embedding_norm": False, "bias": False, "tied_embeddings": tied, "shared_embeddings": True, "head_bias": False,
        "head_scale": "inverse_sqrt_width" if tied else "one", "embedding_scale": "one",
        **{ours: fields.size(theirs, default[is_mt5]) for ours, (theirs, *default) in _SIZES.items()},
        **{f"{place}_dropout": dropout for place in ("embedding", "attention", "residual", "feed_forward")}}


def _is_tied(fields: Fields, is_mt5: bool) -> bool:
    tied = fields.take("tie_word_embeddings", True, bool)  # transformers 5 writes True for all; mT5's never is.
    if is_mt5:
        return False
    scaled = fields.take("scale_decoder_outputs", tied, bool)
    if scaled and not tied:
        raise fields.error("scale_decoder_outputs", "an output layer of its own is not scaled; set it to false")
    return scaled


def _feed_forward(fields: Fields, default: str) -> str:
    written = fields.take("feed_forward_proj", default, str)
    if written is None:
        raise fields.error("feed_forward_proj", "wants the name of an activation")
    *gated, name = written.split("-")
    if gated not in ([], ["gated"]):
        raise fields.error("feed_forward_proj", "must be an activation, or gated- and an activation")
    name = "gelu_new" if gated and name == "gelu" else name
    fields.require("is_gated_act", bool(gated), "disagrees with feed_forward_proj")
    fields.require("dense_act_fn", name, "disagrees with feed_forward_proj")
    return activation(Fields({"feed_forward_proj": name}, fields.where), "feed_forward_proj", gated=bool(gated))


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json."""
    name = activation_name(model.feed_forward)
    if model.architecture != "encoder_decoder" or name is None:
        return None
    if is_gated(model):
        name = "gated-gelu" if model.feed_forward == "geglu_tanh" else f"gated-{name}"
    sizes = dataclasses.replace(model, head_size=head_size(model), feed_forward_width=feed_forward_width(model))
    return {
        **{theirs: getattr(sizes, ours) for ours, (theirs, *_) in _SIZES.items()}, "num_layers": encoder_layers(model),
        "num_decoder_layers": model.num_layers, "feed_forward_proj": name, "dropout_rate": model.residual_dropout,
        "layer_norm_epsilon": model.norm_epsilon, "is_encoder_decoder": True,
        "tie_word_embeddings": model.tied_embeddings}


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    cross = "decoder.block.{}.layer.1"
    head = [] if model.tied_embeddings else [Tensor("head/kernel", "lm_head.weight", transpose=True)]
    return [Tensor("embedding/embedding", "shared.weight"), *_stack(model, "encoder/", "encoder"),
            *_stack(model, "", "decoder"), *_attention("layers/cross_attention", f"{cross}.EncDecAttention"),
            *norm("layers/cross_attention_norm", f"{cross}.layer_norm", bias=False), *head]


def _stack(model: ModelConfig, ours: str, theirs: str) -> list[Tensor]:
    layer, last = f"{theirs}.block.{{}}.layer", 1 if ours else 2
    names = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if is_gated(model) else {"up": "wi", "down": "wo"}
    bias = f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return [
        Tensor(f"{ours}relative_bias/embedding", bias),
        *_attention(f"{ours}layers/attention", f"{layer}.0.SelfAttention"),
        *norm(f"{ours}layers/attention_norm", f"{layer}.0.layer_norm", bias=False),
        *(Tensor(f"{ours}layers/feed_forward/{name}/kernel", f"{layer}.{last}.DenseReluDense.{their}.weight", True)
          for name, their in names.items()),
        *norm(f"{ours}layers/feed_forward_norm", f"{layer}.{last}.layer_norm", bias=False),
        *norm(f"{ours}final_norm", f"{theirs}.final_layer_norm", bias=False)]


def _attention(ours: str, theirs: str) -> list[Tensor]:
    return [Tensor(f"{ours}/{name}/kernel", f"{theirs}.{name[0]}.weight", transpose=True)
            for name in ("query", "key", "value", "output")]


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """Names that may be in a file beside the tensor that they are tied to."""
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    return dict.fromkeys([*names, "lm_head.weight"] if model.tied_embeddings else names, "shared.weight")
