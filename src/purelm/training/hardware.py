"""Peak rates of chips, for model FLOPs utilization (MFU)."""

from __future__ import annotations

# Dense bfloat16 FLOP/s of one device (V100, T4: float16, they have no bfloat16), from the makers' data sheets, by the
# first words of jax's device_kind. A device of jax's TPU v2 and v3 is one core, half a chip.
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA B200": 2250e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v4 lite": 138e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}

COUNTING_RULE = ("MFU = tokens/s x FLOPs a token / (devices x dense bfloat16 peak); FLOPs a token = 6 x parameters in "
                 "matrix products + 12 x layers x heads x head size x context (PaLM, appendix B; recomputation and "
                 "causality not counted)")


def peak_flops(device_kind: str) -> float | None:
    """The peak of one device, or None for one not in the table (a CPU, say). The longest matching name counts."""
    names = [name for name in PEAK_FLOPS if device_kind == name or device_kind.startswith((f"{name} ", f"{name}-"))]
    return PEAK_FLOPS[max(names, key=len)] if names else None


def model_flops_utilization(tokens_per_second: float, flops_per_token: float, device_kind: str,
                            num_devices: int) -> float | None:
    """MFU as a fraction, by COUNTING_RULE; None where the peak is not known."""
    peak = peak_flops(device_kind)
    return None if peak is None else tokens_per_second * flops_per_token / (num_devices * peak)
