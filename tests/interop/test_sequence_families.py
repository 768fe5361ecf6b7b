"""T5, mT5, BART and Marian against transformers, in shapes that differ in all that a family lets differ."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import parity
import pytest
from published_configs import BART_LARGE, OPUS_MT, T5_SMALL

from purelm.config import Config, DecodingConfig, ModelConfig, TaskConfig, presets
from purelm.data.tokenizers import SpecialIds
from purelm.errors import UserError
from purelm.inference.sequence_to_sequence import answer
from purelm.interop.families import bart, marian, t5
from purelm.models.positions import relative_bucket, sinusoidal
from purelm.tasks.sequence_to_sequence import framed_source

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
PLACES = ("embedding_dropout", "attention_dropout", "residual_dropout", "feed_forward_dropout")
ALL_DROPOUTS = dict.fromkeys(PLACES, 0.1)
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


# A shape, a seed with which answers differ, and the rest as tokenizers and generation configs have it.
ANSWERS = {
    "T5": ("version 1.1", 4, SpecialIds(source_end=(1,), target_start=(0,), stop=(1,)), {}, {"pad_token_id": 0}),
    "Bart": ("more in the encoder, scaled", 17,
             SpecialIds(source_start=(0,), source_end=(2,), target_start=(2, 0), stop=(2,)),
             {"force_end": True}, {"pad_token_id": 1, "forced_bos_token_id": 0, "forced_eos_token_id": 2}),
    "Marian": ("shared", 13, SpecialIds(source_end=(0,), target_start=(49,), stop=(0,)),
               {"force_end": True, "banned": (49,)},
               {"pad_token_id": 49, "forced_eos_token_id": 0, "bad_words_ids": [[49]]}),
}
NEW_TOKENS = 12


@functools.cache
def talkative(family: str) -> tuple[Any, parity.Ours]:
    """A model whose answers are not one token again and again, and what is taken over of it. Its padding is likely."""
    import torch

    shape, seed, *_ = ANSWERS[family]
    model, generator = made(family, FAMILIES[family][0][shape]), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and weight.ndim > 1:
                weight.normal_(generator=generator).mul_(weight.shape[-1] ** -0.5 * (3 if ".fc" in name else 1))
            elif "norm.bias" in name:
                weight.zero_()
        if family != "T5":
            model.final_logits_bias.zero_()
        if family == "Bart":
            model.get_decoder().embed_positions.weight.mul_(6)
        if family == "Marian":
            model.final_logits_bias[0, 49] = 8.0
    return model, parity.ours(model)


def theirs(model: Any, rows: list[np.ndarray], **options: Any) -> np.ndarray:
    """What transformers writes after each of the sources, its start included."""
    import torch
    from transformers import GenerationConfig

    source_BS, mask_BS = np.zeros((2, len(rows), max(map(len, rows))), np.int64)
    for number, row in enumerate(rows):
        source_BS[number, :len(row)], mask_BS[number, :len(row)] = row, 1
    model.generation_config = GenerationConfig()  # Else it fills in what is not given here.
    with torch.no_grad():
        return model.generate(
            torch.tensor(source_BS), attention_mask=torch.tensor(mask_BS), generation_config=GenerationConfig(
                decoder_start_token_id=model.config.decoder_start_token_id, do_sample=False,
                max_new_tokens=NEW_TOKENS, **options)).numpy()


@pytest.mark.parametrize("beam_size", (1, 4))
@pytest.mark.parametrize("family", ANSWERS)
def test_answers_are_those_of_generate(family: str, beam_size: int) -> None:
    """Starts, a forced beginning, a forced end, bans and several ends; without any of them it reddens. A beam's scores
    are sums in both where neither has a length penalty, and transformers' beam with early_stopping ends as ours does.
    """
    _, _, special, decoding, options = ANSWERS[family]
    model, taken = talkative(family)
    rng = np.random.default_rng(0)
    sources = [rng.integers(3, 49, length).astype(np.int32) for length in (3, 8, 5, 7, 4, 6)]
    rows, begun = [framed_source(special, source) for source in sources], len(special.target_start)
    # Ends that are written: what stands in the middle of some answers.
    endless_BT = theirs(model, rows, **{**options, "forced_eos_token_id": None})[:, begun:]
    special = dataclasses.replace(special, stop=(*special.stop, *{int(row[7]) for row in endless_BT[:4]}))
    config = Config(model=taken.config, task=TaskConfig(name="sequence_to_sequence"), decoding=DecodingConfig(
        max_new_tokens=NEW_TOKENS, beam_size=beam_size, length_penalty=0.0, **decoding))
    found = answer(config, taken.params, sources, batch_size=6, special=special, vocabulary_size=50)
    beam = {"num_beams": beam_size, "early_stopping": True, "length_penalty": 0.0} if beam_size > 1 else {}
    written_BT = theirs(model, rows, eos_token_id=list(special.stop), **beam, **options)
    expected = []
    for row in written_BT[:, begun:].tolist():
        end = next((place for place, number in enumerate(row) if number in special.stop), len(row))
        expected.append(row[:end])
    assert [row.ids_T.tolist() for row in found] == expected
    assert len({len(row) for row in expected}) > 1, "answers of one length say little"


@pytest.mark.parametrize("both_ways", (False, True))
def test_far_positions_have_their_buckets(both_ways: bool) -> None:
    """The models above read 12 tokens; a bucket that is rounded otherwise shows from distance 16 on."""
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = np.arange(-1000, 1000)
    expected = T5Attention._relative_position_bucket(
        torch.tensor(-distances), bidirectional=both_ways, num_buckets=32, max_distance=128)
    np.testing.assert_array_equal(relative_bucket(distances, 32, 128, both_ways=both_ways), expected)


def test_far_positions_have_their_sines() -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    expected = MarianSinusoidalPositionalEmbedding(512, 64).create_weight()
    np.testing.assert_allclose(sinusoidal(np.arange(512), 64, halves=True), expected, atol=1e-4)


def read(model_type: str, **values: Any) -> ModelConfig:
    return parity.read_model(model_type, {"model_type": model_type, **values}, "sequence_to_sequence")


@pytest.mark.parametrize("values,expected", [
    (T5_SMALL, presets.t5("small", attention_scale=1.0, **ALL_DROPOUTS)),
    ({**T5_SMALL, "d_ff": 1024, "num_heads": 6, "num_layers": 8, "num_decoder_layers": 8, "is_gated_act": True,
      "dense_act_fn": "gelu_new", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
     presets.t5("small", version="1.1", attention_scale=1.0, **ALL_DROPOUTS)),
    (BART_LARGE, presets.bart("base", num_layers=12, num_heads=16, width=1024, feed_forward_width=4096,
                              position_offset=2, **ALL_DROPOUTS)),
    (OPUS_MT, presets.vaswani("base", vocabulary_size=58_101, context_length=512, feed_forward="silu",
                              norm_epsilon=1e-5, head_bias=True, sinusoidal_halves=True))],
    ids=["t5-small", "t5-v1_1-small", "bart-large", "opus-mt"])
def test_published_configs_are_the_presets(values: dict[str, Any], expected: ModelConfig) -> None:
    """But for how parameters start, which no checkpoint says."""
    start = {name: getattr(expected, name) for name in ("initialization", "initialization_stddev")}
    assert dataclasses.replace(read(**values), **start) == expected


@pytest.mark.parametrize("model_type,values,named", [
    ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj"),
    ("t5", {"feed_forward_proj": "mixed-gelu"}, "feed_forward_proj"),
    ("t5", {"dense_act_fn": "silu"}, "dense_act_fn"),
    ("t5", {"is_gated_act": True}, "is_gated_act"),
    ("t5", {"is_decoder": True}, "is_decoder"),
    ("t5", {"tie_word_embeddings": False, "scale_decoder_outputs": True}, "scale_decoder_outputs"),
    ("t5", {"num_heads": "8"}, "num_heads"),
    ("t5", {"num_layers": None}, "num_layers"),
    ("t5", {"dropout_rate": None}, "dropout_rate"),
    ("t5", {"d_modle": 12}, "d_modle"),
    ("bart", {"normalize_before": True}, "normalize_before"),
    ("bart", {"normalize_embedding": False}, "normalize_embedding"),
    ("bart", {"static_position_embeddings": True}, "static_position_embeddings"),
    ("bart", {"add_final_layer_norm": True}, "add_final_layer_norm"),
    ("bart", {"encoder_attention_heads": 8}, "encoder_attention_heads"),
    ("bart", {"decoder_ffn_dim": 8}, "encoder_ffn_dim"),
    ("bart", {"encoder_layerdrop": 0.1}, "encoder_layerdrop"),
    ("bart", {"activation_function": "tanh"}, "activation_function"),
    ("bart", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    ("bart", {"d_model": 12, "encoder_attention_heads": 5, "decoder_attention_heads": 5}, "attention_heads"),
    ("marian", {"decoder_vocab_size": 8}, "decoder_vocab_size"),
    ("marian", {"static_position_embeddings": False}, "static_position_embeddings"),
    ("marian", {"normalize_embedding": True}, "normalize_embedding"),
    ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings"),
])
def test_what_cannot_be_taken_over_is_named(model_type: str, values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as raised:
        read(model_type, **values)
    assert f"{named}=" in str(raised.value) and "\n" not in str(raised.value)


def test_bart_without_an_output_layer_has_no_bias_of_it() -> None:
    """The class of BART's own checkpoints."""
    model = read(**BART_LARGE | {"architectures": ["BartModel"]})
    assert not model.head_bias and "final_logits_bias" not in {
        tensor.theirs for tensor in bart.tensors(model, "sequence_to_sequence")}


def test_models_that_a_family_cannot_hold_are_not_written_as_it() -> None:
    for family, model in ((t5, presets.bart()), (bart, presets.t5()), (marian, presets.bart()), (bart, presets.gpt2()),
                          (t5, presets.t5(feed_forward="bilinear"))):
        written = family.write_config(dataclasses.replace(model, vocabulary_size=50), "sequence_to_sequence")
        assert written is None or read(family.MODEL_TYPES[0], **written) != model
