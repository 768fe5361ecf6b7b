"""The largest numbers, as lax.top_k finds them."""

import jax
import numpy as np
import pytest

from purelm.inference.largest import largest


@pytest.mark.parametrize("size, count", [(5, 2), (160, 160), (161, 1), (2000, 8), (50_257, 40), (30_011, 700)])
@pytest.mark.parametrize("kind", ["different", "equal", "impossible"])
def test_the_largest_are_those_of_top_k(size, count, kind):
    # Reddens where equal numbers change places, where a block too few is searched, or where padding is found.
    x_BX = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
    if kind == "equal":
        x_BX = np.round(x_BX) + np.float32(0)  # -0 is less than 0 to lax.top_k
    if kind == "impossible":
        x_BX[:, 2:-1] = -np.inf
    found = jax.jit(largest, static_argnums=1)(x_BX, count)
    for ours, theirs in zip(found, jax.lax.top_k(x_BX, count)):
        np.testing.assert_array_equal(ours, theirs)
