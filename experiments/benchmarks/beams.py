"""Beam search over transformers' generate with as many beams, on the same shape and prompt."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import huggingface_gpt2
from benchmarks.sampling import PROMPT, random_params, rates

BEAMS = 4


def measure() -> list[dict[str, object]]:
    """One row a shape: tokens of the best hypothesis a second, ours and transformers', and the ratio."""
    from purelm.config import presets

    small = presets.nanogpt_cpu(vocabulary_size=65, context_length=256)
    small_peer = {"n_layer": 4, "n_embd": 128, "n_head": 4, "n_positions": 256, "vocab_size": 65}
    return [_row("4 layers x 128", small, small_peer, new_tokens=200),
            _row("GPT-2 124M", presets.gpt2("124m"), {}, new_tokens=64)]


def _row(name: str, config: Any, peer_shape: dict[str, int], *, new_tokens: int) -> dict[str, object]:
    """No hypothesis ends before `new_tokens`, on either side."""
    import torch

    from purelm.inference.beam_search import search_prompts

    peer, params = huggingface_gpt2(**peer_shape), random_params(config)
    prompt = torch.zeros((1, PROMPT), dtype=torch.long)

    def ours() -> None:
        search_prompts(config, params, prompt.numpy(), None, beam_size=BEAMS, max_new_tokens=new_tokens,
                       length_penalty=0.0, stop_id=None, vocabulary_size=config.vocabulary_size)

    def theirs() -> None:
        with torch.no_grad():
            peer.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new_tokens,
                          min_new_tokens=new_tokens, num_beams=BEAMS, do_sample=False, pad_token_id=0)

    mine, peers, _ = rates({"ours": ours, "theirs": theirs}, new_tokens)
    return {"shape": name, "beams": BEAMS, "purelm, tokens/s": f"{mine:,.1f}",
            "transformers generate, tokens/s": f"{peers:,.1f}", "ratio": f"{mine / peers:.1f}"}
