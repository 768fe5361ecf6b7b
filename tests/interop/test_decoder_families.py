"""GPT-2, GPT-NeoX, OPT and Llama against transformers' own."""

from __future__ import annotations

import parity
import pytest


def _gpt2(**fields):
    from transformers import GPT2Config, GPT2LMHeadModel

    return parity.make(GPT2LMHeadModel, GPT2Config, **{
        "vocab_size": 101, "n_positions": 32, "n_embd": 36, "n_layer": 2, "n_head": 3, **fields})


def _gpt_neox(**fields):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return parity.make(GPTNeoXForCausalLM, GPTNeoXConfig, **{
        "vocab_size": 101, "max_position_embeddings": 32, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 80, **fields})


def _opt(**fields):
    from transformers import OPTConfig, OPTForCausalLM

    return parity.make(OPTForCausalLM, OPTConfig, **{
        "vocab_size": 101, "max_position_embeddings": 32, "hidden_size": 36, "num_hidden_layers": 2,
        "num_attention_heads": 3, "ffn_dim": 80, **fields})


def _llama(**fields):
    from transformers import LlamaConfig, LlamaForCausalLM

    return parity.make(LlamaForCausalLM, LlamaConfig, **{
        "vocab_size": 101, "max_position_embeddings": 32, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 88, **fields})


def _slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 8}
SHAPES = [
    (_gpt2, {}),
    (_gpt2, {"tie_word_embeddings": False, "n_inner": 52, "n_head": 4, "activation_function": "relu"}),
    (_gpt2, {"scale_attn_weights": False, "n_layer": 3, "n_head": 1, "layer_norm_epsilon": 1e-3}),
    (_gpt_neox, {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.25, "rope_type": "default"}}),
    (_gpt_neox, {"use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True,
                 "hidden_act": "gelu_new"}),
    (_gpt_neox, {"num_attention_heads": 4, "layer_norm_eps": 1e-3, "rope_parameters": {
        "rope_theta": 10.0, "partial_rotary_factor": 1.0, "rope_type": "linear", "factor": 2.0}}),
    (_opt, {}),
    (_opt, {"do_layer_norm_before": False, "word_embed_proj_dim": 20, "num_attention_heads": 4}),
    (_opt, {"enable_bias": False, "tie_word_embeddings": False, "activation_function": "gelu"}),
    _slow(_opt, {"layer_norm_elementwise_affine": False, "num_hidden_layers": 3}),
    (_llama, {}),
    (_llama, {"tie_word_embeddings": True, "head_dim": 12, "attention_bias": True, "mlp_bias": True,
              "num_key_value_heads": 1, "rope_parameters": LLAMA3}),
    (_llama, {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5, "rms_norm_eps": 1e-3,
              "rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}}),
    (_llama, {"num_hidden_layers": 3, "mlp_bias": True, "hidden_act": "gelu_pytorch_tanh", "rope_parameters": YARN}),
    _slow(_llama, {"rope_parameters": YARN | {"attention_factor": 1.3, "beta_fast": 8.0, "beta_slow": 2.0}}),
]


def _name(value):
    return value.__name__.strip("_") if callable(value) else "-".join(value) or "plain"


@pytest.mark.parametrize("family, fields", SHAPES, ids=_name)
def test_the_network_is_transformers(family, fields):
    # Reddens with: two of a table's names swapped, a transpose left out, a switch or epsilon not read.
    parity.check_decoder(family(**fields))
