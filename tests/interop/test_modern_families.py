"""Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3 and OLMo 2 against transformers' own."""

from __future__ import annotations

import copy

import parity
import pytest
from published_configs import (
    GEMMA2,
    GEMMA2_27B,
    GEMMA3,
    MISTRAL,
    MISTRAL_03,
    OLMO2,
    QWEN2,
    QWEN2_500M,
    QWEN2_YARN,
    QWEN3,
)

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.interop.families import family_of, llama_like

SMALL = {"vocab_size": 101, "max_position_embeddings": 32, "hidden_size": 48, "intermediate_size": 88,
         "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3}
# Of Gemma 3, one base for each kind of layer.
BASES = {"full_attention": {"rope_type": "default", "rope_theta": 500.0},
         "sliding_attention": {"rope_type": "default", "rope_theta": 20.0}}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 64}


def _mistral(**fields):
    from transformers import MistralConfig, MistralForCausalLM

    return parity.make(MistralForCausalLM, MistralConfig, **SMALL | {"sliding_window": 5} | fields)


def _qwen2(**fields):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return parity.make(Qwen2ForCausalLM, Qwen2Config, **SMALL | fields)


def _qwen3(**fields):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return parity.make(Qwen3ForCausalLM, Qwen3Config, **SMALL | {"head_dim": 12} | fields)


def _gemma2(**fields):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    # Scores and logits near their caps, so that a cap too many, too few or elsewhere shows.
    return parity.make(Gemma2ForCausalLM, Gemma2Config, **SMALL | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5, "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0} | fields)


def _gemma3(**fields):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return parity.make(Gemma3ForCausalLM, Gemma3TextConfig, **SMALL | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5,
        "rope_parameters": copy.deepcopy(BASES)} | fields)


def _olmo2(**fields):
    from transformers import Olmo2Config, Olmo2ForCausalLM

    return parity.make(Olmo2ForCausalLM, Olmo2Config, **SMALL | fields)


def _slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


