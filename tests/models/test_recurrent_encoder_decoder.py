from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import jit

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.models.recurrent import RecurrentEncoderDecoder, decoding

BASE = ModelConfig(architecture="recurrent_encoder_decoder", vocabulary_size=23, context_length=16, num_layers=2,
                   width=6, hidden_size=5, bidirectional=True, head_bias=True)
SOURCE = jax.random.randint(jax.random.key(5), (3, 7), 0, BASE.vocabulary_size)
SEGMENTS = jnp.array([[1] * 7, [1] * 4 + [0] * 3, [1] * 6 + [0]])
TARGET = jax.random.randint(jax.random.key(6), (3, 4), 0, BASE.vocabulary_size)


def small(**changes) -> ModelConfig:
    return dataclasses.replace(BASE, **changes)


@jit
def init(config: ModelConfig, key: jax.Array):
    return RecurrentEncoderDecoder(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def random_params(config: ModelConfig, seed: int = 0):
    """Random numbers, so that biases matter; the initial values of cells take long to compile."""
    shapes = jax.eval_shape(RecurrentEncoderDecoder(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    leaves, structure = jax.tree.flatten(shapes["params"])
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        structure, [0.4 * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys)])


def apply(config, params, source_BS, source_segments_BS, tokens_BT, segments_BT=None):
    model, variables = RecurrentEncoderDecoder(config), {"params": params}
    encoded = model.apply(variables, source_BS, source_segments_BS=source_segments_BS, method="encode")
    return encoded, model.apply(variables, tokens_BT, encoded=encoded, segments_BT=segments_BT, collect=True)


run = jit(apply)


def close(actual, expected, tolerance=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), actual, expected)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cell_of(config, parameters, x, h, c):
    """One step of a row by the formulas, in numpy."""
    u = h @ parameters["hidden"]["kernel"]
    v = x @ parameters["input"]["kernel"] + parameters["bias"]
    if config.cell == "lstm":
        i, f, g, o = np.split(u + v, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    r, z, n = zip(np.split(u, 3), np.split(v, 3))
    r, z = sigmoid(sum(r)), sigmoid(sum(z))
    n = np.tanh(n[1] + r * (n[0] + parameters["hidden"]["bias"]))
    return (1 - z) * n + z * h, None


def attention_of(config, params, h, features):
    attention = params["attention"]
    keys = features @ attention["key"]["kernel"]
    if config.recurrent_attention == "luong":
        scores = keys @ h
    else:
        scores = np.tanh(h @ attention["query"]["kernel"] + keys) @ attention["vector"]
    weights = np.exp(scores) / np.exp(scores).sum()
    return weights @ features, weights


def decoded_row(config, params, features, last, tokens):
    """(logits, attention weights) of one row: the decoder by the papers' formulas, a token at a time."""
    states = []
    for number in range(config.num_layers):
        start = np.tanh(np.concatenate(last[number]) @ params[f"initial_{number}"]["kernel"]
                        + params[f"initial_{number}"]["bias"])
        states.append(tuple(np.split(start, 2)) if config.cell == "lstm" else (start, None))
    table, readout = params["embedding"]["embedding"], params["readout"]
    vector, logits, weights = np.zeros(config.width), [], []
    for token in tokens:
        x = table[token]
        if config.recurrent_attention == "bahdanau":
            context, weight = attention_of(config, params, states[-1][0], features)
            read = np.concatenate([x, context])
        else:
            read = np.concatenate([x, vector])
        for number in range(config.num_layers):
            states[number] = cell_of(config, params[f"recurrent_{number}"]["forward"], read, *states[number])
            read = states[number][0]
        if config.recurrent_attention == "bahdanau":
            read = np.concatenate([read, context, x])
        else:
            context, weight = attention_of(config, params, read, features)
            read = np.concatenate([context, read])
        vector = np.tanh(read @ readout["kernel"] + readout["bias"])
        logits.append(vector @ table.T + params["head"]["bias"])
        weights.append(weight)
    return np.stack(logits), np.stack(weights)


BOTH = pytest.mark.parametrize(("attention", "cell"), [("bahdanau", "lstm"), ("luong", "gru")])


@BOTH
def test_decoder_is_the_papers_formulas(attention, cell):
    config = small(recurrent_attention=attention, cell=cell)
    params = random_params(config)
    encoded, output = run(config, params, SOURCE, SEGMENTS, TARGET)
    plain = jax.tree.map(np.asarray, params)
    for row, length in enumerate([7, 4, 6]):
        features = np.asarray(encoded.features_BSD[row, :length])
        last = last_states(config, plain["encoder"], plain["embedding"]["embedding"][SOURCE[row, :length]])
        logits, weights = decoded_row(config, plain, features, last, TARGET[row])
        close(output.logits_BTV[row], logits)
        close(output.intermediates["cross_attention_weights_BTS"][row, :, :length], weights)
        assert (output.intermediates["cross_attention_weights_BTS"][row, :, length:] == 0).all()  # padding is not read


def last_states(config, encoder, x):
    """Of each layer the parts of the last states, forward then backward."""
    found = []
    for number in range(config.num_layers):
        outputs, last = [], []
        for name in ("forward", "backward"):
            state, seen = (np.zeros(5), np.zeros(5)), []
            for row in x if name == "forward" else x[::-1]:
                state = cell_of(config, encoder[f"recurrent_{number}"][name], row, *state)
                seen.append(state[0])
            outputs.append(np.stack(seen if name == "forward" else seen[::-1]))
            last += [part for part in state if part is not None]
        x = np.concatenate(outputs, axis=-1)
        found.append(last)
    return found


@BOTH
def test_steps_of_one_token_are_the_whole(attention, cell):
    config = small(recurrent_attention=attention, cell=cell)
    params = random_params(config)
    whole = run(config, params, SOURCE, SEGMENTS, TARGET)[1].logits_BTV
    state = jit(decoding.start)(config, params, SOURCE, SEGMENTS, 4)
    step = jit(decoding.step)
    for time in range(2):
        logits_BV, state = step(config, params, TARGET[:, time:time + 1], state)
        close(logits_BV, whole[:, time])
    rows = jnp.array([2, 2, 1])
    logits_BV, _ = step(config, params, TARGET[rows, 2:3], decoding.take_rows(state, rows))
    close(logits_BV, whole[rows, 2])  # reddens when a leaf of the state does not move with its row


@BOTH
def test_padding_changes_nothing(attention, cell):
    config = small(recurrent_attention=attention, cell=cell)
    params = random_params(config)
    changed_BS = jnp.where(SEGMENTS > 0, SOURCE, 1)
    assert (changed_BS != SOURCE).any()
    segments_BT = jnp.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]])
    _, output = run(config, params, SOURCE, SEGMENTS, TARGET, segments_BT)
    _, other = run(config, params, changed_BS, SEGMENTS, jnp.where(segments_BT > 0, TARGET, 1), segments_BT)
    close(output.cache, other.cache, 1e-6)  # reddens when padding, of either side, changes the decoder's state
    close(output.logits_BTV[segments_BT > 0], other.logits_BTV[segments_BT > 0], 1e-6)


