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
from purelm.models.recurrent import Recurrent, decoding, init_carry

BASE = ModelConfig(architecture="recurrent", vocabulary_size=23, context_length=16, num_layers=2, width=6)
SEGMENTS = jnp.array([[1] * 7, [1] * 4 + [0] * 3, [1, 1, 0, 2, 2, 0, 2]])
TOKENS = jax.random.randint(jax.random.key(5), (3, 7), 0, BASE.vocabulary_size)


def small(**changes) -> ModelConfig:
    return dataclasses.replace(BASE, **changes)


@jit
def init(config: ModelConfig, key: jax.Array):
    return Recurrent(config).init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def random_params(config: ModelConfig, seed: int = 0):
    """Random numbers, so that biases matter; the initial values of cells take long to compile."""
    shapes = jax.eval_shape(Recurrent(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        structure, [0.4 * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys)])


def apply(config: ModelConfig, params, tokens_BT, segments_BT=None, carry=None, key=None):
    drawn = {} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
    return Recurrent(config).apply({"params": params}, tokens_BT, segments_BT=segments_BT, carry=carry, **drawn)


run = jit(apply)
quick_jit = partial(jax.jit, compiler_options=jit.keywords["compiler_options"])


def close(actual, expected, tolerance=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), actual, expected)


CASES = [("lstm", 1, False), ("gru", 1, False), ("lstm", 2, True), ("gru", 2, True)]


def torch_twin(config: ModelConfig, params):
    """torch's own layers with the same numbers, all in one module; the second bias holds what is separate."""
    torch = pytest.importorskip("torch")
    kind = torch.nn.LSTM if config.cell == "lstm" else torch.nn.GRU
    size = config.hidden_size
    twin = kind(config.width, size, config.num_layers, batch_first=True, bidirectional=config.bidirectional)
    for layer in range(config.num_layers):
        for name, ending in (("forward", ""), ("backward", "_reverse")):
            if name not in params[f"recurrent_{layer}"]:
                continue
            cell = params[f"recurrent_{layer}"][name]
            values = {"weight_ih": cell["input"]["kernel"].T, "weight_hh": cell["hidden"]["kernel"].T,
                      "bias_ih": cell["bias"], "bias_hh": np.zeros_like(cell["bias"])}
            if config.cell == "gru":
                values["bias_hh"][2 * size:] = cell["hidden"]["bias"]
            for key, value in values.items():
                getattr(twin, f"{key}_l{layer}{ending}").data = torch.tensor(np.array(value))
    return torch, twin


