"""Tokens a second over transformers' generate on the same shape, and as a part of the read bandwidth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers import huggingface_gpt2

ROUNDS = 5
# Seconds: PyTorch's threads go on spinning for a while after a call, on the cores of whoever comes next.
PAUSE = 0.3
PROMPT = 8
# Bytes that stay in a processor's cache from step to step, so that the memory's speed is no limit.
CACHED = 64 * 2**20


def measure() -> list[dict[str, object]]:
    """One row a shape and batch: ours, transformers', the ratio, and the bytes read a second over what the memory
    gives."""
    from purelm.config import presets

    small = presets.nanogpt_cpu(vocabulary_size=65, context_length=256)
    small_peer = {"n_layer": 4, "n_embd": 128, "n_head": 4, "n_positions": 256, "vocab_size": 65}
    return [_row("4 layers x 128", small, small_peer, batch_size=1, new_tokens=200),
            _row("GPT-2 124M", presets.gpt2("124m"), {}, batch_size=1, new_tokens=64),
            _row("GPT-2 124M", presets.gpt2("124m"), {}, batch_size=8, new_tokens=64)]


def _row(name: str, config: Any, peer_shape: dict[str, int], *, batch_size: int, new_tokens: int) -> dict[str, object]:
    import jax
    import torch

    from purelm.inference import Sampler, generate

    peer, params = huggingface_gpt2(**peer_shape), random_params(config)
    prompt = torch.zeros((batch_size, PROMPT), dtype=torch.long)
    step_bytes = bytes_a_step(config, params, batch_size, PROMPT + new_tokens)

    def ours() -> None:
        generate(config, params, prompt.numpy(), max_new_tokens=new_tokens, sampler=Sampler(temperature=0.0),
                 key=jax.random.key(0))

    def theirs() -> None:
        with torch.no_grad():
            peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new_tokens,
                          min_new_tokens=new_tokens, do_sample=False, pad_token_id=0)

    mine, peers, memory = rates({"ours": ours, "theirs": theirs}, new_tokens)
    fits = step_bytes < CACHED
    return {"shape": name, "batch": batch_size, "purelm, tokens/s": f"{batch_size * mine:,.0f}",
            "transformers generate, tokens/s": f"{batch_size * peers:,.0f}", "ratio": f"{mine / peers:.1f}",
            "read a step, MB": f"{step_bytes / 1e6:,.0f}",
            "read, GB/s": f"{mine * step_bytes / 1e9:.1f}",
            "of the measured read bandwidth": "- (fits the processor's cache)" if fits
            else f"{mine * step_bytes / memory:.0%} of {memory / 1e9:.1f} GB/s"}


def random_params(config: Any) -> Any:
    """A Transformer's initial parameters, in the form that decoding reads."""
    import jax
    import jax.numpy as jnp

    from purelm.models import Transformer, unstack_layers

    tokens_BT = jnp.zeros((1, PROMPT), jnp.int32)
    make = jax.jit(lambda key: unstack_layers(Transformer(config).init(key, tokens_BT)["params"]))
    return jax.block_until_ready(make(jax.random.key(0)))


def bytes_a_step(config: Any, params: Any, batch_size: int, length: int) -> int:
    """What a step cannot but read: the parameters, tables of positions aside, and half of a cache of `length`, which
    is what is filled of it on average."""
    import jax

    from purelm.models import cache_bytes

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    size -= params["positions"]["embedding"].nbytes if "positions" in params else 0
    return size + cache_bytes(config, batch_size, length) // 2


def rates(calls: dict[str, Callable[[], None]], units: int) -> list[float]:
    """`units` a second of each call and then the bytes a second that the memory gives; medians of alternate rounds."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {label: [] for label in [*calls, "memory"]}
    for _ in range(ROUNDS):
        for label, call in calls.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            call()
            found[label].append(units / (time.perf_counter() - started))
        found["memory"].append(_read_bandwidth())
    return [statistics.median(values) for values in found.values()]


def _read_bandwidth() -> float:
    """Bytes a second at which a 400 MB matrix is read, on the cores of this process: by a sum, or by a product with a
    vector, whichever is faster."""
    import torch

    matrix, vector = torch.ones((10_000, 10_000)), torch.ones(10_000)
    best = 0.0
    for read in (lambda: matrix @ vector, lambda: matrix.sum()):
        for _ in range(5):
            started = time.perf_counter()
            read()
            best = max(best, matrix.numel() * 4 / (time.perf_counter() - started))
    return best
