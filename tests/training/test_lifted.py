"""Every lifted number: one program over cells that differ in it gives what each cell's own program gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import AdapterConfig, Config, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig, finalize
from purelm.config.schema import WordVectorsConfig
from purelm.tasks import task_of
from purelm.training.lifted import LIFTED, lifted_values, program_key, with_values
from purelm.training.parallel import make_engine, together

STEPS, VOCABULARY = 6, 24
MODEL = {"context_length": 8, "num_layers": 1, "width": 8, "num_heads": 2, "initialization_stddev": 0.3}
WORDS = {"architecture": "word_vectors", "num_layers": 4, "num_heads": 4, "initialization_stddev": 0.02}
NO_BIAS = {"bias": False}  # The keys' has no gradient but rounding, which signs make a direction of.
RULES = (("embedding", 0.5), (".*", 1.0))


def config_of(*, model=None, optimizer=None, training=None, **sections) -> Config:
    optimizer = {"name": "sgd", "learning_rate": 0.1, "schedule": "constant"} | (optimizer or {})
    return Config(model=ModelConfig(**MODEL | (model or {})), optimizer=OptimizerConfig(**optimizer),
                  training=TrainingConfig(**{"num_steps": STEPS, "batch_size": 4} | (training or {})), **sections)


def done(config: Config) -> Config:
    return finalize(config, vocabulary_size=VOCABULARY, tokens_per_epoch=1000, num_classes=3)


# A config, and for each number that it is told to have another value: the other value.
CASES = {
    "adamw, cosine": (
        config_of(model={"positions": "rope", "embedding_dropout": 0.1, "attention_dropout": 0.1, "logits_softcap": 9.0,
                         "residual_dropout": 0.1, "feed_forward_dropout": 0.1, "attention_scale": 0.5},
                  optimizer={"name": "adamw", "learning_rate": 0.01, "schedule": "cosine", "final_fraction": 0.1,
                             "epsilon": 1e-3, "weight_decay": 0.3, "clip_norm": 0.1, "layer_decay": 0.9,
                             "learning_rate_rules": RULES, "warmup": "3"},
                  training={"label_smoothing": 0.1, "z_loss": 0.01, "ema_decay": 0.9}),
        {"seed": 7, "model.rope_base": 100.0, "model.norm_epsilon": 0.01, "model.attention_scale": 2.0,
         "model.logits_softcap": 0.3, "model.initialization_stddev": 0.2, "model.embedding_dropout": 0.3,
         "model.attention_dropout": 0.4, "model.residual_dropout": 0.2, "model.feed_forward_dropout": 0.5,
         "optimizer.learning_rate": 0.02, "optimizer.final_fraction": 0.7, "optimizer.beta1": 0.7,
         "optimizer.beta2": 0.95, "optimizer.epsilon": 1e-2, "optimizer.weight_decay": 0.05,
         "optimizer.clip_norm": 0.02, "optimizer.layer_decay": 0.5, "optimizer.decay_rules.0": 0.2,
         "optimizer.learning_rate_rules.0": 0.1, "training.label_smoothing": 0.3, "training.z_loss": 0.1,
         "training.ema_decay": 0.5}),
    "sgd, linear, momentum": (
        config_of(model={"norm": "rms_norm", "qk_norm": True, "logits_softcap": 5.0},
                  optimizer={"momentum": 0.5, "schedule": "linear", "nesterov": True, "final_fraction": 0.5},
                  training={"loss_chunk": 10, "accumulation_steps": 2}),
        {"optimizer.momentum": 0.9, "optimizer.learning_rate": 0.3, "optimizer.final_fraction": 0.1,
         "model.norm_epsilon": 0.1, "model.logits_softcap": 0.4}),
    "muon, wsd": (
        config_of(model=NO_BIAS, optimizer={"name": "muon", "learning_rate": 0.02, "schedule": "wsd", "decay": "50%",
                             "adam_learning_rate": 0.01, "final_fraction": 0.2}),
        {"optimizer.momentum": 0.5, "optimizer.learning_rate": 0.04, "optimizer.adam_learning_rate": 0.03,
         "optimizer.final_fraction": 0.9, "optimizer.beta1": 0.5}),
    "lion, inverse_sqrt": (
        config_of(model=NO_BIAS, optimizer={"name": "lion", "learning_rate": 1e-3, "schedule": "inverse_sqrt",
                                            "warmup": "2", "final_fraction": 0.1}),
        {"optimizer.beta1": 0.2, "optimizer.beta2": 0.5, "optimizer.learning_rate": 2e-3,
         "optimizer.final_fraction": 0.9}),
    "adabelief": (
        config_of(optimizer={"name": "adabelief", "learning_rate": 0.01, "epsilon": 1e-3}),
        {"optimizer.epsilon": 1e-2, "optimizer.beta2": 0.9, "optimizer.beta1": 0.5}),
    "recurrent classifier": (
        config_of(task=TaskConfig(name="classification"), optimizer={"learning_rate": 1.0},
                  model={"architecture": "recurrent", "recurrent_dropout": 0.2, "classifier_dropout": 0.2,
                         "embedding_dropout": 0.1, "residual_dropout": 0.1, "num_heads": 4}),
        {"model.recurrent_dropout": 0.5, "model.classifier_dropout": 0.5, "model.embedding_dropout": 0.4,
         "model.residual_dropout": 0.4}),
    "adapter": (
        config_of(adapter=AdapterConfig(rank=2), optimizer={"learning_rate": 20.0}), {"adapter.alpha": 64.0}),
    "glove": (
        config_of(model=WORDS,
                  task=TaskConfig(name="word_vectors"), word_vectors=WordVectorsConfig(method="glove")),
        {"word_vectors.glove_maximum": 10.0, "word_vectors.glove_power": 0.5}),
}


def batches(config: Config) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)

    def fill(name, leaf):
        if name == "weights" or name == "segments":
            return np.ones(leaf.shape, leaf.dtype)
        if name == "positions":
            return np.tile(np.arange(leaf.shape[1], dtype=leaf.dtype), (leaf.shape[0], 1))
        return random.integers(0, 3 if name == "labels" else VOCABULARY, leaf.shape).astype(leaf.dtype)

    shapes = task_of(config).batch_shapes(config, config.training.batch_size)
    return [{name: fill(name, leaf) for name, leaf in shapes.items()} for _ in range(STEPS)]


def trained_alone(config: Config, data) -> tuple[object, list]:
    engine, history = make_engine(config, jax.devices()[:1]), []
    state = engine.init(config.seed)
    for batch in data:
        state, sums = engine.train_step(state, batch)
        history.append(sums)
    return engine.gather(state), jax.device_get(history)


@pytest.fixture
def vmapped(monkeypatch):
    """As on an accelerator: on CPU cells would take turns, whose tracers know less."""
    monkeypatch.setattr(together, "over_cells", lambda function, platform: jax.vmap(function))


@pytest.mark.parametrize("name", CASES)
def test_cells_together_are_the_runs_alone(name, vmapped):
    """Reddens where a number is not lifted: its cell would be as the first, or the last not as its own run."""
    base, changes = CASES[name]
    configs = [base, *(with_values(base, {path: value}) for path, value in changes.items()), with_values(base, changes)]
    assert len({program_key(config) for config in configs}) == 1
    configs = [done(config) for config in configs]
    assert set(lifted_values(configs)) == {"seed", *changes}
    data = batches(configs[0])
    engine = together.SpreadEngine(configs, jax.devices()[:1])
    states = engine.init()
    for batch in data:
        states, sums = engine.train_step(states, [batch] * len(configs))
    states, sums = engine.gather(states), jax.device_get(sums)
    for number in (0, len(configs) - 1):
        alone, history = trained_alone(configs[number], data)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), states[number], alone)
        np.testing.assert_allclose(sums["loss"][number], history[-1]["loss"], rtol=1e-5)
    first = jax.tree.leaves((states[0].params, states[0].ema))
    for path, state in zip(changes, states[1:]):
        moved = max(np.max(np.abs(a - b)) for a, b in zip(jax.tree.leaves((state.params, state.ema)), first))
        assert moved > 3e-5, path


def test_every_lifted_number_is_in_the_table():
    tested = {path.rpartition(".")[0] if path.rpartition(".")[2].isdecimal() else path for _, changes in CASES.values()
              for path in changes}
    assert tested == set(LIFTED)


def test_what_is_not_in_the_program_shares_it_and_what_is_does_not():
    base = config_of()
    key = program_key(base)
    sgd = dataclasses.replace(base.optimizer, learning_rate=3.0, momentum=0.0)  # What none means for sgd.
    assert program_key(dataclasses.replace(base, seed=3, init_from="runs/a", optimizer=sgd)) == key
    others = [config_of(optimizer={"momentum": 0.5}), config_of(optimizer={"weight_decay": 0.1}),
              config_of(optimizer={"clip_norm": 1.0}), config_of(training={"label_smoothing": 0.1}),
              config_of(training={"ema_decay": 0.9}), config_of(training={"num_steps": STEPS + 1}),
              config_of(optimizer={"warmup": "3"}), config_of(model={"width": 16}),
              config_of(model={"residual_dropout": 0.1}), config_of(optimizer={"learning_rate_rules": RULES}),
              config_of(optimizer={"learning_rate_rules": (("norm", 0.0), (".*", 1.0))})]
    assert len({key, *map(program_key, others)}) == len(others) + 1


def test_word_vectors_by_sgd_and_other_peoples_losses_go_alone():
    words = config_of(model=WORDS,
                      task=TaskConfig(name="word_vectors"))
    assert program_key(words) != program_key(dataclasses.replace(words, seed=1))
    own = config_of(task=TaskConfig(name="my.task"), training={"z_loss": 0.1})
    assert program_key(own) == program_key(with_values(own, {"seed": 5, "optimizer.learning_rate": 9.0}))
    assert program_key(own) != program_key(with_values(own, {"training.z_loss": 0.2}))


def test_no_value_of_a_number_is_in_the_program():
    """Reddens where Python reads a number that it should trace: two values would be two programs."""
    config = done(CASES["adamw, cosine"][0])
    changes = CASES["adamw, cosine"][1]
    engines = [together.TurnsEngine([config, with_values(config, {path: scale * value for path, value in
                                                                  changes.items() if path != "seed"})],
                                    jax.devices()[:1]) for scale in (1, 0.9)]
    texts = [str(jax.make_jaxpr(engine._step_one)(
        engine.shapes(), engine._full_batch(), {path: jnp.asarray(value[1]) for path, value in engine.values.items()}))
        for engine in engines]
    assert texts[0] == texts[1]