@pytest.mark.parametrize(("attention", "cell", "encoder_layers"), [("bahdanau", "gru", 2), ("luong", "lstm", 1)])
def test_every_parameter_gets_a_gradient(attention, cell, encoder_layers):
    config = small(recurrent_attention=attention, cell=cell, encoder_layers=encoder_layers, shared_embeddings=False,
                   tied_embeddings=False, num_layers=1, initialization_stddev=0.5)
    params = init(config, jax.random.key(0))
    assert "embedding" in params["encoder"]
    assert len(params["encoder"]) == 1 + encoder_layers

    def loss(params):
        return jnp.sum(jnp.square(1 - apply(config, params, SOURCE, SEGMENTS, TARGET)[1].logits_BTV))

    gradient = jax.jit(jax.grad(loss), compiler_options=jit.keywords["compiler_options"])(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.abs(leaf).max() > 1e-6, name


def test_shared_embeddings_are_one_table():
    params = init(BASE, jax.random.key(0))
    assert "embedding" not in params["encoder"]
    assert set(params) == {"embedding", "encoder", "attention", "initial_0", "initial_1", "recurrent_0", "recurrent_1",
                           "readout", "head"}


def test_a_source_must_be_given():
    with pytest.raises(UserError, match="reads a source: give encoded="):
        RecurrentEncoderDecoder(BASE).apply({"params": {}}, TARGET)
