import dataclasses
import typing

import pytest

from purelm.config import Config, ModelConfig, OptimizerConfig, TrainingConfig, finalize, resolve_model, validate
from purelm.errors import UserError

GOOD = Config(training=TrainingConfig(num_steps=100))


def change(section: str, **values) -> Config:
    return dataclasses.replace(GOOD, **{section: dataclasses.replace(getattr(GOOD, section), **values)})


def test_a_good_config_passes_unchanged():
    assert validate(GOOD) is GOOD


@pytest.mark.parametrize("section, values, said", [
    ("model", {"num_heads": 3}, "1, 2, 4, 8"),
    ("model", {"num_kv_heads": 3}, "1, 2, 4"),
    ("model", {"layer_sharing": 3}, "1, 2, 4"),
    ("model", {"norm": "rmsnorm"}, "did you mean 'rms_norm'"),
    ("model", {"num_layers": 2.5}, "a whole number"),
    ("model", {"num_layers": True}, "a whole number"),
    ("model", {"width": 0}, "at least 1"),
    ("model", {"norm_epsilon": float("nan")}, "finite"),
    ("model", {"zero_head": True}, "tied_embeddings=False"),
    ("model", {"zero_outputs": True, "residual_scale": "rezero"}, "never learn"),
    ("model", {"norm": "none", "norm_place": "post"}, "no effect"),
    ("model", {"norm": "none", "embedding_norm": True}, "no effect"),
    ("model", {"positions": "t5", "relative_max_distance": 16}, "above half"),
    ("model", {"positions": "rope", "rope_fraction": 0.01}, "no pair"),
    ("model", {"positions": "sinusoidal", "width": 9, "num_heads": 3}, "needs an even"),
    ("optimizer", {"learning_rate": 0.0}, "above 0"),
    ("optimizer", {"decay_rules": (("(", 1.0),)}, "regular expression"),
    ("optimizer", {"decay_rules": (("a", -1.0),)}, "at least 0"),
    ("optimizer", {"decay_rules": (("a",),)}, "2 values"),
    ("optimizer", {"momentum": 0.9}, "it is of name=sgd or muon"),
    ("optimizer", {"adam_learning_rate": 0.9}, "it is of name=muon"),
    ("optimizer", {"decay": "5%"}, "it is of schedule=wsd"),
    ("optimizer", {"warmup": "soon"}, "not a duration"),
    ("data", {"cleaning": "nfc"}, "a tuple"),
    ("data", {"validation_fraction": 0.6, "test_fraction": 0.5}, "below 1"),
    ("training", {"num_epochs": 1.0}, "exactly one of num_steps, num_epochs, num_tokens"),
    ("training", {"num_steps": None}, "no length is set"),
    ("training", {"accumulation_steps": 3}, "does not divide"),
    ("parallel", {"engine": "pmap", "fsdp": 2}, "use engine 'mesh'"),
    ("parallel", {"data": 0}, "-1 for all"),
])
def test_a_wrong_field_is_named_with_what_would_be_right(section, values, said):
    with pytest.raises(UserError) as error:
        validate(change(section, **values))
    message = str(error.value)
    assert f"config.{section}" in message and said in message and "\n" not in message


def test_finalize_resolves_every_derived_value_and_is_idempotent():
    config = dataclasses.replace(
        GOOD, model=ModelConfig(width=96, feed_forward="swiglu", context_length=10),
        optimizer=OptimizerConfig(warmup="10%"), training=TrainingConfig(num_epochs=2, batch_size=5))
    final = finalize(config, vocabulary_size=65, tokens_per_epoch=1000)
    assert (final.training.num_steps, final.training.num_epochs, final.optimizer.warmup) == (40, None, "4")
    assert (final.model.vocabulary_size, final.model.head_size, final.model.num_kv_heads) == (65, 24, 4)
    assert final.model.feed_forward_width == 256
    assert finalize(final, vocabulary_size=65, tokens_per_epoch=77) == final


def test_a_vocabulary_that_is_too_small_or_a_duration_of_nothing_is_refused():
    with pytest.raises(UserError, match="at least 65"):
        finalize(change("model", vocabulary_size=64), vocabulary_size=65, tokens_per_epoch=1000)
    with pytest.raises(UserError, match="at least one step"):
        finalize(change("training", log_every="0"), vocabulary_size=65, tokens_per_epoch=1000)


@pytest.mark.parametrize("values, momentum, decay", [
    ({"name": "muon"}, 0.95, None), ({"name": "sgd", "schedule": "wsd"}, 0.0, "20"), ({}, None, None),
    ({"name": "muon", "momentum": 0.5, "schedule": "wsd", "decay": "5%"}, 0.5, "5")])
def test_momentum_and_decay_follow_the_name_and_the_schedule(values, momentum, decay):
    optimizer = finalize(change("optimizer", **values), vocabulary_size=65, tokens_per_epoch=1000).optimizer
    assert (optimizer.momentum, optimizer.decay) == (momentum, decay)


def test_gated_width_is_two_thirds_of_the_plain_one():
    assert resolve_model(ModelConfig(width=128), 65).feed_forward_width == 512
    assert resolve_model(ModelConfig(width=128, feed_forward="swiglu"), 65).feed_forward_width == 344


def test_every_field_is_documented():
    def fields(kind):
        for field in dataclasses.fields(kind):
            hint = typing.get_type_hints(kind)[field.name]
            if dataclasses.is_dataclass(hint):
                yield from fields(hint)
            else:
                yield field

    assert all(len(field.metadata["doc"]) > 5 for field in fields(Config))
