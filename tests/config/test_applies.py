"""Fields set where nothing reads them are refused; every architecture and task is covered by the tables."""

import dataclasses
import importlib.util
import typing

import pytest

from purelm.config import Config, ModelConfig, TaskConfig, TrainingConfig, validate
from purelm.config.applies import ARCHITECTURES_OF_TASK, TASKS_OF_FIELD, reads
from purelm.errors import UserError

TASKS = tuple(ARCHITECTURES_OF_TASK)
ARCHITECTURES = typing.get_args(typing.get_type_hints(ModelConfig)["architecture"])


def config_for(task: str, **sections) -> Config:
    architecture = sorted(ARCHITECTURES_OF_TASK[task])[0]
    model = dataclasses.replace(sections.pop("model", ModelConfig()), architecture=architecture)
    return dataclasses.replace(Config(), model=model, task=TaskConfig(name=task), training=TrainingConfig(num_steps=1),
                               **sections)


def test_the_tables_know_every_task_and_architecture():
    for task in TASKS:
        assert all(importlib.util.find_spec(f"purelm.{room}.{task}") for room in ("tasks", "evaluation"))
    assert set().union(*ARCHITECTURES_OF_TASK.values()) == set(ARCHITECTURES)
    assert set().union(*TASKS_OF_FIELD.values()) <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_refused_nowhere(task):
    if task != "span_corruption":  # Its decoder needs prefix_attention; its default architecture is the decoder.
        validate(config_for(task))


@pytest.mark.parametrize("path", [path for path in TASKS_OF_FIELD if "." in path])
def test_a_field_is_refused_for_the_tasks_that_do_not_read_it(path):
    """Reddens when a row of the table is not looked at."""
    section, field = path.split(".")
    hint = typing.get_type_hints(type(getattr(Config(), section)))[field]
    value = getattr(getattr(Config(), section), field)
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    other = next((choice for choice in choices if choice != value), None)
    if other is None:
        other = {bool: lambda: not value, str: lambda: "x", float: lambda: value / 2 + 0.17, int: lambda: value + 3,
                 tuple: lambda: ("rouge",) if field == "metrics" else (("p", "pairs", "x", 1.0),) if field == "mixture"
                 else ("word_swap",), type(None): lambda: 3 if field != "text_pair_field" else "x"}[type(value)]()
    task = next(task for task in TASKS if task not in TASKS_OF_FIELD[path])
    config = config_for(task)
    config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{field: other})})
    with pytest.raises(UserError, match=f"config.{section}.{field}=.* has no effect|config.{section}.{field}"):
        validate(config)


@pytest.mark.parametrize("task, field, value", [
    ("tagging", "truncation", "tail"), ("extractive_qa", "truncation", "tail"), ("dialogue", "truncation", "tail"),
    ("span_corruption", "packing", "stream"),
])
def test_no_task_ignores_how_texts_are_cut_and_packed(task, field, value):
    """Reddens when a task that never looks at the field is listed as one of its readers."""
    config = dataclasses.replace(config_for(task), data=dataclasses.replace(Config().data, **{field: value}))
    with pytest.raises(UserError, match=f"config.data.{field}='{value}' has no effect with config.task.name={task}"):
        validate(config)


@pytest.mark.parametrize("task, model, message", [
    ("language_modeling", {"architecture": "encoder"}, "cannot do config.task.name=language_modeling"),
    ("language_modeling", {"cell": "gru"}, "config.model.cell='gru' has no effect"),
    ("language_modeling", {"architecture": "recurrent", "norm": "rms_norm"}, "config.model.norm='rms_norm' has no"),
    ("language_modeling", {"architecture": "recurrent", "bidirectional": True}, "read the token it is to predict"),
    ("language_modeling", {"encoder_layers": 2}, "config.model.encoder_layers=2 has no effect"),
])
def test_what_an_architecture_cannot_do_is_refused(task, model, message):
    config = Config(model=ModelConfig(**model), task=TaskConfig(name=task), training=TrainingConfig(num_steps=1))
    with pytest.raises(UserError, match=message):
        validate(config)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_encoder_has_types_of_tokens_for_every_task(number):
    """Reddens where a pretrained encoder (BERT's 2 types, RoBERTa's 1) could not be taken for one of them."""
    for task in ("masked_language_modeling", "classification", "tagging", "extractive_qa"):
        validate(dataclasses.replace(config_for(task), model=ModelConfig(architecture="encoder", token_types=number)))


def test_a_transformer_and_a_recurrent_network_share_only_what_both_read():
    assert reads("decoder", "num_heads") and not reads("recurrent", "num_heads")
    assert reads("recurrent", "cell") and not reads("encoder", "cell")
