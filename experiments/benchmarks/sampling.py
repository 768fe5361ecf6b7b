"""Tokens a second, batch 1, over transformers' generate on the same shape, and as a part of the read bandwidth."""

from __future__ import annotations

import statistics
import time

from benchmarks.peers import huggingface_gpt2

ROUNDS = 3


def measure() -> list[dict[str, object]]:
    """One row a shape: ours, transformers', the ratio, and the bytes read a second over what the memory gives."""
    from purelm.config import ModelConfig, presets

    small = presets.nanogpt_cpu(vocabulary_size=65, context_length=256)
    shapes: dict[str, tuple[ModelConfig, dict[str, int], int]] = {
        "4 layers x 128": (small, {"n_layer": 4, "n_embd": 128, "n_head": 4, "n_positions": 256, "vocab_size": 65},
                           200),
        "GPT-2 124M": (presets.gpt2("124m"), {}, 64)}
    return [_row(name, *shape) for name, shape in shapes.items()]


def _row(name: str, config, peer_shape: dict[str, int], new_tokens: int) -> dict[str, object]:
    import jax
    import jax.numpy as jnp
    import torch

    from purelm.inference import Sampler, generate
    from purelm.models import Transformer, unstack_layers

    peer = huggingface_gpt2(**peer_shape)
    prompt = torch.zeros((1, 8), dtype=torch.long)
    tokens_BT = jnp.zeros((1, 8), jnp.int32)
    params = jax.jit(lambda key: unstack_layers(Transformer(config).init(key, tokens_BT)["params"]))(jax.random.key(0))
    params = jax.block_until_ready(params)
    num_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(params)) - 4 * params["positions"]["embedding"].size

    def ours() -> None:
        generate(config, params, prompt.numpy(), max_new_tokens=new_tokens, sampler=Sampler(temperature=0.0),
                 key=jax.random.key(0))

    def theirs() -> None:
        with torch.no_grad():
            peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new_tokens,
                          min_new_tokens=new_tokens, do_sample=False, pad_token_id=0)

    ours(), theirs()
    speeds = {"ours": [], "theirs": [], "memory": []}
    for _ in range(ROUNDS):
        for label, call in (("ours", ours), ("theirs", theirs)):
            started = time.perf_counter()
            call()
            speeds[label].append(new_tokens / (time.perf_counter() - started))
        speeds["memory"].append(_read_bandwidth())
    mine, peers, memory = (statistics.median(speeds[label]) for label in ("ours", "theirs", "memory"))
    fits = num_bytes < 64 * 2**20
    return {"shape": name, "purelm, tokens/s": f"{mine:,.0f}", "transformers generate, tokens/s": f"{peers:,.0f}",
            "ratio": f"{mine / peers:.1f}",
            "parameters read, GB/s": f"{mine * num_bytes / 1e9:.1f}",
            "of the measured read bandwidth": "- (fits the processor's cache)" if fits
            else f"{mine * num_bytes / memory:.0%} of {memory / 1e9:.1f} GB/s"}


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
