"""Fields of a config by their paths."""

import dataclasses

import pytest

from purelm.config import Config, DataConfig, ModelConfig, TrainingConfig
from purelm.config.changes import apply_changes, diff_configs, field_types, flatten
from purelm.errors import UserError


def test_values_become_what_their_fields_hold():
    # Reddens where a list stays a list, which no config's hash would bear, or a whole number a whole number.
    changed = apply_changes(Config(), {
        "seed": 3, "model.width": 64, "optimizer.learning_rate": 1, "optimizer.warmup": 100,
        "data.cleaning": ["unicode_nfc"], "optimizer.decay_rules": [["a", 1], [".*", 0]], "model.head_size": None})
    assert changed == dataclasses.replace(
        Config(), seed=3, model=ModelConfig(width=64), data=DataConfig(cleaning=("unicode_nfc",)),
        optimizer=dataclasses.replace(Config().optimizer, learning_rate=1.0, warmup="100",
                                      decay_rules=(("a", 1.0), (".*", 0.0))))
    assert isinstance(changed.optimizer.learning_rate, float)
    hash(changed)


@pytest.mark.parametrize("changes, said", [
    ({"model.widht": 4}, "here: config.model.widht does not exist; did you mean 'model.width'?"),
    ({"width": 4}, "did you mean 'model.width'?"),
    ({"training.width": 4}, "did you mean 'model.width'?"),
    ({"config.model.width": 4}, "fields are named without 'config.', as 'model.width'"),
    ({"model": {"width": 4}}, "config.model does not exist"),
    ({"model.width": "4"}, "here: config.model.width='4': wants a whole number"),
    ({"model.width": 0}, "here: config.model.width=0: must be at least 1"),
    ({3: 4}, "config.3 does not exist"),
])
def test_what_is_wrong_is_named_with_its_place(changes, said):
    with pytest.raises(UserError) as error:
        apply_changes(Config(), changes, "here: ")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_every_field_has_a_path_and_a_difference_is_by_path():
    assert list(flatten(Config())) == list(field_types()) and "model.width" in flatten(Config())
    one, two = Config(training=TrainingConfig(num_steps=3)), Config(seed=1)
    assert diff_configs(one, one) == {}
    assert diff_configs(one, two) == {"seed": (0, 1), "training.num_steps": (3, None)}
