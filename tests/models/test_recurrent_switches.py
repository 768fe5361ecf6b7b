from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import jit

from purelm.config import ModelConfig
from purelm.config.applies import reads
from purelm.models import make_model
from purelm.models.recurrent.cells import CellParameters, CellState, zero_state
from purelm.models.recurrent.layers import drop_steps, dropout_mask
from purelm.models.recurrent.recurrence import Masks, cell_step, masks_of_segments, run_cell, select

BASE = ModelConfig(vocabulary_size=23, context_length=16, num_layers=1, width=6)
TOKENS = jax.random.randint(jax.random.key(5), (2, 5), 0, BASE.vocabulary_size)
# field -> (what must change, the base it is changed on, its other value), as in test_switches.py.
CHANGES = {
    "vocabulary_size": ("shapes", {}, 31),
    "num_layers": ("shapes", {}, 2),
    "encoder_layers": ("shapes", {}, 2),
    "width": ("shapes", {}, 8),
    "hidden_size": ("shapes", {"tied_embeddings": False}, 5),
    "cell": ("shapes", {}, "gru"),
    "bidirectional": ("shapes", {"tied_embeddings": False}, True),
    "recurrent_attention": ("shapes", {}, "luong"),
    "shared_embeddings": ("shapes", {}, False),
    "tied_embeddings": ("shapes", {}, False),
    "head_bias": ("shapes", {}, True),
    "param_dtype": ("shapes", {}, "bfloat16"),
    "initialization_stddev": ("values", {}, 0.1),
    "zero_head": ("values", {"tied_embeddings": False}, True),
    "logits_softcap": ("outputs", {}, 0.1),
    "compute_dtype": ("outputs", {}, "bfloat16"),
    "embedding_dropout": ("training", {}, 0.5),
    "residual_dropout": ("training", {}, 0.5),
    "recurrent_dropout": ("training", {}, 0.5),
    "variational_dropout": ("training", {"embedding_dropout": 0.5}, True),
}
# Read by data, tasks and models/classifier.py; the networks themselves have no use for them.
ELSEWHERE = {"architecture", "context_length", "num_classes", "pooling", "classifier_dropout"}
FIELDS = [(architecture, field.name) for architecture in ("recurrent", "recurrent_encoder_decoder")
          for field in dataclasses.fields(ModelConfig)
          if reads(architecture, field.name) and field.name not in ELSEWHERE]


def initialize(config, key):
    return make_model(config).init(key, TOKENS[:1, :1])["params"]


@jit
def tables(config, key):
    """Initial values of embedding and head alone: those of cells take long to compile."""
    params = initialize(config, key)
    return [params[name] for name in ("embedding", "head") if name in params]


@jit
def logits(config, params, key=None):
    model, variables = make_model(config), {"params": params}
    drawn = {} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
    inputs = dict(drawn)
    if config.architecture == "recurrent_encoder_decoder":
        inputs["encoded"] = model.apply(variables, TOKENS, method="encode", **drawn)
    return model.apply(variables, TOKENS, **inputs).logits_BTV


@pytest.mark.parametrize(("architecture", "field"), FIELDS)
def test_every_field_changes_something(architecture, field):
    # A field that is accepted and ignored reddens here; a field that config/applies.py adds is a KeyError.
    what, base, value = CHANGES[field]
    config = dataclasses.replace(BASE, architecture=architecture, **base)
    changed = dataclasses.replace(config, **{field: value})
    shapes, other = (jax.eval_shape(partial(initialize, c), jax.random.key(0)) for c in (config, changed))
    if what == "shapes":
        assert shapes != other
        return
    assert shapes == other
    if what == "values":
        one, other = (jax.tree.leaves(tables(c, jax.random.key(0))) for c in (config, changed))
        assert not all(np.array_equal(a, b) for a, b in zip(one, other))
        return
    params = jax.tree.map(lambda leaf: 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), shapes)
    key = jax.random.key(1) if what == "training" else None
    one, other = (logits(c, params, key) for c in (config, changed))
    assert np.abs(one - other).max() > 1e-3
    assert one.dtype == other.dtype == jnp.float32


