"""GPT-2, GPT-NeoX, OPT and Llama against transformers' own, in memory and in files."""

from __future__ import annotations

import json

import jax
import numpy as np
import parity
import pytest

from purelm.errors import UserError
from purelm.interop.checkpoint import open_checkpoint
from purelm.interop.importing import place_params


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
# Of heads of 16, so that the bounds fall on dimensions 0 and 5; with other betas 1 and 6.
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 256}
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
    (_llama, {"num_hidden_layers": 3, "head_dim": 16, "mlp_bias": True, "hidden_act": "gelu", "rope_parameters": YARN}),
    _slow(_llama, {"head_dim": 16, "attention_bias": True, "hidden_act": "gelu_pytorch_tanh", "rope_parameters": {
        **YARN, "attention_factor": 1.3, "beta_fast": 8.0, "beta_slow": 0.5}}),
    _slow(_llama, {"num_attention_heads": 7, "hidden_size": 42, "num_key_value_heads": 1, "tie_word_embeddings": True,
                   "hidden_act": "relu"}),
    _slow(_gpt2, {"n_head": 6, "activation_function": "silu", "tie_word_embeddings": False}),
    _slow(_gpt_neox, {"tie_word_embeddings": True, "num_attention_heads": 2, "hidden_act": "relu", "rope_parameters": {
        **YARN, "partial_rotary_factor": 0.5}}),
    _slow(_opt, {"do_layer_norm_before": False, "tie_word_embeddings": False, "num_attention_heads": 9}),
    _slow(_opt, {"enable_bias": False, "layer_norm_elementwise_affine": False, "word_embed_proj_dim": 48}),
]


def _name(value):
    return value.__name__.strip("_") if callable(value) else "-".join(value) or "plain"


@pytest.mark.parametrize("family, fields", SHAPES, ids=_name)
def test_the_network_is_transformers(family, fields):
    # Reddens with: two of a table's names swapped, a transpose left out, a switch or epsilon not read.
    parity.check_decoder(family(**fields))


def _save(folder, model, state):
    """A checkpoint's folder with these tensors."""
    from safetensors.numpy import save_file

    fields = parity.fields_of(model) | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(fields))
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    return folder


# A family, the copy of the tied table that a file may hold, and what old files of the base class hold beside the rest.
FILES = {
    "gpt2": (_gpt2, "lm_head.weight", ["h.0.attn.bias", "h.1.attn.masked_bias"]),
    "gpt_neox": (_gpt_neox, "embed_out.weight", [
        "layers.0.attention.bias", "layers.1.attention.masked_bias", "layers.1.attention.rotary_emb.inv_freq"]),
    "opt": (_opt, "lm_head.weight", ["decoder.version"]),
    "llama": (_llama, "lm_head.weight", ["layers.1.self_attn.rotary_emb.inv_freq"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_old_and_of_the_base_class_are_read(tmp_path, name):
    # Reddens with a BASE or a buffer that is not known; what is not read is kept aside.
    family, copy, buffers = FILES[name]
    model = family(tie_word_embeddings=True)
    taken = parity.ours(model)
    state = {key.removeprefix(taken.family.BASE): array for key, array in parity.state_of(model).items()}
    checkpoint = open_checkpoint(_save(tmp_path, model, state | {key: np.ones((1, 1, 3), bool) for key in buffers}))
    assert sorted(checkpoint.others) == sorted([copy, *buffers])
    assert checkpoint.model == taken.config
    jax.tree.map(np.testing.assert_array_equal, place_params(checkpoint, checkpoint.model), taken.params)


def test_a_head_by_its_new_name_is_read(tmp_path):
    # transformers 5 calls GPT-NeoX's output layer so, and reads both.
    model = _gpt_neox()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    checkpoint = open_checkpoint(_save(tmp_path, model, state))
    assert checkpoint.names["embed_out.weight"] == "lm_head.weight" and not checkpoint.others


@pytest.mark.parametrize("name", FILES)
def test_tensors_too_many_missing_or_of_another_shape_are_named(tmp_path, name):
    family, copy, _ = FILES[name]
    model = family(tie_word_embeddings=True)
    state = parity.state_of(model)
    one = next(name for name in state if ".1." in name)
    wrong = [(state | {"extra.weight": np.ones(3, np.float32)}, "extra.weight"),
             (state | {copy: state[copy] + 1}, copy),
             ({key: array for key, array in state.items() if key != one}, one),
             (state | {one: state[one][:-1]}, one)]
    for tensors, named in wrong:
        with pytest.raises(UserError) as raised:
            checkpoint = open_checkpoint(_save(tmp_path, model, tensors))
            place_params(checkpoint, checkpoint.model)
        assert f"tensor {named}" in str(raised.value) and "\n" not in str(raised.value)
