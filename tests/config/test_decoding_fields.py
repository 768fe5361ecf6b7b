"""config.decoding: fields that have no effect beside the others are refused, and what a change leaves without effect
goes back to its default."""

import dataclasses

import pytest

from purelm.config import Config, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig, from_dict, validate
from purelm.config.applies import change_decoding
from purelm.errors import UserError


def config_of(task="sequence_to_sequence", architecture="encoder_decoder", **decoding) -> Config:
    return dataclasses.replace(
        Config(), model=ModelConfig(architecture=architecture), task=TaskConfig(name=task),
        training=TrainingConfig(num_steps=1), decoding=DecodingConfig(**decoding))


@pytest.mark.parametrize("decoding", [
    {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05}, {"repetition_penalty": 1.2},
    {"beam_size": 4, "beam_groups": 2, "diversity_penalty": 0.5, "num_best": 3, "repetition_penalty": 1.2},
])
def test_what_goes_together(decoding):
    validate(config_of(**decoding))


@pytest.mark.parametrize("decoding, words", [
    ({"top_k": 5}, r"top_k=5 has no effect with config.decoding.temperature=0.*set it to none"),
    ({"beam_size": 4, "temperature": 0.5}, "temperature=0.5 has no effect with config.decoding.beam_size=4"),
    ({"num_best": 2}, "num_best=2 has no effect with config.decoding.beam_size=1"),
    ({"beam_size": 4, "num_best": 5}, "more than config.decoding.beam_size=4"),
    ({"beam_size": 4, "beam_groups": 3, "diversity_penalty": 0.5}, "choose one of 1, 2, 4"),
    ({"beam_size": 4, "beam_groups": 2}, "set both, or neither"),
    ({"beam_size": 4, "diversity_penalty": 0.5}, "set both, or neither"),
    ({"candidates": "sentences", "presence_penalty": 0.5}, "writes nothing"),
    ({"temperature": 0.5, "top_p": 1.5}, "at most 1"),
])
def test_what_does_not(decoding, words):
    with pytest.raises(UserError, match=words):
        validate(config_of(**decoding))


def test_fields_of_other_tasks():
    with pytest.raises(UserError, match="has no effect with config.task.name=dialogue"):
        validate(config_of("dialogue", "decoder", num_best=2, beam_size=2))
    validate(config_of("dialogue", "decoder", temperature=0.7, top_p=0.9))


def test_a_change_for_one_call():
    # Reddens where a flag such as --temperature=0 is refused for what the run's own config says.
    drawn = config_of(temperature=0.7, top_k=40)
    assert change_decoding(drawn, {"temperature": 0.0}).decoding == DecodingConfig()
    assert change_decoding(drawn, {"beam_size": 4}).decoding == DecodingConfig(beam_size=4)
    beam = config_of(beam_size=4, num_best=2)
    assert change_decoding(beam, {"beam_size": 1}).decoding == DecodingConfig()
    with pytest.raises(UserError, match="temperature=0.5 has no effect"):
        change_decoding(drawn, {"beam_size": 4, "temperature": 0.5})


def test_old_runs_have_fewer_fields():
    old = from_dict({"decoding": {"beam_size": 4, "length_penalty": 0.6, "max_new_tokens": 64}})
    assert old.decoding == DecodingConfig(beam_size=4, length_penalty=0.6, max_new_tokens=64)
