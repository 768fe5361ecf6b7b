"""Tiny models, random requests, and what an engine answers to them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import ModelConfig
from purelm.inference.automata import TokenAutomaton
from purelm.inference.engine.engine import Engine
from purelm.inference.engine.request import Finished, Request, Tokens
from purelm.inference.sampling import Sampler
from purelm.models import parameter_shapes

VOCABULARY = 13
DECODER = ModelConfig(vocabulary_size=16, context_length=24, num_layers=2, width=16, num_heads=4, num_kv_heads=2,
                      positions="rope", tied_embeddings=False)
RECURRENT = ModelConfig(vocabulary_size=16, context_length=24, num_layers=2, width=16, architecture="recurrent")
CONFIGS = {"decoder": DECODER, "recurrent": RECURRENT}

SAMPLERS = [
    Sampler(temperature=0.0),
    Sampler(temperature=1.3),
    Sampler(temperature=0.8, top_k=5, top_p=0.9),
    Sampler(min_p=0.05, repetition_penalty=1.3),
    Sampler(frequency_penalty=0.7, presence_penalty=0.3, logit_bias=((3, 1.5), (4, -2.0))),
    Sampler(banned=(1, 2), forced=((0, 5), (3, 4)), min_new_tokens=4),
    Sampler(temperature=0.0, repetition_penalty=1.5, frequency_penalty=0.5),
]


@functools.cache
def make_params(config: ModelConfig):
    """Every parameter noisy, so that the probabilities are far apart; without the compilation of initial values."""
    rng = np.random.default_rng(1)

    def leaf(path, shape):
        return jnp.asarray(0.3 * rng.normal(size=shape.shape) + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


def make_engine(config: ModelConfig = DECODER, params=None, **options) -> Engine:
    """Always of the same shapes, so that all tests share the programs."""
    options = {"slots": 4, "page_size": 4, "num_pages": 24, "chunk": 8, "max_waiting": 100, **options}
    return Engine(config, make_params(config) if params is None else params, vocabulary_size=VOCABULARY, **options)


def stop_string() -> TokenAutomaton:
    """Found after token 6 and then 7 or 8."""
    classes = np.zeros(VOCABULARY, np.int32)
    classes[6], classes[7:9] = 1, 2
    return TokenAutomaton(classes, np.array([[0, 1, 0], [0, 1, 2], [2, 2, 2]], np.int32), np.arange(3) == 2)


def constraint() -> TokenAutomaton:
    """Even ids and odd ids in turn, from two on it may end, at nine it must."""
    classes = np.arange(VOCABULARY, dtype=np.int32) % 2
    steps = [[state + 1, -1] if state % 2 == 0 else [-1, state + 1] for state in range(9)]
    return TokenAutomaton(classes, np.array([*steps, [-1, -1]], np.int32), np.arange(10) >= 2)


def random_request(rng: np.random.Generator, **fields) -> Request:
    """One of many kinds. Prompts often begin alike."""
    known = np.random.default_rng(int(rng.integers(2))).integers(0, VOCABULARY, 40)
    prompt = [*known[:rng.integers(0, 30)].tolist(), *rng.integers(0, VOCABULARY, rng.integers(1, 14)).tolist()]
    kind = int(rng.integers(6))
    return Request(**{
        "prompt_ids": tuple(prompt), "max_new_tokens": int(rng.integers(1, 36)),
        "sampler": SAMPLERS[rng.integers(len(SAMPLERS))], "seed": int(rng.integers(-5, 2 ** 40)),
        "index": int(rng.integers(4)), "stop_id": {0: 0, 3: (0, 5), 4: (7, 0)}.get(kind),
        "stop": stop_string() if kind in (1, 3) else None, "constraint": constraint() if kind in (2, 4) else None,
        "alternatives": [None, None, 0, 3, 20][rng.integers(5)], **fields})


class Answer:
    """Collects the events of one request, and checks their order."""

    def __init__(self) -> None:
        self.tokens = []
        self.finished = None

    def __call__(self, event) -> None:
        assert self.finished is None, "nothing comes after Finished"
        if isinstance(event, Tokens):
            assert event.tokens
            self.tokens += event.tokens
        else:
            assert isinstance(event, Finished)
            self.finished = event

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def reason(self) -> str:
        return self.finished.reason


def finish(engine: Engine) -> None:
    """Runs until nothing is to be done."""
    while engine.step():
        pass


def alone(config: ModelConfig, request: Request, **options) -> Answer:
    """What a request gets in a fresh engine."""
    engine, answer = make_engine(config, **options), Answer()
    engine.submit(request, answer)
    finish(engine)
    return answer
