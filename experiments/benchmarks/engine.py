"""Tokens a second of many requests through the engine, over the same requests one after another by `generate`."""

from __future__ import annotations

import time

import numpy as np

REQUESTS = 64


def measure(requests: int = REQUESTS) -> list[dict[str, object]]:
    """One row a shape: both ways' tokens a second, and the ratio. Prompts have 8 to 256 tokens, answers 16 to 128."""
    from purelm.config import presets

    shapes = {"4 layers x 128": (presets.nanogpt_cpu(vocabulary_size=65, context_length=512), 32),
              "GPT-2 124M": (presets.gpt2("124m"), 16)}
    return [_row(name, config, slots, requests) for name, (config, slots) in shapes.items()]


def _row(name: str, config, slots: int, requests: int) -> dict[str, object]:
    import jax
    import jax.numpy as jnp

    from purelm.inference import Sampler, generate
    from purelm.inference.engine import Engine, Request
    from purelm.models import Transformer, unstack_layers

    params = jax.jit(lambda key: unstack_layers(Transformer(config).init(key, jnp.zeros((1, 8), jnp.int32))["params"]))(
        jax.random.key(0))
    rng = np.random.default_rng(0)
    asked = [Request(tuple(rng.integers(0, config.vocabulary_size, rng.integers(8, 257)).tolist()),
                     int(rng.integers(16, 129)), Sampler(top_k=50), seed=number) for number in range(requests)]
    engine = Engine(config, params, vocabulary_size=config.vocabulary_size, slots=slots, page_size=32,
                    num_pages=1 + slots * 12, chunk=128, max_waiting=requests)
    engine.warm_up()

    def one_after_another(requests: list) -> None:
        for request in requests:
            generate(config, params, np.array([request.prompt_ids]), max_new_tokens=request.max_new_tokens,
                     sampler=request.sampler, key=jax.random.key(request.seed))

    def together() -> None:
        for request in asked:
            engine.submit(request, lambda event: None)
        while engine.step():
            pass

    one_after_another(asked)  # Compiles; the engine has done so already.
    seconds = {}
    for label, call in (("alone", lambda: one_after_another(asked)), ("together", together)):
        started = time.perf_counter()
        call()
        seconds[label] = time.perf_counter() - started
    tokens = sum(request.max_new_tokens for request in asked)
    return {"shape": name, "requests": requests, "slots": slots,
            "one after another, tokens/s": f"{tokens / seconds['alone']:,.0f}",
            "engine, tokens/s": f"{tokens / seconds['together']:,.0f}",
            "ratio": f"{seconds['alone'] / seconds['together']:.1f}"}
