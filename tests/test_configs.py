"""Every config file, with each of its recipes: instantiates, says what it is, and trains a step (made small)."""

import ast
import dataclasses
import importlib.util
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import Config, finalize, from_flag, validate
from purelm.config.shapes import TRANSFORMERS
from purelm.tasks import task_of
from purelm.training.launch import start_lines
from purelm.training.parallel import make_engine

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.parent.name != "ablations")
SIZES = {"gpt2": ["124m", "355m", "774m", "1.5b"], "llama": ["tiny", "160m", "1b", "8b"]}
NUM_CLASSES = 3


def name(path: pathlib.Path) -> str:
    """Such as lm/gpt2."""
    return str(path.relative_to(ROOT / "configs").with_suffix(""))


def recipes(path: pathlib.Path) -> list[str | None]:
    """The names that a config file's `choose({...}, recipe)` offers, or None alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "choose"
        if called and isinstance(node.args[0], ast.Dict):
            return [key.value for key in node.args[0].keys]
    return [None]


CASES = [(path, argument) for path in FILES for argument in SIZES.get(path.stem) or recipes(path)]


def load(path: pathlib.Path, argument: str | None) -> Config:
    spec = importlib.util.spec_from_file_location("a_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return validate(from_flag(module.get_config(argument) if argument else module.get_config()))


def small(config: Config) -> Config:
    """The same switches at a size that trains a step in a moment."""
    changes = {"width": 16, "context_length": 16}
    if config.model.architecture != "word_vectors":
        changes["num_layers"] = 1
    if config.model.architecture in TRANSFORMERS:
        changes |= {"num_heads": 2, "head_size": None, "num_kv_heads": config.model.num_kv_heads and 1,
                    "feed_forward_width": 32, "encoder_layers": config.model.encoder_layers and 1}
    model = dataclasses.replace(config.model, vocabulary_size=None, compute_dtype="float32", **changes,
                                hidden_size=config.model.hidden_size and 16)
    training = dataclasses.replace(config.training, batch_size=4, accumulation_steps=2, num_steps=3, num_epochs=None,
                                   num_tokens=None)
    optimizer = dataclasses.replace(config.optimizer, warmup="1")
    small = dataclasses.replace(config, model=model, training=training, optimizer=optimizer,
                                parallel=dataclasses.replace(config.parallel, fsdp=1))
    return finalize(small, vocabulary_size=11, tokens_per_epoch=1000, num_classes=NUM_CLASSES)


def a_batch(config: Config) -> dict[str, np.ndarray]:
    """Arrays of the task's shapes, whose integers are good as tokens, classes and places."""
    generator, batch = np.random.default_rng(0), {}
    for name, shape in task_of(config).batch_shapes(config, 4).items():
        if jnp.issubdtype(shape.dtype, jnp.floating) or name.endswith("segments"):
            batch[name] = np.ones(shape.shape, shape.dtype)
        elif name == "positions":
            batch[name] = np.broadcast_to(np.arange(shape.shape[1], dtype=np.int32), shape.shape)
        else:
            few = name in ("labels", "prefix") or "type" in name
            batch[name] = generator.integers(0, 2 if few else 11, shape.shape).astype(shape.dtype)
    return batch


@pytest.mark.parametrize("path, argument", CASES, ids=[f"{name(path)}:{argument}" for path, argument in CASES])
def test_a_config_trains_a_step(path, argument):
    config = load(path, argument)
    finalize(config, vocabulary_size=11, tokens_per_epoch=10**9)
    config = small(config)
    engine = make_engine(config)
    assert start_lines(config, types.SimpleNamespace(describe=lambda: "data"), engine, 0, [])
    state = engine.init(0)
    before = engine.gather(state).params
    state, _ = engine.train_step(state, a_batch(config))
    state, sums = engine.train_step(state, a_batch(config))  # The first step of a warm-up may have a rate of zero.
    after = engine.gather(state).params
    assert float(sums["finite"]) == 1.0 and float(sums["weight"]) > 0
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)))


@pytest.mark.parametrize("path", FILES, ids=[name(path) for path in FILES])
def test_a_config_opens_with_what_it_is_and_its_command(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert f"--config={path.relative_to(ROOT)}" in text and "Command:" in text and "easured" in text
