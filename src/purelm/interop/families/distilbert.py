"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT's encoder without types of tokens, half as deep.

Its `dropout` falls on embeddings and on the feed-forward's output; here on attention's output too. A classifier's
dropout is seq_classif_dropout (texts), dropout (words) or qa_dropout (answers).
"""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.config.shapes import feed_forward_width
from purelm.interop.encoder_heads import head_fields, head_tensors, tasks_of, write_head_fields
from purelm.interop.fields import Fields, activation, activation_name
from purelm.interop.mapping import Tensor, linear, norm

MODEL_TYPES = ("distilbert",)
TASKS = tasks_of("DistilBert")
BASE = "distilbert."
KEPT = (r"embeddings\.position_ids",)


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig. Raises UserError for a head as in `head_fields`."""
    # The table of positions is in the file, however it started; weights of an output layer are tied or not by
    # tie_word_embeddings alone.
    fields.ignore("sinusoidal_pos_embds", "tie_weights_")
    width, dropout = fields.size("dim", 768), fields.number("dropout", 0.1)
    classifier_dropout = {
        "masked_language_modeling": 0.0, "tagging": dropout,
        "classification": fields.number("seq_classif_dropout", 0.2),
        "extractive_qa": fields.number("qa_dropout", 0.1)}[task]
    return {
        "architecture": "encoder", "vocabulary_size": fields.size("vocab_size", 30_522),
        "context_length": fields.size("max_position_embeddings", 512),
        "num_layers": fields.layers("n_layers", 6), "width": width,
        "num_heads": fields.heads("n_heads", 12, width), "positions": "learned",
        "feed_forward": activation(fields, "activation", "gelu"),
        "feed_forward_width": fields.size("hidden_dim", 3072), "norm": "layer_norm", "norm_place": "post",
        "norm_epsilon": 1e-12, "embedding_norm": True, "bias": True, "token_types": 0, "initialization": "gpt2",
        "initialization_stddev": fields.number("initializer_range", 0.02),
        "embedding_dropout": dropout, "residual_dropout": dropout,
        "attention_dropout": fields.number("attention_dropout", 0.1),
        "classifier_dropout": classifier_dropout, **head_fields(fields, task, "relu")}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json; None for an activation that transformers has no name for."""
    name = activation_name(model.feed_forward)
    if name is None:
        return None
    dropout = {"classification": "seq_classif_dropout", "extractive_qa": "qa_dropout"}
    own = {dropout[task]: model.classifier_dropout} if task in dropout else {}
    return {
        "vocab_size": model.vocabulary_size, "max_position_embeddings": model.context_length,
        "n_layers": model.num_layers, "dim": model.width, "n_heads": model.num_heads, "activation": name,
        "hidden_dim": feed_forward_width(model), "initializer_range": model.initialization_stddev,
        "dropout": model.residual_dropout, "attention_dropout": model.attention_dropout, **own,
        **write_head_fields(model, task)}


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    layer, embeddings = "distilbert.transformer.layer.{}", "distilbert.embeddings"
    return [
        Tensor("embedding/embedding", f"{embeddings}.word_embeddings.weight"),
        Tensor("positions/embedding", f"{embeddings}.position_embeddings.weight"),
        *norm("embedding_norm", f"{embeddings}.LayerNorm", True),
        *linear("layers/attention/query", f"{layer}.attention.q_lin", True),
        *linear("layers/attention/key", f"{layer}.attention.k_lin", True),
        *linear("layers/attention/value", f"{layer}.attention.v_lin", True),
        *linear("layers/attention/output", f"{layer}.attention.out_lin", True),
        *norm("layers/attention_norm", f"{layer}.sa_layer_norm", True),
        *linear("layers/feed_forward/up", f"{layer}.ffn.lin1", True),
        *linear("layers/feed_forward/down", f"{layer}.ffn.lin2", True),
        *norm("layers/feed_forward_norm", f"{layer}.output_layer_norm", True),
        *head_tensors(model, task, transform="vocab_transform", transform_norm="vocab_layer_norm",
                      bias="vocab_projector.bias", output="vocab_projector", pooler="pre_classifier",
                      classes="classifier")]


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """The name of a tied output layer."""
    if task != "masked_language_modeling" or not model.tied_embeddings:
        return {}
    return {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
