"""Which form of attention a call uses, and the refusals of forms that cannot compute what is asked."""

from __future__ import annotations

import jax

from purelm.config import ModelConfig
from purelm.config.numbers import is_zero
from purelm.config.shapes import head_size
from purelm.errors import UserError


def obstacle(config: ModelConfig, implementation: str, *, platform: str, num_tokens: int, training: bool) -> str | None:
    """Why `implementation` cannot compute this config on this platform, or None.

    num_tokens: T of an uncached call. training: whether attention_dropout is in force.
    """
    if implementation == "naive":
        return None
    if implementation != "xla" and config.architecture != "decoder":
        return f"here it is causal, which config.model.architecture={config.architecture} is not throughout"
    if implementation != "xla" and config.prefix_attention:
        return "here it is causal, which config.model.prefix_attention is not"
    if config.attention_sink:
        return "it has no attention sinks"
    if training and not is_zero(config.attention_dropout):
        return "it has no attention dropout"
    if config.attention_softcap is not None and implementation != "splash":
        return "it has no softcap"
    if implementation == "cudnn":
        if platform != "gpu":
            return f"it needs a GPU, not {platform}"
        if not _is_ampere_or_newer():
            return "it needs a GPU of compute capability 8.0 (Ampere) or above"
        if config.compute_dtype != "bfloat16":
            return "it needs config.model.compute_dtype=bfloat16"
        if head_size(config) % 8 or head_size(config) > 128:
            return f"heads of {head_size(config)} are not a multiple of 8 up to 128"
        if num_tokens % 2:
            return f"it needs an even number of tokens, not {num_tokens}"
    if implementation == "splash":
        if platform != "tpu":
            return f"it needs a TPU, not {platform}"
        if config.positions in ("alibi", "t5"):
            return f"it has no bias for config.model.positions={config.positions}"
        if head_size(config) % 128:
            return f"heads of {head_size(config)} are not a multiple of 128"
        if num_tokens % 128:
            return f"{num_tokens} tokens are not a multiple of 128"
    return None


def _is_ampere_or_newer() -> bool:
    device = jax.devices()[0]
    return not hasattr(device, "compute_capability") or float(device.compute_capability) >= 8.0


def choose_implementation(config: ModelConfig, *, num_tokens: int, cached: bool, collect: bool, training: bool) -> str:
    """The form for this call: config.attention_implementation, where auto takes the fastest one that can.

    Calls that collect attention weights use naive, and cached calls naive or xla, whose masks know where the cache
    ends. Raises UserError where a form was asked for by name that cannot compute the config.
    """
    platform = jax.default_backend()
    wanted = config.attention_implementation
    named = wanted != "auto"
    if not named:
        wanted = {"gpu": "cudnn", "tpu": "splash"}.get(platform, "naive")
    if collect or (cached and wanted != "xla"):
        return "naive"
    reason = obstacle(config, wanted, platform=platform, num_tokens=num_tokens, training=training)
    if reason is None:
        return wanted
    if named:
        raise UserError(
            f"config.model.attention_implementation={wanted} cannot be used: {reason}; choose auto or naive")
    return "naive"