@pytest.mark.parametrize("architecture", ["recurrent", "recurrent_encoder_decoder"])
def test_layers_have_dropout_between_them(architecture):
    config = dataclasses.replace(BASE, architecture=architecture, num_layers=2, residual_dropout=0.5)
    params = jax.tree.map(lambda leaf: 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
                          jax.eval_shape(partial(initialize, config), jax.random.key(0)))
    one, other = (logits(config, params, jax.random.key(seed)) for seed in (1, 2))
    assert np.abs(one - other).max() > 1e-3


def test_variational_dropout_draws_one_mask_a_sequence():
    x_TBD = jnp.ones((5, 3, 16))
    each, one = (drop_steps(dataclasses.replace(BASE, variational_dropout=flag), x_TBD, 0.5, jax.random.key(0))
                 for flag in (False, True))
    np.testing.assert_array_equal(one, np.broadcast_to(one[:1], one.shape))
    assert (each != each[:1]).any()
    assert set(np.unique(one)) == {0.0, 2.0}
    assert (one[0, 0] != one[0, 1]).any()  # reddens when rows share a mask


def slow_run(cell, parameters, x_TBD, state, masks, reverse):
    """run_cell as a plain loop, for autodiff."""
    outputs = [None] * len(x_TBD)
    for time in sorted(range(len(x_TBD)), reverse=reverse):
        if masks.first_TB1 is not None:
            state = select(masks.first_TB1[time], jax.tree.map(jnp.zeros_like, state), state)
        bias = parameters.hidden_bias_H
        bias = None if bias is None else jnp.broadcast_to(bias, state.h_BH.shape)
        new = cell_step(cell, x_TBD[time] @ parameters.input_DG + parameters.bias_G, parameters.hidden_HG, bias, state,
                        masks.dropout_BH)
        state = select(None if masks.real_TB1 is None else masks.real_TB1[time], new, state)
        outputs[time] = state.h_BH
    return jnp.stack(outputs), state


@pytest.mark.parametrize(("cell", "reverse"), [("lstm", False), ("gru", True)])
def test_gradients_of_the_scan_are_autodiffs(cell, reverse):
    B, D, H, T = 3, 3, 2, 4
    gates = {"lstm": 4, "gru": 3}[cell] * H
    keys = iter(jax.random.split(jax.random.key(0), 9))
    parameters = CellParameters(*(jax.random.normal(next(keys), shape) for shape in ((D, gates), (H, gates), (gates,))),
                                jax.random.normal(next(keys), (H,)) if cell == "gru" else None)
    state = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), zero_state(cell, B, H))
    x_TBD = jax.random.normal(next(keys), (T, B, D))
    masks = masks_of_segments(jnp.array([[1, 1, 2, 2], [0, 1, 0, 2], [1, 1, 1, 0]]), reverse=reverse)
    assert np.array_equal(masks.first_TB1[..., 0].T, np.array(
        [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]] if reverse else [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool))
    masks = masks._replace(dropout_BH=dropout_mask((B, H), 0.5, next(keys)))

    def value(run, parameters, x_TBD, state):
        h_TBH, last = run(cell, parameters, x_TBD, state, masks, reverse=reverse)
        return sum(jnp.sum(jnp.sin(leaf) * (1 + jnp.arange(leaf.size).reshape(leaf.shape)))
                   for leaf in jax.tree.leaves((h_TBH, last)))

    quick_jit = partial(jax.jit, compiler_options=jit.keywords["compiler_options"])
    actual, expected = (quick_jit(jax.value_and_grad(partial(value, run), argnums=(0, 1, 2)))(parameters, x_TBD, state)
                        for run in (run_cell, slow_run))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), actual, expected)


def test_without_segments_there_are_no_masks():
    assert masks_of_segments(None, reverse=False) == Masks()
    assert zero_state("gru", 1, 2).c_BH is None
    assert isinstance(zero_state("lstm", 1, 2), CellState)
