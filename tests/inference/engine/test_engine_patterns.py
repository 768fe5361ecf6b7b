"""A model with a window in some layers alone, served: what the engine writes is what `generate` does."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import storm

from purelm.errors import UserError
from purelm.inference import generate
from purelm.inference.engine.request import Request

CONFIG = dataclasses.replace(
    storm.DECODER, attention_window=5, attention_pattern=("window", "full"), rope_base=500.0, rope_local_base=50.0)


def test_the_engine_writes_what_generate_does():
    # Reddens where pages are skipped that a full layer still reads: prompts and answers are longer than the window.
    rng, engine, answers = np.random.default_rng(7), storm.make_engine(CONFIG), []
    for length in (9, 20):
        request = Request(tuple(rng.integers(0, storm.VOCABULARY, length).tolist()), 12, storm.SAMPLERS[0])
        answers.append((request, storm.Answer()))
        engine.submit(*answers[-1])
    storm.finish(engine)
    for request, answer in answers:
        expected = generate(CONFIG, storm.make_params(CONFIG), np.array([request.prompt_ids]), max_new_tokens=12,
                            sampler=request.sampler, key=jax.random.key(0),
                            vocabulary_size=storm.VOCABULARY)
        assert answer.ids == expected.ids_BT[0].tolist()


def test_a_rolling_cache_is_refused():
    with pytest.raises(UserError, match="a rolling cache forgets, but config.model.attention_pattern has full layers"):
        generate(CONFIG, storm.make_params(CONFIG), np.array([[1, 2, 3]]), max_new_tokens=12,
                 sampler=storm.SAMPLERS[0], key=jax.random.key(0), vocabulary_size=storm.VOCABULARY,
                 cache="rolling")
