"""Every config file, with each of its recipes: instantiates, says what it is, and trains a step (made small)."""

import ast
import dataclasses
import importlib.util
import pathlib

import numpy as np
import pytest

from purelm.config import Config, finalize, from_flag, validate
from purelm.training.parallel import make_engine

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").rglob("*.py"))
RECIPES = {"shakespeare_char": ["cpu", "gpu", "fast"], "gpt2": ["124m", "355m", "774m", "1.5b"],
           "llama": ["tiny", "160m", "1b", "8b"]}
CASES = [(path, argument) for path in FILES for argument in RECIPES.get(path.stem, [None])]


def load(path: pathlib.Path, argument: str | None) -> Config:
    spec = importlib.util.spec_from_file_location("a_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return validate(from_flag(module.get_config(argument) if argument else module.get_config()))


def small(config: Config) -> Config:
    """The same switches at a size that trains a step in a moment."""
    model = dataclasses.replace(
        config.model, vocabulary_size=None, num_layers=1, num_heads=2, width=16, head_size=None, context_length=8,
        num_kv_heads=config.model.num_kv_heads and 1, feed_forward_width=32, compute_dtype="float32")
    training = dataclasses.replace(config.training, batch_size=4, accumulation_steps=2, num_steps=3, num_epochs=None,
                                   num_tokens=None)
    optimizer = dataclasses.replace(config.optimizer, warmup="1")
    small = dataclasses.replace(config, model=model, training=training, optimizer=optimizer,
                                parallel=dataclasses.replace(config.parallel, fsdp=1))
    return finalize(small, vocabulary_size=11, tokens_per_epoch=1000)


@pytest.mark.parametrize("path, argument", CASES, ids=[f"{path.stem}:{argument}" for path, argument in CASES])
def test_a_config_trains_a_step(path, argument):
    config = load(path, argument)
    finalize(config, vocabulary_size=11, tokens_per_epoch=10**9)
    engine = make_engine(small(config))
    state = engine.init(0)
    ones = np.ones((4, 8), np.int32)
    batch = {"tokens": ones, "targets": 2 * ones, "weights": ones.astype(np.float32), "segments": ones,
             "positions": np.broadcast_to(np.arange(8, dtype=np.int32), (4, 8))}
    before = engine.gather(state).params
    state, _ = engine.train_step(state, batch)
    state, sums = engine.train_step(state, batch)  # The first step of a warm-up may have a rate of zero.
    after = engine.gather(state).params
    assert float(sums["finite"]) == 1.0 and float(sums["weight"]) == 32.0
    assert any((before[name]["embedding"] != after[name]["embedding"]).any() for name in before if name == "embedding")


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_config_opens_with_what_it_is_and_its_command(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert f"--config={path.relative_to(ROOT)}" in text and "Command:" in text and "easured" in text
