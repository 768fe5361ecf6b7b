"""Update rules against PyTorch and against themselves, on a small tree with the model's kinds of paths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_config

from purelm.config import OptimizerConfig
from purelm.errors import UserError
from purelm.training.optimizer import make_optimizer
from purelm.training.schedules import learning_rate_at

NAMES = ("sgd", "adam", "adamw", "adabelief", "adafactor", "lion", "muon")


def make_params(seed=0):
    random = np.random.default_rng(seed)
    shapes = {"embedding": {"embedding": (6, 8)},
              "layers": {"up": {"kernel": (2, 8, 12), "bias": (2, 12)}, "down": {"kernel": (2, 12, 8)}},
              "head": {"kernel": (8, 6)}}
    return jax.tree.map(lambda shape: jnp.asarray(random.standard_normal(shape), jnp.float32), shapes,
                        is_leaf=lambda leaf: isinstance(leaf, tuple))


def momentum_of(name):
    return {"momentum": 0.9} if name in ("sgd", "muon") else {}


def trained(config, params, gradients):
    optimizer = make_optimizer(config, params)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


def make_gradients(count=5):
    return [make_params(seed + 1) for seed in range(count)]


TORCH = {
    "sgd": ({}, "SGD", {}),
    "sgd momentum": ({"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    "sgd nesterov": ({"momentum": 0.9, "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": ({"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-5}, "Adam", {"betas": (0.8, 0.95), "eps": 1e-5}),
    "adamw": ({"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.3}, "AdamW", {"betas": (0.8, 0.95)}),
}


@pytest.mark.parametrize("case", TORCH)
@pytest.mark.parametrize("clip_norm", [None, 3.0])
def test_five_updates_are_torchs(case, clip_norm):
    # With a schedule, and decay of kernels and embeddings alone: reddens where either is dropped or misapplied.
    torch = pytest.importorskip("torch")
    options, name, theirs = TORCH[case]
    config = make_config(
        optimizer={"name": case.split()[0], "learning_rate": 0.1, "schedule": "cosine", "warmup": "2",
                   "clip_norm": clip_norm} | options, training={"num_steps": 5})
    params, gradients = make_params(), make_gradients()
    ours, _ = trained(config, params, gradients)

    leaves = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in jax.tree.leaves(params)]
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    decay = config.optimizer.weight_decay
    groups = [{"params": [leaf], "weight_decay": 0.0 if "bias" in name else decay} for name, leaf in zip(names, leaves)]
    optimizer = getattr(torch.optim, name)(groups, lr=1.0, **theirs)
    for step, gradient in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = float(learning_rate_at(config, step))
        for leaf, value in zip(leaves, jax.tree.leaves(gradient)):
            leaf.grad = torch.tensor(np.asarray(value))
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(leaves, clip_norm)
        optimizer.step()
    for name, leaf, value in zip(names, leaves, jax.tree.leaves(ours)):
        np.testing.assert_allclose(value, leaf.detach().numpy(), rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "adam"])
def test_decay_is_decoupled_and_times_the_rate(name):
    # From the same point and gradient, decay moves a parameter by exactly -rate * multiplier * decay * parameter.
    params, gradients = make_params(), make_gradients(1)
    rules = {"name": name, "learning_rate": 0.1, "learning_rate_rules": (("up/kernel", 0.5), (".*", 1.0))}
    without, with_decay = (
        trained(make_config(optimizer=rules | {"weight_decay": decay}), params, gradients)[0] for decay in (0.0, 0.4))
    expected = jax.tree.map(lambda leaf: -0.1 * 0.4 * leaf, params)
    expected["layers"]["up"]["kernel"] *= 0.5
    expected["layers"]["up"]["bias"] *= 0
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(b - a, c, atol=1e-6), without, with_decay, expected)


def test_adam_has_no_weight_decay():
    with pytest.raises(UserError, match="adamw"):
        make_optimizer(make_config(optimizer={"name": "adam", "weight_decay": 0.1}), make_params())


def test_muon_orthogonalizes_each_layers_matrix():
    # Reddens where the layer axis is taken for a side of the matrix, or the scale for another.
    config = make_config(optimizer={"name": "muon", "learning_rate": 0.1, "momentum": 0.9})
    params, gradients = make_params(), make_gradients(2)
    optimizer = make_optimizer(config, params)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
    for name in ("up", "down"):
        for matrix in updates["layers"][name]["kernel"]:
            values = np.linalg.svd(np.asarray(matrix), compute_uv=False) / (0.1 * 0.2 * np.sqrt(12))
            assert values.shape == (8,) and (values > 0.3).all() and (values < 1.4).all(), values


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_a_stack_moves_as_its_layers_alone(name):
    # 128 x 130 is large enough for Adafactor to factor.
    random = np.random.default_rng(0)

    def tree(value):
        return {"layers": {"up": {"kernel": jnp.asarray(value, jnp.float32)}}}

    params, gradients = random.standard_normal((2, 128, 130)), random.standard_normal((3, 2, 128, 130))
    params[1] *= 10
    gradients[:, 1] *= 100
    config = make_config(optimizer={"name": name, "learning_rate": 0.1, "weight_decay": 0.1} | momentum_of(name))
    whole, _ = trained(config, tree(params), [tree(gradient) for gradient in gradients])
    for layer in range(2):
        alone, _ = trained(config, tree(params[layer: layer + 1]),
                           [tree(gradient[layer: layer + 1]) for gradient in gradients])
        np.testing.assert_allclose(whole["layers"]["up"]["kernel"][layer], alone["layers"]["up"]["kernel"][0],
                                   rtol=1e-4, atol=1e-5)


def test_muon_leaves_the_rest_to_adam_at_its_own_rate():
    params, gradients = make_params(), make_gradients()
    shared = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6}
    muon, _ = trained(make_config(optimizer=shared | {"name": "muon", "learning_rate": 0.5, "momentum": 0.9,
                                                      "nesterov": True, "adam_learning_rate": 0.02}), params, gradients)
    adam, _ = trained(make_config(optimizer=shared | {"name": "adam", "learning_rate": 0.02}), params, gradients)
    for path in (("embedding", "embedding"), ("head", "kernel")):
        np.testing.assert_allclose(muon[path[0]][path[1]], adam[path[0]][path[1]], rtol=1e-5)
    np.testing.assert_allclose(muon["layers"]["up"]["bias"], adam["layers"]["up"]["bias"], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_stay_and_have_no_state(name):
    params, gradients = make_params(), make_gradients(3)
    options = {"name": name, "weight_decay": 0.0 if name == "adam" else 0.1} | momentum_of(name)
    frozen = options | {"learning_rate_rules": (("up|head", 0.0), (".*", 1.0))}
    after, state = trained(make_config(optimizer=frozen), params, gradients)
    for leaf, before in ((after["head"]["kernel"], params["head"]["kernel"]),
                         (after["layers"]["up"]["kernel"], params["layers"]["up"]["kernel"])):
        np.testing.assert_array_equal(leaf, before)
    assert (after["embedding"]["embedding"] != params["embedding"]["embedding"]).all()
    _, whole = trained(make_config(optimizer=options), params, gradients)
    paths = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(state) if leaf.size > 1]
    assert not any("up" in path or "head" in path for path in paths)
    assert len(jax.tree.leaves(state)) < len(jax.tree.leaves(whole))


# Field -> (what else must be set for it to count, the other value). A new field must be added here.
PERTURBED = {
    "name": ({}, "lion"), "learning_rate": ({}, 0.2), "schedule": ({}, "linear"),
    "warmup": ({}, "3"), "decay": ({"schedule": "wsd"}, "4"),
    "final_fraction": ({"schedule": "cosine"}, 0.5), "beta1": ({"name": "lion"}, 0.5), "beta2": ({}, 0.5),
    "epsilon": ({}, 0.1), "momentum": ({"name": "sgd"}, 0.5), "nesterov": ({"name": "sgd", "momentum": 0.5}, True),
    "weight_decay": ({}, 0.1), "clip_norm": ({"name": "sgd"}, 0.1), "adam_learning_rate": ({"name": "muon"}, 0.01),
    "muon_steps": ({"name": "muon"}, 2), "decay_rules": ({"weight_decay": 0.1}, ((".*", 1.0),)),
    "learning_rate_rules": ({}, ((".*", 0.5),)), "layer_decay": ({}, 0.5),
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(OptimizerConfig)])
def test_every_field_counts(field):
    others, value = PERTURBED[field]
    base = {"name": "adamw", "learning_rate": 0.1, "schedule": "constant"} | others
    results = [trained(make_config(optimizer=optimizer, training={"num_steps": 5}), make_params(), make_gradients(5))[0]
               for optimizer in (base, base | {field: value})]
    assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, results)))


@pytest.mark.parametrize("case", [("momentum", "muon"), ("nesterov", "muon"), ("nesterov", "adamw"),
                                  ("nesterov", "adabelief"), ("beta1", "adamw"), ("beta2", "adabelief"),
                                  ("epsilon", "adabelief"), ("epsilon", "muon"), ("beta2", "lion")])
def test_a_field_counts_for_each_name_it_is_for(case):
    field, name = case
    value = {"momentum": 0.5, "nesterov": True, "beta1": 0.5, "beta2": 0.5, "epsilon": 0.1}[field]
    base = {"name": name, "learning_rate": 0.1} | ({"momentum": 0.9} if (field, name) == ("nesterov", "muon") else {})
    results = [trained(make_config(optimizer=optimizer), make_params(), make_gradients(3))[0]
               for optimizer in (base, base | {field: value})]
    assert any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, results)))
