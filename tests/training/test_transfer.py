"""Starting from another run's parameters, and what then moves."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from tiny import make_batch, make_config

from purelm.config import AdapterConfig, TaskConfig
from purelm.errors import UserError
from purelm.training import load
from purelm.training.optimizer import layer_factors, learning_rate_multipliers
from purelm.training.parallel import make_engine
from purelm.training.state import params_shapes
from purelm.training.transfer import parameters_of_run, start_state


def pretend(monkeypatch, params):
    """A run whose parameters are these."""
    monkeypatch.setattr(load, "load_run", lambda workdir, field: types.SimpleNamespace(params=params))


def config_from(**sections):
    return dataclasses.replace(make_config(**sections), init_from="runs/before")


@pytest.fixture(scope="module")
def before():
    engine = make_engine(make_config(seed=5))
    return engine.gather(engine.init(5)).params


def test_what_has_the_same_name_and_shape_is_taken(monkeypatch, before):
    """Reddens when a parameter is left as drawn, or when the average is not that of what was taken."""
    pretend(monkeypatch, before)
    config = config_from(training={"ema_decay": 0.5})
    engine = make_engine(config)
    state, lines = start_state(config, engine, None)
    host = engine.gather(state)
    jax.tree.map(np.testing.assert_array_equal, host.params, before)
    jax.tree.map(np.testing.assert_array_equal, host.ema, before)
    count = len(jax.tree.leaves(before))
    assert lines == [f"runs/before: {count} of {count} parameters taken by name"]


def test_a_larger_vocabulary_takes_the_rows_that_both_have(monkeypatch, before):
    fewer = {**before, "embedding": {"embedding": before["embedding"]["embedding"][:20]}}
    pretend(monkeypatch, fewer)
    config = config_from()
    engine = make_engine(config)
    drawn = engine.gather(engine.init(config.seed)).params["embedding"]["embedding"]
    params, lines = parameters_of_run(config, engine.gather(engine.init(config.seed)).params)
    np.testing.assert_array_equal(params["embedding"]["embedding"][:20], fewer["embedding"]["embedding"])
    np.testing.assert_array_equal(params["embedding"]["embedding"][20:], drawn[20:])
    assert "20 of 32 rows" in lines[0]


def test_of_a_table_of_another_width_nothing_is_taken(monkeypatch, before):
    """Reddens when a part of each vector is taken for the rows that both have."""
    pretend(monkeypatch, {"embedding": {"embedding": before["embedding"]["embedding"][:, :8]}})
    config = config_from()
    engine = make_engine(config)
    with pytest.raises(UserError, match=r"embedding/embedding \(\[32, 8\] there, \[32, 16\] here\)"):
        parameters_of_run(config, engine.gather(engine.init(0)).params)


def test_what_was_not_matched_is_said(monkeypatch, before):
    other = {name: subtree for name, subtree in before.items() if name != "final_norm"}
    other["classifier"] = {"kernel": np.ones((2, 2))}
    other["layers"] = jax.tree.map(lambda leaf: leaf[:, :8] if leaf.ndim == 3 else leaf, before["layers"])
    pretend(monkeypatch, other)
    config = config_from()
    engine = make_engine(config)
    _, lines = parameters_of_run(config, engine.gather(engine.init(0)).params)
    text = "\n".join(lines)
    assert "drawn at random: final_norm/" in text and "left out: classifier/kernel" in text
    assert "layers/attention/query/kernel ([2, 8, 16] there, [2, 16, 16] here)" in text


def test_a_run_that_fits_nowhere_is_refused(monkeypatch):
    pretend(monkeypatch, {"other": np.ones(3)})
    config = config_from()
    engine = make_engine(config)
    with pytest.raises(UserError, match="no parameter of that run has the name and shape"):
        parameters_of_run(config, engine.gather(engine.init(0)).params)


def adapted(**adapter):
    fields = {"rank": 2, "trained": "^final_norm/"} | adapter
    return dataclasses.replace(make_config(), adapter=AdapterConfig(**fields))


def test_with_adapters_only_they_and_what_is_named_move():
    """Reddens when a frozen parameter moves, when an adapter does not, or when the loss ignores the adapters."""
    config = adapted()
    engine = make_engine(config)
    state = engine.init(0)
    before, losses = engine.gather(state).params, []
    for _ in range(4):
        state, sums = engine.train_step(state, make_batch(0))
        losses.append(float(sums["loss"]))
    after = engine.gather(state).params
    multipliers = learning_rate_multipliers(config, before)

    def check(path, old, new, multiplier):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        trained = name.startswith(("adapters/", "final_norm/"))
        assert bool(multiplier) == trained, name
        assert trained == bool((old != new).any()), name

    jax.tree_util.tree_map_with_path(check, before, after, multipliers)
    assert losses[-1] < losses[0]


def test_with_adapters_a_task_s_own_output_layer_moves():
    """Reddens when an output layer drawn at random is frozen as it is."""
    adapter = AdapterConfig(rank=2)
    params = {"classifier": {"kernel": np.ones(2)}, "span": {"kernel": np.ones(2)}, "layers": {"kernel": np.ones(2)}}
    config = dataclasses.replace(make_config(), adapter=adapter)
    assert learning_rate_multipliers(config, params) == {
        "classifier": {"kernel": 1.0}, "span": {"kernel": 1.0}, "layers": {"kernel": 0.0}}


def test_layer_decay_is_a_factor_for_each_layer_further_from_the_output():
    config = make_config(optimizer={"layer_decay": 0.5})
    factors = layer_factors(config, params_shapes(config))
    assert factors["layers"]["attention"]["query"]["kernel"].reshape(-1).tolist() == [0.25, 0.5]
    assert factors["embedding"]["embedding"] == 0.125 and factors["final_norm"]["scale"] == 1.0
    projections = layer_factors(config, {name: {"kernel": np.ones((2, 2))}
                                         for name in ("embedding_projection", "head_projection")})
    assert projections == {"embedding_projection": {"kernel": 0.125}, "head_projection": {"kernel": 1.0}}


def test_layer_decay_of_an_encoder_lies_below_the_decoder():
    config = make_config(optimizer={"layer_decay": 0.5})
    config = dataclasses.replace(
        config, task=TaskConfig(name="sequence_to_sequence"),
        model=dataclasses.replace(config.model, architecture="encoder_decoder", encoder_layers=1))
    factors = layer_factors(config, params_shapes(config))
    assert factors["layers"]["attention"]["query"]["kernel"].reshape(-1).tolist() == [0.25, 0.5]
    assert factors["encoder"]["layers"]["attention"]["query"]["kernel"].reshape(-1).tolist() == [0.125]
    assert factors["embedding"]["embedding"] == 0.5**4
