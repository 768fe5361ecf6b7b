"""The pure step, and the engine of one device."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_batch, make_config

from purelm.tasks import language_modeling
from purelm.training import step
from purelm.training.parallel import make_engine
from purelm.training.state import Purpose, random_key

SMALL = {"num_layers": 1, "num_heads": 2}


def engine_for(**options):
    options["model"] = SMALL | options.get("model", {})
    return make_engine(make_config(**options), jax.devices()[:1])


def run(engine, state, numbers):
    history = []
    for number in numbers:
        state, sums = engine.train_step(state, make_batch(number))
        history.append(sums)
    return state, jax.device_get(history)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Together they cover every schedule.
PAIRS = [("sgd", "constant", 0.5), ("adam", "linear", 0.01), ("adamw", "cosine", 0.01), ("adabelief", "wsd", 0.01),
         ("adafactor", "inverse_sqrt", 0.05), ("lion", "cosine", 0.003), ("muon", "linear", 0.02)]


@pytest.mark.parametrize("name, schedule, rate", PAIRS)
def test_every_optimizer_and_schedule_learns(name, schedule, rate):
    engine = engine_for(optimizer={"name": name, "schedule": schedule, "learning_rate": rate, "warmup": "2",
                                   "clip_norm": 1.0})
    state, history = run(engine, engine.init(0), [0] * 20)  # one batch, to be learned by heart
    assert state.step == 20 and state.step.dtype == jnp.int32
    losses = [sums["cross_entropy"] / sums["weight"] for sums in history]
    assert losses[-1] < losses[0] - 0.1, losses


@pytest.mark.parametrize("count", [2, 8])
def test_micro_batches_equal_one_batch(count):
    # Their weights differ: reddens for a mean of means (rows of one micro-batch weigh up to ten times another's).
    whole, parts = (engine_for(training={"accumulation_steps": steps}, optimizer={"clip_norm": 0.5})
                    for steps in (1, count))
    assert parts.evaluation_rows == whole.evaluation_rows // count
    (one, sums), (many, sums_many) = (run(engine, engine.init(0), range(3)) for engine in (whole, parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), (one, sums), (many, sums_many))


def test_gradient_is_of_the_sums_quotient():
    # By a finite difference along the update itself: loss falls by rate * |gradient|^2, of the mean over all weights.
    engine = engine_for(optimizer={"learning_rate": 1e-3})
    before, batch = engine.init(0), make_batch()
    start = engine.evaluate_step(before, batch)
    after, sums = engine.train_step(before, batch)
    end = engine.evaluate_step(after, batch)
    fallen = (start["loss"] - end["loss"]) / start["weight"]
    np.testing.assert_allclose(fallen, 1e-3 * sums["gradient_norm"] ** 2, rtol=0.02)


def test_evaluation_sums_are_trainings():
    engine = engine_for(training={"label_smoothing": 0.1, "z_loss": 0.01})
    state, batch = engine.init(0), make_batch()
    evaluated = jax.device_get(engine.evaluate_step(state, batch))
    from_params = jax.device_get(engine.evaluate_step(state.params, batch))
    _, sums = engine.train_step(state, batch)
    assert set(evaluated) == set(language_modeling.SUMS)
    for name in evaluated:
        np.testing.assert_allclose(evaluated[name], sums[name], rtol=1e-6)
        assert evaluated[name] == from_params[name]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_skipped(poison):
    engine = engine_for(optimizer={"name": "adamw"}, training={"ema_decay": 0.9})
    state, _ = run(engine, engine.init(0), [0])
    good = jax.device_get(state)
    batch = make_batch()
    batch["weights"][3, 5] = poison
    state, sums = engine.train_step(state, batch)
    assert sums["finite"] == 0
    same(jax.device_get(state), good)
    state, history = run(engine, state, [1])
    assert history[0]["finite"] == 1 and state.step == 2


def test_a_batch_without_targets_is_no_error():
    engine = engine_for()
    state = engine.init(0)
    before = jax.device_get(state.params)
    state, sums = engine.train_step(state, make_batch() | {"weights": np.zeros((16, 8), np.float32)})
    assert sums["finite"] == 1 and sums["weight"] == 0
    same(jax.device_get(state.params), before)


def test_average_of_parameters():
    engine = engine_for(training={"ema_decay": 0.75})
    state = engine.init(0)
    expected = jax.device_get(state.params)
    for number in range(3):
        state, _ = engine.train_step(state, make_batch(number))
        expected = jax.tree.map(lambda average, leaf: 0.75 * average + 0.25 * np.asarray(leaf), expected, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema, expected)
    losses = [engine.evaluate_step(which, make_batch())["loss"] for which in (state, state.ema, state.params)]
    assert losses[0] == losses[1] != losses[2]  # the average is what is evaluated


def test_frozen_parameters_of_the_model():
    frozen = {"name": "adamw", "weight_decay": 0.1, "learning_rate_rules": (("^embedding|norm", 0.0), (".*", 1.0))}
    engine = engine_for(optimizer=frozen)
    state = engine.init(0)
    before = jax.device_get(state.params)
    state, history = run(engine, state, range(3))
    after = jax.device_get(state.params)
    same(before["embedding"], after["embedding"])
    same(before["layers"]["attention_norm"], after["layers"]["attention_norm"])
    assert (before["layers"]["feed_forward"]["up"]["kernel"] != after["layers"]["feed_forward"]["up"]["kernel"]).any()
    unfrozen = engine_for(optimizer={"name": "adamw"})
    _, whole = run(unfrozen, unfrozen.init(0), range(1))
    assert history[0]["gradient_norm"] < whole[0]["gradient_norm"]  # the norm is of what is trained


def test_going_on_from_the_host_is_bit_exact_with_dropout():
    # Reddens where randomness is a state, or where placing changes what is compiled.
    engine = engine_for(model={"residual_dropout": 0.3}, optimizer={"name": "adamw"},
                        training={"accumulation_steps": 2})
    through, _ = run(engine, engine.init(3), range(4))
    half, _ = run(engine, engine.init(3), range(2))
    kept = engine.gather(half)
    copy = jax.tree.map(np.copy, kept)
    ended, _ = run(engine, engine.place(kept), range(2, 4))
    same(engine.gather(through), engine.gather(ended))
    same(kept, copy)  # nothing wrote into the host's memory


def test_keys_differ_by_purpose_step_seed_and_micro_batch(monkeypatch):
    keys = [random_key(seed, purpose, number) for seed in (0, 1) for purpose in Purpose for number in (0, 1)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)

    def drawn(config, params, batch, key):
        value = jax.random.uniform(key)
        return {"loss": params["x"], "cross_entropy": value, "weight": 1.0, "correct": value**2}

    monkeypatch.setattr(language_modeling, "loss_sums", drawn)
    config = make_config(training={"accumulation_steps": 2})
    _, sums = step.gradient_sums(config, {"x": jnp.ones(())}, {"tokens": jnp.zeros((4, 1))}, keys[0])
    # 2 (u^2 + v^2) = (u + v)^2 only where u = v.
    assert abs(2 * sums["correct"] - sums["cross_entropy"] ** 2) > 1e-5


def test_bfloat16_parameters_keep_float32_optimizer_state():
    engine = engine_for(model={"param_dtype": "bfloat16", "compute_dtype": "bfloat16"},
                        optimizer={"name": "adamw", "learning_rate": 0.01}, training={"ema_decay": 0.9})
    state, history = run(engine, engine.init(0), [0] * 15)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.opt_state, state.ema))} == {"float32", "int32"}
    assert history[-1]["loss"] < history[0]["loss"]


def test_compiles_once_and_says_nothing():
    # Warnings are errors: a donated buffer that is not used would warn.
    engine = engine_for(optimizer={"name": "adamw"}, training={"ema_decay": 0.9, "accumulation_steps": 2})
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state, _ = engine.train_step(engine.init(0), make_batch(0))
        jax.block_until_ready(engine.evaluate_step(state, make_batch(0)))
        state = engine.place(engine.gather(state))
        assert any("compile" in event for event in events)
        events.clear()
        for number in range(1, 4):
            state, _ = engine.train_step(state, make_batch(number))
        engine.evaluate_step(state, make_batch(0))
        state = engine.place(engine.gather(state))
        state, _ = engine.train_step(state, make_batch(4))
    assert [event for event in events if "compile" in event or "trace" in event] == []


def test_state_is_donated():
    engine = engine_for()
    state = engine.init(0)
    after, _ = engine.train_step(state, make_batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params)) and not after.step.is_deleted()


def test_costs_are_known_before_a_step():
    compiled = engine_for().lower_train_step().compile()
    assert compiled.cost_analysis()["flops"] > 0 and compiled.memory_analysis().temp_size_in_bytes > 0
