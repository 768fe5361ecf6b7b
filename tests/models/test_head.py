import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.models.head import head_logits


@pytest.mark.parametrize("axis", [0, 1])
def test_bfloat16_gradients_are_products_of_bfloat16_and_agree_with_float32(axis):
    """Reddens when the float32 gradient of the logits goes into a product unrounded, or an axis is swapped."""
    key_x, key_m, key_g = jax.random.split(jax.random.key(0), 3)
    x, gradient = jax.random.normal(key_x, (6, 8)), jax.random.normal(key_g, (6, 5))
    matrix = jax.random.normal(key_m, (8, 5) if axis == 0 else (5, 8))

    def backward(x, matrix):
        return jax.vjp(lambda x, m: head_logits(x, m, axis), x, matrix)[1](gradient)

    half = tuple(value.astype(jnp.bfloat16) for value in (x, matrix))
    exact, rounded = backward(x, matrix), backward(*half)
    expected = (gradient @ (matrix.T if axis == 0 else matrix), x.T @ gradient if axis == 0 else gradient.T @ x)
    for full, low, right in zip(exact, rounded, expected):
        np.testing.assert_allclose(full, right, atol=1e-5)
        assert low.dtype == jnp.bfloat16
        np.testing.assert_allclose(low.astype(jnp.float32), right, atol=0.1)
    operands = [{str(v.aval.dtype) for v in e.invars} for e in jax.make_jaxpr(backward)(*half).jaxpr.eqns
                if e.primitive.name == "dot_general"]
    assert len(operands) >= 2 and all(kinds == {"bfloat16"} for kinds in operands)
    assert head_logits(*half, axis).dtype == jnp.float32
