"""config.json of GPT-2, GPT-NeoX, OPT and Llama: published ones, what is refused, and what a family cannot hold."""

from __future__ import annotations

import dataclasses
import json

import parity
import pytest
from published_configs import (
    DISTILGPT2,
    GPT2,
    GPT2_MEDIUM,
    LLAMA2_7B,
    LLAMA31_8B,
    LLAMA32_1B,
    NEOX_20B,
    OPT_125M,
    OPT_350M,
    PYTHIA_70M,
    TINY_LLAMA,
    VICUNA_16K,
)

from purelm.config import ModelConfig, presets, resolve_model
from purelm.config.shapes import check_model
from purelm.errors import UserError
from purelm.interop.families import family_of

_GPT2_DROPOUT = {"embedding_dropout": 0.1, "attention_dropout": 0.1, "residual_dropout": 0.1}
_PYTHIA = ModelConfig(
    vocabulary_size=50_304, context_length=2048, num_layers=6, width=512, num_heads=8, positions="rope",
    rope_fraction=0.25, parallel_block=True, parallel_norms="separate", tied_embeddings=False)
_OPT = ModelConfig(
    vocabulary_size=50_272, context_length=2048, num_layers=12, width=768, num_heads=12, position_offset=2,
    feed_forward="relu", residual_dropout=0.1)
_LLAMA3 = {"rope_scaling": "llama3", "rope_scaling_factor": 8.0, "rope_original_length": 8192,
           "context_length": 131_072}
