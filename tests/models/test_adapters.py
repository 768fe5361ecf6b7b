"""LoRA as a function of parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import AdapterConfig
from purelm.errors import UserError
from purelm.models.adapters import add_adapters, merge_adapters

CONFIG = AdapterConfig(rank=2, alpha=6.0, targets="layers/.*kernel$")


def a_model():
    key = jax.random.key(0)
    return {"layers": {"query": {"kernel": jax.random.normal(key, (3, 4, 5)), "bias": jnp.ones((3, 5))}},
            "head": {"kernel": jax.random.normal(key, (4, 7))}}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_adapters_start_as_nothing_and_leave_the_model_its_own_tree():
    """Reddens when `up` does not start at zero, or when the subtree stays among what the model reads."""
    params = add_adapters(CONFIG, a_model(), jax.random.key(1))
    same(merge_adapters(CONFIG, params), a_model())
    assert params["adapters"]["layers"]["query"]["kernel"]["down"].shape == (3, 4, 2)
    assert "head" not in params["adapters"] and "bias" not in params["adapters"]["layers"]["query"]


def test_merging_is_equation_three():
    """W + (alpha / rank) down up, for each layer of a stack. Reddens when the scale or an axis is wrong."""
    params = add_adapters(CONFIG, a_model(), jax.random.key(1))
    adapter = params["adapters"]["layers"]["query"]["kernel"]
    adapter["up"] = jax.random.normal(jax.random.key(2), adapter["up"].shape)
    merged = merge_adapters(CONFIG, params)["layers"]["query"]["kernel"]
    for layer in range(3):
        expected = (np.asarray(a_model()["layers"]["query"]["kernel"][layer])
                    + 3.0 * np.asarray(adapter["down"][layer]) @ np.asarray(adapter["up"][layer]))
        np.testing.assert_allclose(merged[layer], expected, atol=1e-6)
    other = merge_adapters(dataclasses.replace(CONFIG, alpha=0.5), params)["layers"]["query"]["kernel"]
    assert (other != merged).any()


def test_without_a_rank_there_are_none():
    assert add_adapters(AdapterConfig(), a_model(), jax.random.key(1)).keys() == a_model().keys()


@pytest.mark.parametrize("targets, message", [("nothing", "names no matrix; there are"), ("bias$", "names no matrix"),
                                              ("scale$", "is no matrix")])
def test_targets_that_are_no_matrix_are_named(targets, message):
    model = a_model() | {"norm": {"scale": jnp.ones(4)}}
    if targets == "bias$":
        model["layers"]["query"].pop("bias")
    with pytest.raises(UserError, match=message):
        add_adapters(dataclasses.replace(CONFIG, targets=targets), model, jax.random.key(0))