@pytest.mark.parametrize(("cell", "num_layers", "bidirectional"), CASES)
def test_outputs_and_gradients_are_those_of_torch(cell, num_layers, bidirectional):
    config = small(cell=cell, num_layers=num_layers, bidirectional=bidirectional, hidden_size=5)
    params = random_params(dataclasses.replace(config, tied_embeddings=False))
    torch, twin = torch_twin(config, params)
    lengths = [7, 4, 6]
    segments_BT = (jnp.arange(7) < jnp.array(lengths)[:, None]).astype(jnp.int32)
    weight = np.asarray(jax.random.normal(jax.random.key(9), (3, 7, 10 if bidirectional else 5))
                        * segments_BT[..., None])

    x = torch.tensor(np.asarray(params["embedding"]["embedding"])[TOKENS], requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = twin(packed)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
    (y * torch.tensor(weight)).sum().backward()

    def features(params):
        output, states = Recurrent(config).apply({"params": params}, TOKENS, segments_BT=segments_BT, method="features")
        return jnp.sum(output.logits_BTV * weight), (output.logits_BTV, states)

    gradient, (actual, states) = quick_jit(jax.grad(features, has_aux=True))(params)
    close(actual * segments_BT[..., None], y.detach().numpy())  # reddens when padding is read, in either direction
    last = last if cell == "lstm" else (last,)
    ours = [leaf for layer in states for state in layer for leaf in [tuple(part for part in state if part is not None)]]
    for kind, expected in enumerate(last):
        close(np.stack([state[kind] for state in ours]), expected.detach().numpy())
    for layer in range(num_layers):
        for name, ending in (("forward", ""), ("backward", "_reverse"))[:1 + bidirectional]:
            cell_gradient = gradient[f"recurrent_{layer}"][name]
            suffix = f"_l{layer}{ending}"
            close(cell_gradient["input"]["kernel"], getattr(twin, "weight_ih" + suffix).grad.numpy().T)
            close(cell_gradient["hidden"]["kernel"], getattr(twin, "weight_hh" + suffix).grad.numpy().T)
            close(cell_gradient["bias"], getattr(twin, "bias_ih" + suffix).grad.numpy())
            if cell == "gru":
                close(cell_gradient["hidden"]["bias"], getattr(twin, "bias_hh" + suffix).grad.numpy()[10:])
    by_token = np.zeros_like(params["embedding"]["embedding"])
    np.add.at(by_token, np.asarray(TOKENS), x.grad.numpy())
    close(gradient["embedding"]["embedding"], by_token)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_windows_with_the_state_carried_are_one_window(cell):
    config = small(cell=cell)
    params = random_params(config)
    whole = run(config, params, TOKENS)
    first = run(config, params, TOKENS[:, :4])
    second = run(config, params, TOKENS[:, 4:], carry=first.cache)
    close(jnp.concatenate([first.logits_BTV, second.logits_BTV], axis=1), whole.logits_BTV)
    close(second.cache, whole.cache)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gradients_pass_through_the_carried_state(cell):
    config = small(cell=cell, num_layers=1)
    params = random_params(config)

    def second_half(params, halves):
        carry = apply(config, params, TOKENS[:, :4]).cache if halves else None
        logits = apply(config, params, TOKENS[:, 4:] if halves else TOKENS, carry=carry).logits_BTV
        return jnp.sum(jnp.square(logits[:, -3:]))

    gradient = quick_jit(jax.grad(second_half), static_argnums=1)
    close(gradient(params, True), gradient(params, False), 1e-4)


# Where SEGMENTS has a segment each: row, places.
ALONE = [(0, [0, 1, 2, 3, 4, 5, 6]), (1, [0, 1, 2, 3]), (2, [0, 1]), (2, [3, 4, 6])]


def unpacked():
    """The segments of TOKENS, a row each, padded on the right."""
    tokens_BT, segments_BT = np.zeros((2, len(ALONE), 7), np.int32)
    for number, (row, places) in enumerate(ALONE):
        tokens_BT[number, :len(places)] = TOKENS[row, jnp.array(places)]
        segments_BT[number, :len(places)] = 1
    return tokens_BT, segments_BT


@pytest.mark.parametrize(("cell", "bidirectional"), [("lstm", False), ("gru", True)])
def test_packed_segments_equal_each_alone(cell, bidirectional):
    config = small(cell=cell, bidirectional=bidirectional, tied_embeddings=False)
    params = random_params(config)

    def value(params, tokens_BT, segments_BT):
        logits_BTV = apply(config, params, tokens_BT, segments_BT).logits_BTV
        return jnp.sum(jnp.square(logits_BTV) * (segments_BT > 0)[..., None]), logits_BTV

    gradient = quick_jit(jax.grad(value, has_aux=True))
    packed, together = gradient(params, TOKENS, SEGMENTS)
    apart, alone = gradient(params, *unpacked())
    for number, (row, places) in enumerate(ALONE):
        # Reddens when the state crosses segments, or padding (inside of a segment too) changes it.
        close(together[row, jnp.array(places)], alone[number, :len(places)])
    close(packed, apart, 1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_the_backward_direction_reads_the_future(bidirectional):
    config = small(bidirectional=bidirectional, tied_embeddings=False)
    params = random_params(config)
    tokens_BT = jnp.arange(8)[None]

    def probed(table):
        changed = {**params, "embedding": {"embedding": table}}
        return apply(config, changed, tokens_BT).logits_BTV[0, 4].sum()

    moved = np.abs(quick_jit(jax.grad(probed))(params["embedding"]["embedding"]))[:8].sum(axis=-1)
    assert (moved[:5] > 0).all()
    assert (moved[5:] > 0).all() == bidirectional
    assert bidirectional or (moved[5:] == 0).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_steps_of_one_token_are_the_whole(cell):
    config = small(cell=cell)
    params = random_params(config)
    whole = run(config, params, TOKENS).logits_BTV
    state = decoding.init_state(config, 3)
    for time in range(3):
        logits_BV, state = decoding.step(config, params, TOKENS[:, time:time + 1], state)
        close(logits_BV, whole[:, time])
    state = decoding.take_rows(state, jnp.array([2, 2, 0, 1]))
    logits_BV, _ = decoding.step(config, params, TOKENS[jnp.array([2, 2, 0, 1]), 3:4], state)
    close(logits_BV, whole[jnp.array([2, 2, 0, 1]), 3])


def test_a_network_of_both_directions_has_no_state_to_carry():
    config = small(bidirectional=True)
    with pytest.raises(UserError, match="no state to go on from"):
        init_carry(config, 2)
    with pytest.raises(UserError, match="no state to go on from"):
        Recurrent(config).apply({"params": {}}, TOKENS, carry=init_carry(small(), 3), method="hidden")


def test_tied_output_needs_features_of_the_width():
    with pytest.raises(UserError, match="needs features of config.model.width=6, but the recurrent layers' have 5"):
        random_params(small(hidden_size=5))
    features = partial(Recurrent(small(hidden_size=5)).init, method="hidden")
    assert set(jax.eval_shape(features, jax.random.key(0), TOKENS)["params"]) == {
        "embedding", "recurrent_0", "recurrent_1"}


def test_collected_states_are_by_name():
    config = small()
    params = random_params(config)
    seen = Recurrent(config).apply({"params": params}, TOKENS, collect=True).intermediates
    assert {name: leaf.shape for name, leaf in seen.items()} == {
        "embedding_BTD": (3, 7, 6), "residual_LBTD": (2, 3, 7, 6), "hidden_LBTD": (2, 3, 7, 6)}
    close(seen["embedding_BTD"], params["embedding"]["embedding"][TOKENS])
    close(seen["hidden_LBTD"][-1] @ params["embedding"]["embedding"].T, run(config, params, TOKENS).logits_BTV)


def test_initial_values():
    params = init(small(num_layers=1, hidden_size=8, tied_embeddings=False), jax.random.key(0))
    cell = params["recurrent_0"]["forward"]
    np.testing.assert_array_equal(cell["bias"], [0] * 8 + [1] * 8 + [0] * 16)
    for gate in jnp.split(cell["hidden"]["kernel"], 4, axis=1):
        close(gate @ gate.T, np.eye(8))
    assert np.abs(cell["input"]["kernel"]).max() <= (6 / (6 + 8)) ** 0.5
    gru = init(small(num_layers=1, cell="gru"), jax.random.key(0))["recurrent_0"]["forward"]
    np.testing.assert_array_equal(gru["bias"], np.zeros(18))
