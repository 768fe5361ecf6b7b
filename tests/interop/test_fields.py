"""A config.json of which every field is accounted for."""

import pytest

from purelm.errors import UserError
from purelm.interop.fields import Fields, activation, rope


def test_a_field_that_nothing_asked_for_is_named():
    fields = Fields({"n_embd": 8, "n_embed": 8, "architectures": ["X"]}, "a/config.json")
    assert fields.take("n_embd") == 8
    with pytest.raises(UserError, match=r"a/config\.json: n_embed=8: no such field .*did you mean 'n_embd'"):
        fields.finish()


@pytest.mark.parametrize("values, ask, message", [
    ({}, lambda fields: fields.take("n_embd"), "field n_embd is missing"),
    ({"n_embd": "8"}, lambda fields: fields.take("n_embd", 1, int), "n_embd='8': wants a whole number"),
    ({"n_embd": True}, lambda fields: fields.take("n_embd", 1, int), "wants a whole number"),
    ({"bias": 1}, lambda fields: fields.take("bias", True, bool), "wants true or false"),
    ({"mode": "b"}, lambda fields: fields.require("mode", "a", "only a is known"), "mode='b': only a is known"),
    ({"act": "geluu"}, lambda fields: activation(fields, "act"), "act='geluu'.*did you mean 'gelu'"),
    ({"act": "relu2"}, lambda fields: activation(fields, "act", gated=True), "no gate has this activation"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, lambda fields: rope(fields, 1e4, 64), "rope_type|type"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "factr": 1}}, lambda fields: rope(fields, 1e4, 64),
     "rope_parameters: factr=1: no such field"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 0.7}}, lambda fields: rope(fields, 1e4, 64),
     "mscale=0.7"),
    ({"add_cross_attention": True}, lambda fields: None, "cross-attention in a decoder cannot be taken over"),
    ({"pruned_heads": {"1": [0]}}, lambda fields: None, "pruned heads"),
    ({"act": ["gelu"]}, lambda fields: activation(fields, "act"), r"act=\['gelu'\]: wants text"),
    ({"eps": float("nan")}, lambda fields: fields.number("eps"), "eps=nan: wants a number"),
    ({"eps": 10**400}, lambda fields: fields.number("eps"), "eps=1000.*: wants a number"),
    ({"n_layer": 10**9}, lambda fields: fields.layers("n_layer", 1), "n_layer=1000000000: wants 10000 at most"),
    ({"n_embd": 2**31}, lambda fields: fields.size("n_embd", 1), "wants 2147483647 at most"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": [1]}}, lambda fields: rope(fields, 1e4, 64),
     r"beta_fast=\[1\]: wants a number"),
    ({"rope_scaling": {"type": "yarn", "factor": -1}}, lambda fields: rope(fields, 1e4, 64), "factor=-1.0: wants"),
    ({"rope_theta": 0}, lambda fields: rope(fields, 1e4, 64), "base=0.0: wants a number above 0"),
])
def test_what_cannot_be_taken_over_gives_one_line(values, ask, message):
    with pytest.raises(UserError, match=message) as caught:
        ask(Fields(values))
    assert "\n" not in str(caught.value)


def test_defaults_stand_for_fields_that_a_file_leaves_out():
    fields = Fields({"pruned_heads": {}})
    assert fields.take("n_embd", 768, int) == 768
    fields.require("is_decoder", False, "a decoder is another family")
    fields.finish()


def test_rope_of_both_spellings():
    old = rope(Fields({"rope_theta": 5e5, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}}), 1e4, 64)
    new = rope(Fields({"rope_parameters": {
        "rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}}), 1e4, 64)
    assert old == new == {"positions": "rope", "rope_base": 5e5, "rope_scaling": "llama3", "rope_scaling_factor": 8.0,
                          "rope_original_length": 8192, "rope_low_frequency_factor": 1.0,
                          "rope_high_frequency_factor": 4.0}
