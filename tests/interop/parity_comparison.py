"""transformers' side of parity, and how far ours may be from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from parity_programs import PADDED

TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3


def with_layers(model: Any, inputs: dict[str, Any]) -> Any:
    """transformers' output with every layer's own output as hidden_states, the last one before any final norm."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}.values()
    for config in configs:
        config.tie_last_hidden_states = False
    try:
        return model(**inputs, output_hidden_states=True, use_cache=False)
    finally:
        for config in configs:
            del config.tie_last_hidden_states


def their_logits(output: Any, segments_BT: np.ndarray) -> Any:
    import torch

    if "start_logits" not in output:
        return output.logits
    logits_B2T = torch.stack([output.start_logits, output.end_logits], dim=1)
    return torch.where(torch.tensor(segments_BT)[:, None] > 0, logits_B2T, PADDED)


def their_loss(logits: Any, labels: tuple[np.ndarray, np.ndarray]) -> Any:
    import torch

    targets, weights = (torch.tensor(array) for array in labels)
    chosen = torch.gather(torch.log_softmax(logits, dim=-1), -1, targets.long()[..., None])[..., 0]
    return -(chosen * weights).sum()


def compare(what: str, found: Any, expected: Any, real: np.ndarray) -> None:
    expected = expected.detach().numpy()
    assert found.shape == expected.shape, f"{what}: {found.shape}, not {expected.shape}"
    np.testing.assert_allclose(np.asarray(found)[real], expected[real], rtol=0, atol=TOLERANCE, err_msg=what)


def compare_layers(what: str, found_LBTD: Any, expected: Any, real_BT: np.ndarray) -> None:
    assert len(expected) == len(found_LBTD), f"{what}: {len(found_LBTD)} hidden states, not {len(expected)}"
    for number, layer_BTD in enumerate(expected):
        compare(f"{what} {number}", found_LBTD[number], layer_BTD, real_BT)


def compare_gradients(found: Mapping[str, np.ndarray], parameters: Mapping[str, Any]) -> None:
    """Of every parameter, each within 1e-3 of the largest entry of its own (of 0.01, where all are smaller).

    found: ours by their names in files; parameters: theirs, after backward.
    """
    for name, gradient in found.items():
        expected = parameters[name].grad
        expected = np.zeros_like(gradient) if expected is None else expected.numpy()
        limit = GRADIENT_TOLERANCE * max(np.abs(expected).max(), 1e-2)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=limit, err_msg=f"gradient of {name}")
