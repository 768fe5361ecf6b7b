"""A family's table in both directions."""

import numpy as np
import pytest

from purelm.errors import UserError
from purelm.interop.mapping import Part, Tensor, by_leaf, leaves_of, linear, norm, params_from, tensors_from


class Shape:
    def __init__(self, *shape):
        self.shape = shape


def fused_table(groups):
    lines = [part for number, name in enumerate(("query", "key", "value"))
             for part in linear(f"layers/attention/{name}", "h.{}.qkv", True, part=Part(number, 3, groups))]
    return [*lines, Tensor("head/bias", "final_bias", row=True), *norm("final_norm", "ln", False)]


SHAPES = {"layers": {"attention": {name: {"kernel": Shape(2, 5, 12), "bias": Shape(2, 12)}
                                   for name in ("query", "key", "value")}},
          "head": {"bias": Shape(7)}, "final_norm": {"scale": Shape(5)}}


@pytest.fixture
def files():
    numbers = np.random.default_rng(0)
    return {**{f"h.{layer}.qkv.weight": numbers.normal(size=(36, 5)) for layer in range(2)},
            **{f"h.{layer}.qkv.bias": numbers.normal(size=36) for layer in range(2)},
            "final_bias": numbers.normal(size=(1, 7)), "ln.weight": numbers.normal(size=5)}


def test_parts_one_after_the_other(files):
    """Reddens where the key and the value change places, or the matrix is not transposed."""
    params = params_from(fused_table(1), SHAPES, files.__getitem__)
    kernel = params["layers"]["attention"]["key"]["kernel"]
    assert kernel.shape == (2, 5, 12)
    np.testing.assert_array_equal(kernel[1], files["h.1.qkv.weight"][12:24].T)
    np.testing.assert_array_equal(params["layers"]["attention"]["value"]["bias"][0], files["h.0.qkv.bias"][24:])
    np.testing.assert_array_equal(params["head"]["bias"], files["final_bias"][0])


def test_parts_in_each_head(files):
    """GPT-NeoX: rows are [head, query or key or value, size]."""
    params = params_from(fused_table(4), SHAPES, files.__getitem__)
    rows = files["h.0.qkv.weight"].reshape(4, 3, 3, 5)
    np.testing.assert_array_equal(params["layers"]["attention"]["value"]["kernel"][0], rows[:, 2].reshape(12, 5).T)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_there_and_back_gives_the_same_bytes(files, groups):
    back = tensors_from(fused_table(groups), params_from(fused_table(groups), SHAPES, files.__getitem__))
    assert back.keys() == files.keys()
    for name, array in files.items():
        assert back[name].tobytes() == array.tobytes() and back[name].shape == array.shape


def test_a_shape_that_differs_is_named(files):
    files["h.1.qkv.weight"] = files["h.1.qkv.weight"][:-3]
    with pytest.raises(UserError, match=r"tensor h\.1\.qkv\.weight: is \[33, 5\], but the config says \[36, 5\]"):
        params_from(fused_table(1), SHAPES, files.__getitem__)


@pytest.mark.parametrize("change, message", [
    (lambda table: table[:-1], "no tensor for parameter 'final_norm/scale'"),
    (lambda table: [*table, Tensor("head/kernel", "lm_head.weight")],
     "a tensor for what the model has not, .*head/kernel"),
    (lambda table: [*table, table[0]], "two tensors for parameter"),
])
def test_a_table_that_does_not_fit_the_model(change, message):
    with pytest.raises(UserError, match=message):
        by_leaf(change(fused_table(1)), dict(leaves_of(SHAPES)))
