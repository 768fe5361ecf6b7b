"""BERT (Devlin et al. 2019, arXiv 1810.04805): a post-norm encoder of texts with two types of token.

What predicts the next sentence is kept aside, and so is the pooler, but for a text's class, which reads it. Where
classifier_dropout is null, a classifier has hidden_dropout_prob; question answering has none.
"""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width
from purelm.interop.encoder_heads import head_fields, head_tensors, tasks_of, write_head_fields
from purelm.interop.fields import Fields, activation, activation_name
from purelm.interop.mapping import Tensor, linear, norm

MODEL_TYPES = ("bert",)
TASKS = {**tasks_of("Bert"), "BertForPreTraining": "masked_language_modeling"}
BASE = "bert."
# Where the output layer is not tied, transformers reads its own bias in place of cls.predictions.bias.
KEPT = (r"pooler\.dense\.(weight|bias)", r"cls\.seq_relationship\.(weight|bias)", r"cls\.predictions\.bias",
        r"embeddings\.(position_ids|token_type_ids)")
# The first files, bert-base-uncased's among them, have TensorFlow's names of a norm's parameters.
RENAMED = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
# Notes of the original code in some files, which transformers does not read.
_NOTES = ("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
          "pooler_size_per_head", "pooler_type")


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig. Raises UserError for a decoder, relative positions, or a head as in `head_fields`."""
    fields.require("is_decoder", False, "a decoder of this family cannot be taken over, an encoder can")
    fields.require("position_embedding_type", "absolute", "relative positions cannot be taken over, absolute ones can")
    fields.ignore(*_NOTES)
    width, dropout = fields.size("hidden_size", 768), fields.number("hidden_dropout_prob", 0.1)
    classifier_dropout = fields.take("classifier_dropout", None, (int, float))
    if task not in ("classification", "tagging"):
        classifier_dropout = 0.0
    elif classifier_dropout is None:
        classifier_dropout = dropout
    return {
        "architecture": "encoder", "vocabulary_size": fields.size("vocab_size", 30_522),
        "context_length": fields.size("max_position_embeddings", 512),
        "num_layers": fields.layers("num_hidden_layers", 12), "width": width,
        "num_heads": fields.heads("num_attention_heads", 12, width), "positions": "learned",
        "feed_forward": activation(fields, "hidden_act", "gelu"),
        "feed_forward_width": fields.size("intermediate_size", 3072), "norm": "layer_norm", "norm_place": "post",
        "norm_epsilon": fields.number("layer_norm_eps", 1e-12), "embedding_norm": True, "bias": True,
        "token_types": fields.size("type_vocab_size", 2), "initialization": "gpt2",
        "initialization_stddev": fields.number("initializer_range", 0.02),
        "embedding_dropout": dropout, "residual_dropout": dropout,
        "attention_dropout": fields.number("attention_probs_dropout_prob", 0.1),
        "classifier_dropout": float(classifier_dropout), **head_fields(fields, task, "tanh")}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json; None for an activation that transformers has no name for."""
    name = activation_name(model.feed_forward)
    if name is None:
        return None
    dropout = {"classifier_dropout": model.classifier_dropout} if task in ("classification", "tagging") else {}
    return {
        "vocab_size": model.vocabulary_size, "max_position_embeddings": model.context_length,
        "num_hidden_layers": model.num_layers, "hidden_size": model.width, "num_attention_heads": model.num_heads,
        "hidden_act": name, "intermediate_size": feed_forward_width(model), "layer_norm_eps": model.norm_epsilon,
        "type_vocab_size": model.token_types, "initializer_range": model.initialization_stddev,
        "hidden_dropout_prob": model.residual_dropout, "attention_probs_dropout_prob": model.attention_dropout,
        **dropout, **write_head_fields(model, task)}


def body_tensors(base: str) -> list[Tensor]:
    """The table of an encoder whose names begin with `base`."""
    layer, embeddings = f"{base}encoder.layer.{{}}", f"{base}embeddings"
    return [
        Tensor("embedding/embedding", f"{embeddings}.word_embeddings.weight"),
        Tensor("positions/embedding", f"{embeddings}.position_embeddings.weight"),
        Tensor("token_types/embedding", f"{embeddings}.token_type_embeddings.weight"),
        *norm("embedding_norm", f"{embeddings}.LayerNorm", True),
        *linear("layers/attention/query", f"{layer}.attention.self.query", True),
        *linear("layers/attention/key", f"{layer}.attention.self.key", True),
        *linear("layers/attention/value", f"{layer}.attention.self.value", True),
        *linear("layers/attention/output", f"{layer}.attention.output.dense", True),
        *norm("layers/attention_norm", f"{layer}.attention.output.LayerNorm", True),
        *linear("layers/feed_forward/up", f"{layer}.intermediate.dense", True),
        *linear("layers/feed_forward/down", f"{layer}.output.dense", True),
        *norm("layers/feed_forward_norm", f"{layer}.output.LayerNorm", True)]


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    return body_tensors(BASE) + head_tensors(
        model, task, transform="cls.predictions.transform.dense", transform_norm="cls.predictions.transform.LayerNorm",
        bias="cls.predictions.bias", output="cls.predictions.decoder", pooler="bert.pooler.dense", classes="classifier")


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """Names of a tied output layer."""
    if task != "masked_language_modeling" or not model.tied_embeddings:
        return {}
    return {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias"}
