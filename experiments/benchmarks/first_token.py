"""Time to the first token through HTTP, above what the prefill itself takes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

SERVE = pathlib.Path(__file__).resolve().parents[1] / "serve.py"
_WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he")


class Serving(NamedTuple):
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]


def measure(repeats: int = 50) -> list[dict[str, object]]:
    """A row a length of prompt: medians of `repeats`, the two taken in turn; no prompt is asked twice."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = random_run(pathlib.Path(folder))
        with serving(workdir) as server:
            return [_row(workdir, server.url, length, repeats) for length in (16, 120, 240)]


def random_run(folder: pathlib.Path) -> str:
    """A run of nanoGPT's CPU shape with context 256, trained for one step on words drawn at random."""
    from purelm.config import Config, DataConfig, TrainingConfig, presets
    from purelm.training.launch import launch

    generator = random.Random(0)
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join(generator.choices(_WORDS, k=12)) for _ in range(2_000)), encoding="utf-8")
    config = Config(
        model=presets.nanogpt_cpu(context_length=256),
        data=DataConfig(path=str(text), tokenizer="bytes", end_of_text=True, validation_fraction=0.1,
                        test_fraction=0.0, cache_dir=str(folder / "cache")),
        training=TrainingConfig(num_steps=1, batch_size=4))
    launch(config, str(folder / "run"), quiet=True)
    return str(folder / "run")


@contextlib.contextmanager
def serving(workdir: str, *arguments: str) -> Iterator[Serving]:
    """serve.py on a free port, stopped at the end."""
    process = subprocess.Popen([sys.executable, str(SERVE), f"--workdir={workdir}", "--port=0", "--name=model",
                                "--drain_seconds=1", *arguments], text=True, stdout=subprocess.PIPE, env=os.environ)
    try:
        url = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        if url is None:
            raise RuntimeError("the server did not start; its message is above")
        yield Serving(url[0], process)
    finally:
        process.terminate()
        process.wait()


def _row(workdir: str, url: str, length: int, repeats: int) -> dict[str, object]:
    import httpx

    prefill, generator = _prefill(workdir, length), random.Random(length)
    bare, over_http = [], []
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(repeats + 5):
            prompt = [generator.randrange(256) for _ in range(length)]
            taken = prefill(prompt), _first_token(client, prompt)
            if number >= 5:  # The first ones compile, connect and fill caches.
                bare.append(taken[0])
                over_http.append(taken[1])
    medians = [1e3 * statistics.median(times) for times in (bare, over_http)]
    return {"prompt, tokens": length, "bare prefill, ms": f"{medians[0]:.1f}",
            "first token over HTTP, ms": f"{medians[1]:.1f}", "above, ms": f"{medians[1] - medians[0]:.1f}"}


def _first_token(client: Any, prompt: list[int]) -> float:
    """Seconds from asking to the first token's event."""
    body = {"prompt": prompt, "max_tokens": 2, "stream": True, "temperature": 0, "logprobs": 0,
            "logit_bias": {"256": -100}}
    started = time.perf_counter()
    with client.stream("POST", "/v1/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                return time.perf_counter() - started
    raise RuntimeError("the server sent no token")


def _prefill(workdir: str, length: int) -> Any:
    """A function that reads a prompt, draws one token and answers the seconds."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from purelm.models import Transformer, init_cache, unstack_layers
    from purelm.training.load import load_run

    run = load_run(workdir)
    params, model = unstack_layers(jax.device_put(run.params)), Transformer(run.config.model)

    @jax.jit
    def program(params, tokens_BT):
        cache = init_cache(run.config.model, 1, run.config.model.context_length)
        return jnp.argmax(model.apply({"params": params}, tokens_BT, cache=cache).logits_BTV[:, -1], axis=-1)

    def call(prompt: list[int]) -> float:
        started = time.perf_counter()
        program(params, np.array([prompt], np.int32)).block_until_ready()
        return time.perf_counter() - started

    call([0] * length)
    return call
