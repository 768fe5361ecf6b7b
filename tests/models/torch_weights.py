"""Parameters and gradients side by side with PyTorch's. Tests that import this are skipped where there is no torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import QUICKLY

torch = pytest.importorskip("torch")


def tensor(array, gradient=False):
    return torch.from_numpy(np.array(array)).requires_grad_(gradient)


def assert_close(actual, expected, tolerance=1e-5, name=""):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=name)


def set_weights(model, weights):
    """Copies arrays into `model` by name; every one of its parameters must be named."""
    own = dict(model.named_parameters())
    assert set(own) == set(weights)
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(tensor(weight))


def flat(prefix, module, *, transpose):
    """A linear layer's or norm's parameters under Hugging Face's names."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    return {f"{prefix}.{names[name]}": leaf.T if transpose and leaf.ndim == 2 else leaf
            for name, leaf in module.items()}


def by_layer(params, number=2):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]) for i in range(number)]


def renamed(prefix, module, names):
    """flat(f"{prefix}.{theirs}", module[ours]) of each `ours: theirs`, where the path ours may have slashes."""
    weights = {}
    for ours, theirs in names.items():
        leaf = module
        for part in ours.split("/"):
            leaf = leaf[part]
        weights |= flat(f"{prefix}.{theirs}", leaf, transpose=True)
    return weights


def assert_same_model(ours, oracle, model, params, weights):
    """Same outputs, and same gradients of the mean of sin(output), to 1e-5.

    ours(params) and oracle() give outputs; weights(params or gradients) are by the names of `model`'s parameters.
    """
    set_weights(model, weights(params))
    model.eval()

    def loss(params):
        output = ours(params)
        return jnp.mean(jnp.sin(output)), output

    (_, output), gradients = jax.jit(
        jax.value_and_grad(loss, has_aux=True), compiler_options=QUICKLY)(params)
    expected = oracle()
    assert_close(output, expected)
    torch.sin(expected).mean().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, gradient in weights(gradients).items():
        assert_close(gradient, expected[name], name=name)
