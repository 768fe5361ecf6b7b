"""Several tasks as text to text in one run (T5: Raffel et al. 2020, section 3.5.2): config.data.mixture."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from purelm.config import Config, DataConfig
from purelm.data.example_reading import Part, format_of
from purelm.data.example_recipe import Recipe
from purelm.data.formats import AS_PAIR
from purelm.data.sources import make_source
from purelm.errors import UserError, did_you_mean

# Fields that may follow a format's name ("pairs:en:de"), by their number; others are those of config.data.
_NAMED = {
    "pairs": [("source_field", "target_field")],
    "labels": [("text_field", "label_field"), ("text_field", "text_pair_field", "label_field")],
    "squad": [("context_field", "question_field", "answers_field")],
    "code": [],
}


def parts_of(config: Config, recipe: Recipe, *, need_train: bool) -> list[Part]:
    """The sources of `config`: one, or a mixture's components.

    Raises UserError for a source that cannot serve, or a component whose format, fields or weight are wrong.
    """
    data = config.data
    if not data.mixture:
        _check_place(data, config.task.name)
        return [Part(None, make_source(data, need_train=need_train), data, format_of(config, recipe), recipe.format)]
    if recipe.format != "pairs":
        raise UserError(f"config.data.mixture: the task {config.task.name} reads no text to text; a mixture is of "
                        "config.task.name=sequence_to_sequence")
    parts = []
    for number, (prompt, spec, path, weight) in enumerate(data.mixture):
        where = f"config.data.mixture[{number}]"
        if not 0 < weight < float("inf"):
            raise UserError(f"{where}: the weight is {weight}; it must be above 0")
        format_name, fields = _fields(spec, where)
        own = dataclasses.replace(
            data, path=os.path.join(data.path, path) if data.path else path, source="auto", tfds_name=None,
            prompt=prompt, format=format_name, mixture=(), **fields)
        parts.append(Part(f"{number} {path}", make_source(own, need_train=need_train), own, format_name, "pairs"))
    return parts


def _fields(spec: str, where: str) -> tuple[str, dict[str, str]]:
    """"pairs:en:de" -> ("pairs", {"source_field": "en", "target_field": "de"})."""
    format_name, *names = spec.split(":")
    if format_name not in AS_PAIR:
        raise UserError(f"{where}: no format '{format_name}' that can be text to text"
                        f"{did_you_mean(format_name, AS_PAIR)}")
    if not names:
        return format_name, {}
    for knobs in _NAMED[format_name]:
        if len(knobs) == len(names):
            return format_name, dict(zip(knobs, names, strict=True))
    wanted = " or ".join(":".join((format_name, *knobs)) for knobs in [(), *_NAMED[format_name]])
    raise UserError(f"{where}: '{spec}' names {len(names)} fields; give {wanted}")


def probabilities(data: DataConfig, sizes: Sequence[int]) -> np.ndarray:
    """[C] how often a component is drawn: by its weight, or by its size ^ (1 / mixture_temperature)."""
    if data.mixture_temperature is not None:
        rates = np.asarray(sizes, np.float64) ** (1 / data.mixture_temperature)
    else:
        rates = np.array([weight for *_, weight in data.mixture], np.float64) * (np.asarray(sizes) > 0)
    return rates / rates.sum()


def draw_order(generator: np.random.Generator, component_of: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """[N] numbers of records for an epoch, as many as there are: of each component its share.

    A component's records come once each before any of them comes again; which ones, where its share is less than all,
    is drawn.
    """
    counts = generator.multinomial(len(component_of), rates)
    drawn = []
    for component, count in enumerate(counts):
        own = np.flatnonzero(component_of == component)
        rounds = -(-count // max(len(own), 1))
        drawn.append(np.concatenate([generator.permutation(own) for _ in range(rounds)] or [own[:0]])[:count])
    return generator.permutation(np.concatenate(drawn))


def _check_place(data: DataConfig, task: str) -> None:
    """Examples are no part of Python's own library, which is where data comes from when nothing is said."""
    if data.source == "python_stdlib" or (data.source == "auto" and not data.path and not data.tfds_name):
        raise UserError(f"config.data.path is missing: the task {task} is learned from a folder with train, validation "
                        "and test files, such as --config.data.path=FOLDER (or give config.data.tfds_name)")
