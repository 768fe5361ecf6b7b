"""Numbers of a config as arguments of its compiled program, so that runs which differ in them alone share it.

What a run's program is made of is its config without these numbers; a number that is None or 0 switches code, so which
of them are is part of the program too. Whole numbers set shapes, lengths of loops and orders of data, and are not
lifted; nor is model.attention_softcap, a constant of the TPU's attention kernel.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from purelm.config import Config, DecodingConfig
from purelm.config.validate import resolve_optimizer

if TYPE_CHECKING:
    import jax

# Tuples of (regular expression, factor), whose factors are lifted: the factor of rule i has the path FIELD.i.
RULES = ("optimizer.decay_rules", "optimizer.learning_rate_rules")
LIFTED = (
    "seed",
    "model.rope_base", "model.norm_epsilon", "model.attention_scale", "model.logits_softcap",
    "model.initialization_stddev", "model.embedding_dropout", "model.attention_dropout", "model.residual_dropout",
    "model.feed_forward_dropout", "model.classifier_dropout", "model.recurrent_dropout",
    "word_vectors.glove_maximum", "word_vectors.glove_power", "adapter.alpha",
    "optimizer.learning_rate", "optimizer.final_fraction", "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon",
    "optimizer.momentum", "optimizer.weight_decay", "optimizer.clip_norm", "optimizer.adam_learning_rate",
    "optimizer.layer_decay", *RULES,
    "training.label_smoothing", "training.z_loss", "training.ema_decay",
)
# What no program reads: where a run starts and how its answers are written.
_BESIDE = ("init_from", "init_vectors", *(f"decoding.{field.name}" for field in dataclasses.fields(DecodingConfig)
                                          if field.name != "max_new_tokens"))


def program_key(config: Config) -> str:
    """A hash that is equal for two configs where one compiled program, over the same data, can train both.

    Not every config has others that share its program:

    - word vectors by sgd (skip-gram, CBOW) step inside the batch by config.optimizer.learning_rate, part after part
      (tasks.online): the parts follow one another, so that several runs at once have nothing to gain, and the key is
      of the whole config;
    - word vectors draw words, negatives and pairs by the seed that their data was prepared with: seeds have a key each;
    - of a task of the user's own, whose code may branch on any number, only the seed and the optimizer's numbers are
      lifted.

    Args:
      config: validated; finalized or not, but all that are compared alike.
    """
    config = dataclasses.replace(config, optimizer=resolve_optimizer(config.optimizer))
    values = dict(_leaves(config))
    if config.task.name == "word_vectors" and config.word_vectors.method != "glove" and config.optimizer.name == "sgd":
        return _hash(values)
    for path, value in values.items():
        if path in _BESIDE:
            values[path] = "any"
        elif _is_lifted(config, path):
            values[path] = "number" if path == "seed" else None if value is None else "zero" if value == 0 else "number"
    return _hash(values)


def lifted_values(configs: Sequence[Config]) -> dict[str, np.ndarray]:
    """The seeds, int32 [G], and each lifted number that is not the same in all configs, float32 [G].

    The configs have one `program_key`.
    """
    configs = [dataclasses.replace(config, optimizer=resolve_optimizer(config.optimizer)) for config in configs]
    all_leaves = [dict(_leaves(config)) for config in configs]
    found = {"seed": np.array([config.seed for config in configs], np.int32)}
    for path in all_leaves[0]:
        numbers = [leaves[path] for leaves in all_leaves]
        if path != "seed" and _is_lifted(configs[0], path) and len(set(numbers)) > 1:
            found[path] = np.array(numbers, np.float32)
    return found


def with_values(config: Config, values: Mapping[str, float | jax.Array]) -> Config:
    """The config with these numbers in place of its own, by the paths of `lifted_values`; they may be traced."""
    for path, value in values.items():
        config = _replace(config, path.split("."), value)
    return config


def _is_lifted(config: Config, path: str) -> bool:
    if path == "seed" and config.task.name == "word_vectors":
        return False
    if path == "model.rope_base" and config.model.rope_scaling == "yarn":  # Its dimensions follow the base.
        return False
    name = path.rpartition(".")[0] if path.rpartition(".")[2].isdecimal() else path
    return name in LIFTED and ("." not in config.task.name or name == "seed" or name.startswith("optimizer."))


def _leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every field; of RULES the expressions under the field's path and each factor under its own."""
    for field in dataclasses.fields(section):
        path, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{path}.")
        elif path in RULES:
            yield f"{path}.expressions", tuple(pattern for pattern, _ in value)
            yield from ((f"{path}.{number}", factor) for number, (_, factor) in enumerate(value))
        else:
            yield path, value


def _replace(section: Any, names: Sequence[str], value: Any) -> Any:
    if isinstance(section, tuple):
        number = int(names[0])
        return (*section[:number], (section[number][0], value), *section[number + 1:])
    if len(names) > 1:
        value = _replace(getattr(section, names[0]), names[1:], value)
    return dataclasses.replace(section, **{names[0]: value})


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
