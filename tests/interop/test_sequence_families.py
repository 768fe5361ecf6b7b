"""T5, mT5, BART and Marian against transformers, in shapes that differ in all that a family lets differ."""

from __future__ import annotations

from typing import Any

import parity
import pytest

T5 = {"vocab_size": 50, "d_model": 12, "d_ff": 20, "decoder_start_token_id": 0}
# Heads that are odd in number, or not the width together; buckets shared from a short distance on, and never.
T5_SHAPES = {
    "version 1.0": {**T5, "d_kv": 5, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 3,
                    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6},
    "version 1.1": {**T5, "d_kv": 4, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2,
                    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "dropout_rate": 0.0},
    "version 1.0, one head, n_positions": {**T5, "d_model": 10, "d_kv": 8, "num_heads": 1, "num_layers": 1,
                                           "layer_norm_epsilon": 1e-3, "n_positions": 64},
}
MORE_T5_SHAPES = {
    "gated silu": {**T5, "d_kv": 4, "num_heads": 5, "num_layers": 2, "feed_forward_proj": "gated-silu"},
    "gelu": {**T5, "d_kv": 6, "num_heads": 2, "num_layers": 2, "feed_forward_proj": "gelu"},
}
MT5_SHAPE = {**T5, "d_kv": 6, "num_heads": 3, "num_layers": 2}
BOTH = ("attention_heads", "ffn_dim")


def both_stacks(heads: int, hidden: int) -> dict[str, int]:
    """Heads and hidden units of encoder and decoder."""
    return {f"{stack}_{what}": number for stack in ("encoder", "decoder")
            for what, number in zip(BOTH, (heads, hidden))}


BART = {"vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 1, "decoder_start_token_id": 2}
BART_SHAPES = {
    "more in the decoder": {**BART, **both_stacks(3, 20), "d_model": 12, "encoder_layers": 1, "decoder_layers": 3},
    "more in the encoder, scaled": {**BART, **both_stacks(2, 28), "d_model": 12, "encoder_layers": 3,
                                    "decoder_layers": 1, "scale_embedding": True, "activation_function": "relu"},
    "one head": {**BART, **both_stacks(1, 16), "d_model": 10, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.2,
                 "attention_dropout": 0.3, "activation_dropout": 0.4},
}
MORE_BART_SHAPES = {
    "gelu_new": {**BART, **both_stacks(5, 20), "d_model": 15, "encoder_layers": 2, "decoder_layers": 2,
                 "activation_function": "gelu_new"},
}
MARIAN = {"vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 49, "decoder_start_token_id": 49,
          "eos_token_id": 0, "activation_function": "swish", "scale_embedding": True}
MARIAN_SHAPES = {
    "shared": {**MARIAN, **both_stacks(3, 20), "d_model": 12, "encoder_layers": 1, "decoder_layers": 2},
    "not scaled": {**MARIAN, **both_stacks(1, 16), "d_model": 10, "encoder_layers": 2, "decoder_layers": 1,
                   "scale_embedding": False, "activation_function": "gelu"},
    "a table each": {**MARIAN, **both_stacks(2, 20), "d_model": 12, "encoder_layers": 2, "decoder_layers": 2,
                     "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50},
}
MORE_MARIAN_SHAPES = {
    "three tables": {**MARIAN_SHAPES["a table each"], "tie_word_embeddings": False},
}
FAMILIES = {"T5": (T5_SHAPES, MORE_T5_SHAPES), "Bart": (BART_SHAPES, MORE_BART_SHAPES),
            "Marian": (MARIAN_SHAPES, MORE_MARIAN_SHAPES), "MT5": ({"as released": MT5_SHAPE}, {})}


def made(family: str, fields: dict[str, Any]) -> Any:
    """transformers' model, all of it drawn but Marian's tables of positions, and of T5 1.1 and mT5 an output layer of
    its own: transformers starts with one table for both, and parts them where a file does."""
    import torch
    import transformers

    classes = {"T5": ("T5ForConditionalGeneration", "T5Config"), "MT5": ("MT5ForConditionalGeneration", "MT5Config"),
               "Bart": ("BartForConditionalGeneration", "BartConfig"), "Marian": ("MarianMTModel", "MarianConfig")}
    model = parity.make(*(getattr(transformers, name) for name in classes[family]), **fields)
    generator = torch.Generator().manual_seed(1)
    if hasattr(model, "final_logits_bias"):
        del model.final_logits_bias  # A buffer, whose gradient is compared too once it is none.
        model.final_logits_bias = torch.nn.Parameter(torch.randn(1, fields["vocab_size"], generator=generator))
    if family == "Marian":
        for stack in (model.model.encoder, model.model.decoder):
            stack.embed_positions.weight = torch.nn.Parameter(stack.embed_positions.create_weight(), False)
    if not getattr(model.config, "scale_decoder_outputs", family != "MT5"):
        model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape, generator=generator))
    return model


def rows(number: int, slow: bool = False) -> list[Any]:
    return [pytest.param(family, fields, id=f"{family} {name}", marks=[pytest.mark.slow] if slow else [])
            for family, shapes in FAMILIES.items() for name, fields in shapes[number].items()]


@pytest.mark.parametrize("family,fields", rows(0) + rows(1, slow=True))
def test_logits_layers_gradients_targets_and_the_way_back_are_theirs(family: str, fields: dict[str, Any]) -> None:
    """Reddens with any line of a table or a translation that is wrong, and with an attention_scale that is not 1."""
    deeper = fields.get("num_decoder_layers", 0) > fields.get("num_layers", 0)
    parity.check_encoder_decoder(made(family, fields), use_cache=not deeper)
