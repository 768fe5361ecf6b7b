"""What a config may say: types and bounds field by field, then the rules between fields, then what data resolves."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from typing import Any

from purelm.config import durations
from purelm.config.applies import check_applies
from purelm.config.schema import Config, Duration, ModelConfig, OptimizerConfig, TrainingConfig
from purelm.config.shapes import (
    TRANSFORMERS,
    check_model,
    divisors,
    feed_forward_width,
    head_size,
    num_kv_heads,
)
from purelm.errors import UserError, did_you_mean

_DURATIONS = {"optimizer": ("warmup", "decay"), "training": ("log_every", "evaluate_every", "checkpoint_every")}
hints_of = functools.cache(typing.get_type_hints)  # Of a dataclass, by field; a table checks hundreds of configs.


def validate(config: Config, *, recorded: bool = False) -> Config:
    """The same config, once everything that can be checked without data holds.

    Of a `recorded` one, a run's own, fields that nothing reads may have any value: that of a default of its time.

    Raises:
      UserError: one line that names the first field that is wrong, and what would be right.
    """
    check_fields(config)
    if not recorded:
        check_applies(config)
    check_model(config.model)
    _check_training(config.training)
    _check_parallel(config)
    _check_optimizer(config.optimizer)
    for section, names in _DURATIONS.items():
        for name in names:
            if (value := getattr(getattr(config, section), name)) is not None:
                durations.parse_duration(value, f"config.{section}.{name}")
    for name in ("decay_rules", "learning_rate_rules"):
        _check_rules(getattr(config.optimizer, name), f"config.optimizer.{name}")
    if config.data.validation_fraction + config.data.test_fraction >= 1:
        raise UserError("config.data: validation_fraction + test_fraction must leave something to train on (below 1)")
    return config


def finalize(config: Config, *, vocabulary_size: int, tokens_per_epoch: int,
             num_classes: int | None = None) -> Config:
    """The config with everything derived filled in: sizes of the model, and every duration in steps.

    `vocabulary_size` is the data's (the tokenizer's, and the task's special tokens); `tokens_per_epoch` is what one
    pass over the training split trains on; `num_classes` are the data's, where it has classes.
    Finalizing a finalized config changes nothing.

    Raises:
      UserError: the model's vocabulary is smaller than the tokenizer's, or a duration that must be positive is zero.
    """
    validate(config)
    model, training = config.model, config.training
    if model.vocabulary_size is not None and model.vocabulary_size < vocabulary_size:
        raise UserError(f"config.model.vocabulary_size={model.vocabulary_size} is smaller than the tokenizer's "
                        f"{vocabulary_size}; leave it at none, or give at least {vocabulary_size}")
    if num_classes is not None and model.num_classes is not None and model.num_classes < num_classes:
        raise UserError(f"config.model.num_classes={model.num_classes} is smaller than the data's {num_classes}; leave "
                        f"it at none, or give at least {num_classes}")
    model = dataclasses.replace(resolve_model(model, vocabulary_size), num_classes=model.num_classes or num_classes)
    tokens = {"tokens_per_step": training.batch_size * model.context_length, "tokens_per_epoch": tokens_per_epoch}
    num_steps = _num_steps(training, **tokens)

    config = dataclasses.replace(config, optimizer=resolve_optimizer(config.optimizer))

    def steps(section: str, name: str) -> str | None:
        where = f"config.{section}.{name}"
        if getattr(getattr(config, section), name) is None:
            return None
        amount, unit = durations.parse_duration(getattr(getattr(config, section), name), where)
        return str(durations.to_steps(amount, unit, num_steps=num_steps, **tokens))

    resolved = {section: {name: steps(section, name) for name in names} for section, names in _DURATIONS.items()}
    for name, value in resolved["training"].items():
        if int(value) < 1:
            raise UserError(f"config.training.{name}: must be at least one step")
    return dataclasses.replace(
        config, model=model, optimizer=dataclasses.replace(config.optimizer, **resolved["optimizer"]),
        training=dataclasses.replace(training, num_steps=num_steps, num_epochs=None, num_tokens=None,
                                     **resolved["training"]))


def resolve_model(model: ModelConfig, vocabulary_size: int) -> ModelConfig:
    """The model config with each size that is derived when left at none filled in."""
    if model.architecture not in TRANSFORMERS:
        return dataclasses.replace(model, vocabulary_size=model.vocabulary_size or vocabulary_size)
    return dataclasses.replace(
        model,
        vocabulary_size=model.vocabulary_size or vocabulary_size,
        num_kv_heads=num_kv_heads(model),
        head_size=head_size(model),
        feed_forward_width=feed_forward_width(model))


def resolve_optimizer(optimizer: OptimizerConfig) -> OptimizerConfig:
    """The optimizer config with what is derived from its name and schedule filled in."""
    momentum = {"sgd": 0.0, "muon": 0.95}.get(optimizer.name)
    return dataclasses.replace(
        optimizer,
        momentum=momentum if optimizer.momentum is None else optimizer.momentum,
        decay="20%" if optimizer.decay is None and optimizer.schedule == "wsd" else optimizer.decay)


def _num_steps(training: TrainingConfig, *, tokens_per_step: int, tokens_per_epoch: int) -> int:
    if training.num_steps is not None:
        return training.num_steps
    amount, unit = ((training.num_epochs, "epochs") if training.num_epochs is not None
                    else (training.num_tokens, "tokens"))
    return durations.to_steps(amount, unit, tokens_per_step=tokens_per_step, tokens_per_epoch=tokens_per_epoch,
                              num_steps=None)


def check_fields(section: Any, where: str = "config") -> None:
    """Raises UserError for the first field of another type than declared, or out of its bounds."""
    hints = hints_of(type(section))
    for field in dataclasses.fields(section):
        value, path = getattr(section, field.name), f"{where}.{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            check_fields(value, path)
        else:
            _check_type(value, hints[field.name], path)
            _check_bounds(value, field.metadata, path)


def _check_type(value: Any, hint: Any, path: str) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return
        hint, = (argument for argument in arguments if argument is not type(None))
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{path}='{value}' is not known{did_you_mean(str(value), arguments)}")
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise UserError(f"{path}: wants a tuple such as \"('a', 'b')\", not {value!r}")
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(arguments) != len(value):
            raise UserError(f"{path}: wants {len(arguments)} values, not {value!r}")
        for position, (item, kind) in enumerate(zip(value, arguments)):
            _check_type(item, kind, f"{path}[{position}]")
    elif not isinstance(value, (int, float) if hint is float else hint) or isinstance(value, bool) != (hint is bool):
        raise UserError(f"{path}={value!r}: wants {_NAMES.get(hint, hint.__name__)}, not {type(value).__name__}")


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Duration: "text"}


def _check_bounds(value: Any, bounds: Any, path: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise UserError(f"{path}={value}: must be a finite number")
    if bounds["minimum"] is not None and value < bounds["minimum"]:
        raise UserError(f"{path}={value}: must be at least {bounds['minimum']}")
    if bounds["above"] is not None and value <= bounds["above"]:
        raise UserError(f"{path}={value}: must be above {bounds['above']}")
    if bounds["maximum"] is not None and value > bounds["maximum"]:
        raise UserError(f"{path}={value}: must be at most {bounds['maximum']}")


def _check_training(training: TrainingConfig) -> None:
    given = [name for name in ("num_steps", "num_epochs", "num_tokens") if getattr(training, name) is not None]
    if len(given) != 1:
        said = f"both {' and '.join(given)} are set" if given else "no length is set"
        remedy = f"; set the others to none, such as --config.training.{given[0]}=none" if given else ""
        raise UserError(f"config.training: {said}; give exactly one of num_steps, num_epochs, num_tokens{remedy}")
    if training.batch_size % training.accumulation_steps:
        raise UserError(f"config.training.accumulation_steps={training.accumulation_steps} does not divide "
                        f"config.training.batch_size={training.batch_size}; choose one of "
                        f"{divisors(training.batch_size)}")


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    """Refuses what would be ignored."""
    only = {"momentum": optimizer.name in ("sgd", "muon"), "adam_learning_rate": optimizer.name == "muon",
            "decay": optimizer.schedule == "wsd"}
    for name, has_effect in only.items():
        if getattr(optimizer, name) is not None and not has_effect:
            what = f"schedule={optimizer.schedule}" if name == "decay" else f"name={optimizer.name}"
            right = {"momentum": "name=sgd or muon", "adam_learning_rate": "name=muon", "decay": "schedule=wsd"}[name]
            raise UserError(f"config.optimizer.{name}={getattr(optimizer, name)} has no effect with {what}; it is of "
                            f"{right}: set it to none (--config.optimizer.{name}=none)")


def _check_parallel(config: Config) -> None:
    parallel = config.parallel
    if parallel.data == 0:
        raise UserError("config.parallel.data=0: give a number of devices, or -1 for all that the other axes leave")
    if parallel.engine == "pmap" and (parallel.fsdp > 1 or parallel.tensor > 1):
        raise UserError("config.parallel.engine='pmap' keeps parameters whole on each device, so fsdp and tensor must "
                        "be 1; use engine 'mesh' to split them")


def _check_rules(rules: tuple[tuple[str, float], ...], path: str) -> None:
    for pattern, factor in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{path}: '{pattern}' is not a regular expression ({error})") from error
        if not factor >= 0:
            raise UserError(f"{path}: the factor of '{pattern}' is {factor}; it must be at least 0")
