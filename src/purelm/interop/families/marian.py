"""Marian (Junczys-Dowmunt et al. 2018, ACL, arXiv 1804.00344), as of OPUS-MT (Tiedemann & Thottingal 2020, EAMT):
translation, one model a pair of languages.

BART's stacks without a norm of the embeddings, and with sinusoidal positions whose sines come first; files hold their
table, which is not read. Source and target share a table of embeddings, or have one each of the same size.
"""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.interop.families.bart import read_stacks, stacks, write_stacks
from purelm.interop.fields import Fields
from purelm.interop.mapping import Tensor

MODEL_TYPES = ("marian",)
TASKS = {"MarianMTModel": "sequence_to_sequence"}
BASE = "model."
KEPT = (r"(encoder|decoder)\.embed_positions\.weight",)


def read_config(fields: Fields, task: str) -> dict[str, Any]:
    """Changes of ModelConfig."""
    changes = read_stacks(fields, vocabulary_size=58_101)
    fields.require("normalize_embedding", False, "normalized embeddings cannot be taken over")
    fields.require("static_position_embeddings", True, "learned positions cannot be taken over")
    fields.ignore("extra_pos_embeddings")
    shared = fields.take("share_encoder_decoder_embeddings", True, bool)
    tied = fields.take("tie_word_embeddings", True, bool)
    if shared and not tied:
        raise fields.error("tie_word_embeddings", "must be true with share_encoder_decoder_embeddings=true")
    size = changes["vocabulary_size"]
    if fields.has("decoder_vocab_size"):
        fields.require("decoder_vocab_size", size, f"must be vocab_size={size}: both sides have one vocabulary here")
    fields.ignore("decoder_vocab_size")
    return changes | {"positions": "sinusoidal", "sinusoidal_halves": True, "embedding_norm": False,
                      "tied_embeddings": tied, "shared_embeddings": shared, "head_bias": True}


def write_config(model: ModelConfig, task: str) -> dict[str, Any] | None:
    """Fields of config.json."""
    written = write_stacks(model)
    if written is None or model.positions != "sinusoidal":
        return None
    return written | {"decoder_vocab_size": model.vocabulary_size, "tie_word_embeddings": model.tied_embeddings,
                      "share_encoder_decoder_embeddings": model.shared_embeddings}


def tensors(model: ModelConfig, task: str) -> list[Tensor]:
    """The table."""
    if model.shared_embeddings:
        return [Tensor("embedding/embedding", "model.shared.weight"), *stacks(head_bias=True)]
    own = [Tensor("encoder/embedding/embedding", "model.encoder.embed_tokens.weight"),
           Tensor("embedding/embedding", "model.decoder.embed_tokens.weight")]
    head = [] if model.tied_embeddings else [Tensor("head/kernel", "lm_head.weight", transpose=True)]
    return [*own, *head, *stacks(head_bias=True)]


def aliases(model: ModelConfig, task: str) -> dict[str, str]:
    """Names that may be in a file beside the tensor that they are tied to."""
    if not model.shared_embeddings:
        return {"lm_head.weight": "model.decoder.embed_tokens.weight"} if model.tied_embeddings else {}
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return dict.fromkeys(names, "model.shared.weight")