WINDOW, FULL = "sliding_attention", "full_attention"
# Windows are shorter than the batch's 12 tokens and than what is generated; the first row of a family is its plain one.
SHAPES = [
    (_mistral, {}),
    (_mistral, {"sliding_window": None, "head_dim": 12, "num_attention_heads": 5, "num_key_value_heads": 1,
                "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    (_mistral, {"sliding_window": 2, "hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5,
                "rms_norm_eps": 1e-2}),
    _slow(_mistral, {"sliding_window": 12, "num_hidden_layers": 3, "rope_parameters": YARN}),
    (_qwen2, {}),
    (_qwen2, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "num_hidden_layers": 3,
              "tie_word_embeddings": True, "num_key_value_heads": 1}),
    (_qwen2, {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5, "rope_parameters": YARN}),
    _slow(_qwen2, {"use_sliding_window": True, "sliding_window": 6, "num_hidden_layers": 4,
                   "layer_types": [WINDOW, FULL, FULL, WINDOW], "rms_norm_eps": 1e-2}),
    _slow(_qwen2, {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0}),
    (_qwen3, {"tie_word_embeddings": True}),
    (_qwen3, {"attention_bias": True, "num_attention_heads": 5, "num_key_value_heads": 1, "rms_norm_eps": 1e-2}),
    (_qwen3, {"use_sliding_window": True, "sliding_window": 3, "num_hidden_layers": 3,
              "layer_types": [WINDOW, FULL, WINDOW], "num_key_value_heads": 6}),
    _slow(_qwen3, {"rope_parameters": YARN, "head_dim": 4}),
    (_gemma2, {}),
    (_gemma2, {"query_pre_attn_scalar": 20, "head_dim": 12, "attention_bias": True, "num_hidden_layers": 3,
               "num_key_value_heads": 1, "tie_word_embeddings": False}),
    (_gemma2, {"attn_logit_softcapping": None, "final_logit_softcapping": None, "num_attention_heads": 3,
               "layer_types": [FULL, FULL], "rms_norm_eps": 1e-2}),
    _slow(_gemma2, {"layer_types": [WINDOW, WINDOW], "sliding_window": 3, "attn_logit_softcapping": 0.5}),
    _slow(_gemma2, {"num_hidden_layers": 5, "layer_types": [FULL, WINDOW, WINDOW, FULL, WINDOW]}),
    (_gemma3, {"num_hidden_layers": 3, "layer_types": [WINDOW, WINDOW, FULL]}),
    (_gemma3, {"sliding_window_pattern": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12,
               "query_pre_attn_scalar": 20, "attention_bias": True, "rope_parameters": BASES | {
                   "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0}}}),
    (_gemma3, {"tie_word_embeddings": False, "final_logit_softcapping": 3.0, "rms_norm_eps": 1e-2}),
    _slow(_gemma3, {"num_hidden_layers": 7, "sliding_window": 3}),
    _slow(_gemma3, {"layer_types": [FULL, FULL], "num_key_value_heads": 6}),
    (_olmo2, {}),
    (_olmo2, {"tie_word_embeddings": True, "num_attention_heads": 3, "num_key_value_heads": 1, "rms_norm_eps": 1e-2}),
    (_olmo2, {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5, "num_hidden_layers": 3,
              "attention_bias": True, "rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}}),
    _slow(_olmo2, {"rope_parameters": YARN, "num_key_value_heads": 6}),
]


def _name(value):
    return value.__name__.strip("_") if callable(value) else "-".join(value) or "plain"


@pytest.mark.parametrize("family, fields", SHAPES, ids=_name)
def test_the_network_is_transformers(family, fields):
    # Reddens with: two of a table's norms swapped, a window off by one, a cap, bias, base or epsilon not read.
    parity.check_decoder(family(**copy.deepcopy(fields)))  # transformers writes into rope_parameters.


PATTERN = ("window",) * 5 + ("full",)
PUBLISHED = {
    "mistral-0.1": (MISTRAL, {"attention_window": 4096, "attention_pattern": (), "num_kv_heads": 8, "head_size": 128,
                              "tied_embeddings": False, "rope_base": 10_000.0, "norm_epsilon": 1e-5}),
    "mistral-0.3": (MISTRAL_03, {"attention_window": None, "rope_base": 1e6}),
    "mistral-nemo": (MISTRAL | {"sliding_window": None, "head_dim": 128, "hidden_size": 5120}, {"head_size": 128}),
    "qwen2-0.5b": (QWEN2_500M, {
        "tied_embeddings": True, "head_size": 64, "attention_window": None, "query_key_value_bias": True,
        "attention_output_bias": None, "bias": False}),
    "qwen2.5-7b-instruct": (QWEN2 | {"rope_scaling": QWEN2_YARN}, {
        "rope_scaling": "yarn", "rope_scaling_factor": 4.0, "rope_original_length": 32768, "rope_base": 1e6}),
    "qwen2.5-7b": (QWEN2 | {"use_mrope": False, "max_position_embeddings": 131072}, {"context_length": 131_072}),
    "qwen3-0.6b": (QWEN3, {"qk_norm": True, "qk_norm_over": "head", "head_size": 128, "tied_embeddings": True,
                           "query_key_value_bias": None}),
    "gemma-2-2b": (GEMMA2, {"attention_pattern": ("window", "full"), "attention_window": 4096, "attention_softcap": 50,
                            "logits_softcap": 30, "attention_scale": None, "tied_embeddings": True, "head_size": 256,
                            "feed_forward": "geglu_tanh", "norm_place": "sandwich", "norm_offset": True}),
    "gemma-2-27b": (GEMMA2_27B, {"attention_scale": 1 / 12}),
    "gemma-3-1b-it": (GEMMA3, {"attention_pattern": PATTERN, "attention_window": 512, "rope_base": 1e6,
                               "rope_local_base": 1e4, "rope_scaling": "none", "qk_norm": True, "logits_softcap": None,
                               "attention_softcap": None, "tied_embeddings": True}),
    "gemma-3-4b's text": (GEMMA3 | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}, {
        "rope_scaling": "linear", "rope_scaling_factor": 8.0, "rope_base": 1e6, "rope_local_base": 1e4}),
    "gemma-3-270m": (GEMMA3 | {"_sliding_window_pattern": 6, "num_hidden_layers": 18, "use_bidirectional_attention":
                               False, "layer_types": ([WINDOW] * 5 + [FULL]) * 3}, {"attention_pattern": PATTERN}),
    "olmo-2-7b": (OLMO2, {"norm_place": "output", "qk_norm_over": "all_heads", "rope_base": 500_000.0, "bias": False,
                          "tied_embeddings": False, "num_kv_heads": 32, "attention_window": None}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_understood(name):
    # Reddens with: a field of theirs that is not accounted for, a default that is not transformers' own.
    fields, expected = PUBLISHED[name]
    model = parity.read_model(fields["model_type"], fields, "language_modeling")
    assert {field: getattr(model, field) for field in expected} == expected
    family = family_of(fields["model_type"], "config.json")
    written = family.write_config(model, "language_modeling")
    assert parity.read_model(fields["model_type"], written, "language_modeling") == model


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_understands_the_published_configs_alike(name):
    # Its own class fills in what the file leaves out and writes it in its newer spelling; that must say the same.
    # Reddens with: layer_types from max_window_layers or sliding_window_pattern off by one, rope_theta not read.
    import transformers

    fields, _ = PUBLISHED[name]
    understood = transformers.AutoConfig.for_model(**copy.deepcopy(fields)).to_dict()
    assert (parity.read_model(fields["model_type"], understood, "language_modeling")
            == parity.read_model(fields["model_type"], fields, "language_modeling"))


@pytest.mark.parametrize("model_type", ["mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2"])
def test_an_empty_config_is_transformers_default(model_type):
    # Reddens with: any default of a family that is not that of its configuration class.
    import transformers

    understood = transformers.AutoConfig.for_model(model_type).to_dict()
    assert (parity.read_model(model_type, understood, "language_modeling")
            == parity.read_model(model_type, {}, "language_modeling"))


REFUSED = [
    (MISTRAL, {"sliding_window": 0}, "sliding_window=0: wants a whole number from 1"),
    (MISTRAL, {"layer_types": [FULL] * 32}, "layer_types="),
    (MISTRAL, {"hidden_act": "tanh"}, "hidden_act='tanh': no such activation"),
    (MISTRAL, {"num_key_value_heads": 5}, "num_key_value_heads=5: does not divide num_attention_heads=32"),
    (MISTRAL, {"num_attention_heads": 30}, "num_attention_heads=30: does not divide the width 4096"),
    (MISTRAL, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic': no such scaling"),
    (QWEN2, {"use_mrope": True}, "use_mrope=True: rotary positions of images"),
    (QWEN2, {"layer_types": [WINDOW] * 28}, "layer_types="),
    (QWEN2, {"layer_types": [FULL] * 27}, "wants one for each of num_hidden_layers=28, not 27"),
    (QWEN3, {"layer_types": ["chunked_attention"] * 28}, "'chunked_attention' cannot be taken over"),
    (QWEN3, {"num_experts": 8}, "num_experts=8: no such field"),
    (GEMMA2, {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    (GEMMA2, {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0: wants a number above 0"),
    (GEMMA3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
    (GEMMA3, {"sliding_window_pattern": 0}, "sliding_window_pattern=0: wants a whole number from 1"),
    (GEMMA3, {"model_type": "gemma3"}, "model_type='gemma3': a model of images and text"),
    (GEMMA3, {"rope_parameters": BASES | {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
     "scaling in layers with a window cannot be taken over"),
    (GEMMA3, {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}}, "rope_theta=10.0"),
    (OLMO2, {"clip_qkv": 8.0}, "clip_qkv=8.0: no such field"),
]


@pytest.mark.parametrize("fields, changes, message", REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_taken_over_is_named(fields, changes, message):
    with pytest.raises(UserError) as raised:
        fields = fields | changes
        parity.read_model(fields["model_type"], fields, "language_modeling")
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).startswith("config.json: ")


@pytest.mark.parametrize("kinds, pattern", [
    ("f", "f"), ("www", "w"), ("wfwf", "wf"), ("wfw", "wf"), ("wwf", "wwf"), ("wwfww", "wwf"), ("fffww", "fffww"),
    ("wwwwwf" * 4 + "ww", "wwwwwf"), ("fw", "fw"), ("ffwff", "ffw")])
def test_the_shortest_pattern(kinds, pattern):
    # Reddens with: a pattern that must divide the number of layers, or that is cut before it repeats.
    assert llama_like.shortest_pattern(kinds) == tuple(pattern)


def test_layer_types_of_a_model_are_those_read():
    # Reddens with: layer_types that do not go round, or that call a model without pattern full where it has a window.
    model = ModelConfig(num_layers=5, attention_window=3, attention_pattern=("window", "window", "full"))
    assert llama_like.layer_types(model) == [WINDOW, WINDOW, FULL, WINDOW, WINDOW]
    assert llama_like.layer_types(ModelConfig(num_layers=2, attention_window=3)) == [WINDOW] * 2
    assert llama_like.layer_types(ModelConfig(num_layers=2)) == [FULL] * 2