PUBLISHED = {
    "gpt2": (GPT2, presets.gpt2("small", **_GPT2_DROPOUT)),
    "gpt2-medium": (GPT2_MEDIUM, presets.gpt2("medium", **_GPT2_DROPOUT)),
    "distilgpt2": (DISTILGPT2, presets.gpt2("small", num_layers=6, **_GPT2_DROPOUT)),
    "pythia-70m": (PYTHIA_70M, _PYTHIA),
    "gpt-neox-20b": (NEOX_20B, dataclasses.replace(
        _PYTHIA, feed_forward="gelu_tanh", num_layers=44, width=6144, num_heads=64, vocabulary_size=50_432)),
    "opt-125m": (OPT_125M, _OPT),
    "opt-350m": (OPT_350M, dataclasses.replace(
        _OPT, num_layers=24, width=1024, num_heads=16, norm_place="post", embedding_width=512)),
    "llama-2-7b": (LLAMA2_7B, presets.llama(
        "1b", context_length=4096, num_layers=32, width=4096, num_kv_heads=32, feed_forward_width=11_008)),
    "tiny-llama": (TINY_LLAMA, presets.llama("1b")),
    "llama-3.1-8b": (LLAMA31_8B, presets.llama("8b", **_LLAMA3)),
    "llama-3.2-1b": (LLAMA32_1B, presets.llama(
        "8b", **_LLAMA3 | {"rope_scaling_factor": 32.0}, num_layers=16, width=2048, feed_forward_width=8192,
        tied_embeddings=True)),
    "vicuna-16k": (VICUNA_16K, presets.llama(
        "1b", context_length=4096, num_layers=32, width=4096, num_kv_heads=32, feed_forward_width=11_008,
        rope_scaling="linear", rope_scaling_factor=4.0)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_understood(name):
    # Reddens with: a default or a field's name that is wrong, a field of published files that is not accounted for.
    fields, expected = PUBLISHED[name]
    found = parity.read_model(fields["model_type"], fields, "language_modeling")
    assert found == resolve_model(expected, expected.vocabulary_size)
    check_model(found)


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_understands_the_same(name):
    # What transformers 5 makes of the old spelling, it spells anew; both have to mean one model. So has what we write.
    from transformers import AutoConfig

    fields = PUBLISHED[name][0]
    model_type, task = fields["model_type"], "language_modeling"
    found = parity.read_model(model_type, fields, task)
    own = {key: value for key, value in fields.items() if key != "model_type"}
    spelled_anew = json.loads(AutoConfig.for_model(model_type, **own).to_json_string(use_diff=False))
    assert parity.read_model(model_type, spelled_anew, task) == found
    assert _holds(model_type, found)


@pytest.mark.parametrize("name", PUBLISHED)
def test_older_readers_understand_what_is_written(name):
    # Of positions, transformers 4 reads the fields of then alone.
    fields = PUBLISHED[name][0]
    found = parity.read_model(fields["model_type"], fields, "language_modeling")
    written = family_of(fields["model_type"], "config.json").write_config(found, "language_modeling")
    written = {field: value for field, value in written.items() if field != "rope_parameters"}
    assert parity.read_model(fields["model_type"], written, "language_modeling") == found


# A file, what is changed in it, and the field that the message names.
REFUSED = [
    (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
    (GPT2, {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    (GPT2, {"activation_function": "quick_gelu"}, "activation_function"),
    (GPT2, {"n_head": 7}, "n_head"),
    (GPT2, {"n_layer": 0}, "n_layer"),
    (GPT2, {"n_embd": None}, "n_embd"),
    (GPT2, {"attn_pdrop": "none"}, "attn_pdrop"),
    (GPT2, {"n_experts": 8}, "n_experts"),
    (PYTHIA_70M, {"rotary_pct": 0.3}, "rotary_pct"),
    (PYTHIA_70M, {"rotary_pct": 0.0}, "rotary_pct"),
    (PYTHIA_70M, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type"),
    (PYTHIA_70M, {"num_attention_heads": 9}, "num_attention_heads"),
    (OPT_125M, {"layerdrop": 0.1}, "layerdrop"),
    (OPT_125M, {"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
    (OPT_350M, {"tie_word_embeddings": False}, "word_embed_proj_dim"),
    (LLAMA31_8B, {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type"),
    (LLAMA31_8B, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    (LLAMA31_8B, {"rope_scaling": {"rope_type": "linear", "factor": 8.0, "warmth": 1}}, "warmth"),
    (LLAMA31_8B, {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7}}, "mscale"),
    (LLAMA31_8B, {"hidden_act": "tanh"}, "hidden_act"),
    (LLAMA31_8B, {"sliding_window": 4096}, "sliding_window"),
    (LLAMA31_8B, {"attention_bias": "yes"}, "attention_bias"),
]


@pytest.mark.parametrize("fields, changes, named", REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_taken_over_is_named(fields, changes, named):
    # Reddens with a field that is dropped without a word.
    with pytest.raises(UserError) as raised:
        parity.read_model(fields["model_type"], fields | changes, "language_modeling")
    message = str(raised.value)
    assert message.startswith("config.json: ") and "\n" not in message
    assert f"{named}=" in message or f"field {named} " in message


# Fewer biases, or scales of norms, than a family can have: the least of them that hold what the model has.
@pytest.mark.parametrize("name, changes, fields", [
    ("pythia-70m", {"bias": False}, {"attention_bias": False}),
    ("pythia-70m", {"query_key_value_bias": False}, {"attention_bias": True}),
    ("opt-125m", {"bias": False}, {"enable_bias": False, "layer_norm_elementwise_affine": True}),
    ("opt-125m", {"bias": False, "feed_forward_bias": True}, {"enable_bias": True}),
    ("opt-125m", {"bias": False, "norm_scale": False}, {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    ("opt-125m", {"norm_scale": False}, {"enable_bias": True, "layer_norm_elementwise_affine": True}),
    ("llama-2-7b", {"bias": True}, {"attention_bias": True, "mlp_bias": True}),
    ("llama-2-7b", {"feed_forward_bias": True}, {"attention_bias": False, "mlp_bias": True}),
])
def test_biases_are_written_as_the_model_has_them(name, changes, fields):
    published, model = PUBLISHED[name]
    written = family_of(published["model_type"], "config.json").write_config(
        dataclasses.replace(model, **changes), "language_modeling")
    assert {field: written[field] for field in fields} == fields


# Switches that none of the four families has, or not so.
NOT_HELD = [
    {"norm": "none"}, {"norm_place": "sandwich"}, {"norm_offset": True}, {"embedding_norm": True}, {"qk_norm": True},
    {"attention_scale": 0.3}, {"attention_window": 8}, {"attention_softcap": 30.0}, {"attention_sink": True},
    {"logits_softcap": 30.0}, {"positions": "alibi"}, {"feed_forward": "reglu", "norm_bias": True},
    {"feed_forward": "squared_relu", "head_bias": True}, {"embedding_scale": "sqrt_width"}, {"token_types": 2},
    {"residual_scale": "rezero"}, {"layer_sharing": 2}, {"query_key_value_bias": True, "attention_output_bias": False},
    {"feed_forward_bias": False, "bias": True}, {"prefix_attention": True},
]


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "opt-125m", "opt-350m", "llama-3.1-8b"])
@pytest.mark.parametrize("changes", NOT_HELD, ids=lambda changes: next(iter(changes)))
def test_what_a_family_cannot_hold_does_not_come_back(name, changes):
    # The exporter refuses a model that reads differently once it is written; reddens with a switch that read_config
    # would set to what the model happens to have.
    fields, expected = PUBLISHED[name]
    model = dataclasses.replace(resolve_model(expected, expected.vocabulary_size), **changes)
    if "feed_forward_bias" in changes and name == "llama-3.1-8b":  # One bias in attention is what it does not have.
        model = dataclasses.replace(model, query_key_value_bias=True)
    assert not _holds(fields["model_type"], model)


def _holds(model_type, model):
    written = family_of(model_type, "config.json").write_config(model, "language_modeling")
    try:
        return parity.read_model(model_type, json.loads(json.dumps(written)), "language_modeling") == model
    except UserError:
        return False
