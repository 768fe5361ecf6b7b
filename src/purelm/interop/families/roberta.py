"""RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-RoBERTa (Conneau et al. 2020, arXiv 1911.02116).

BERT's encoder, whose positions start in the row after the padding token's id. The head of masked tokens has GELU
whatever hidden_act is. That of a text's class drops out its input as well; here only what its output layer reads.
"""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.interop.encoder_heads import head_tensors, tasks_of
from purelm.interop.families import bert
from purelm.interop.fields import Fields
from purelm.interop.mapping import Tensor

MODEL_TYPES = ("roberta", "xlm-roberta")
TASKS = {**tasks_of("Roberta"), **tasks_of("XLMRoberta")}
BASE = "roberta."
# Where the output layer is not tied, transformers reads its own bias in place of lm_head.bias.
KEPT = (r"pooler\.dense\.(weight|bias)", r"lm_head\.bias", r"embeddings\.(position_ids|token_type_ids)")


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig. Raises UserError as BERT's, without a padding token, or for no room for a position."""
    changes = bert.read_config(fields, task)
    padding = fields.take("pad_token_id", 1, int)
    if padding is None:
        raise fields.error("pad_token_id", "positions start in the row after this token's id; give it (RoBERTa: 1)")
    if task == "masked_language_modeling" and changes["feed_forward"] != "gelu":
        raise fields.error("hidden_act", "the head of masked tokens has gelu, and here the layers' activation; only "
                                         "gelu can be taken over")
    rows = changes["context_length"]
    if rows <= padding + 1:
        raise fields.error("max_position_embeddings", f"leaves no room for a position after the first {padding + 1}")
    return {**changes, "context_length": rows - padding - 1, "position_offset": padding + 1}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json, the padding token's id among them; None where BERT has none, or without an offset."""
    written = bert.write_config(model, task)
    if written is None or model.position_offset < 1:
        return None
    return {**written, "max_position_embeddings": model.context_length + model.position_offset,
            "pad_token_id": model.position_offset - 1}


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    return bert.body_tensors(BASE) + head_tensors(
        model, task, transform="lm_head.dense", transform_norm="lm_head.layer_norm", bias="lm_head.bias",
        output="lm_head.decoder", pooler="classifier.dense", classes="classifier.out_proj")


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """Names of a tied output layer."""
    if task != "masked_language_modeling" or not model.tied_embeddings:
        return {}
    return {"lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias"}
