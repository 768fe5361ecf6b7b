"""Small models that have learned to write their source backwards, and what they answer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from purelm.config import Config, DataConfig, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers.special import around
from purelm.errors import UserError
from purelm.inference.sequence_to_sequence import answer
from purelm.tasks import sequence_to_sequence as task

SIGNS, END, LENGTH = 8, 8, 5
MODELS = {
    "encoder_decoder": {"architecture": "encoder_decoder", "context_length": 16},
    "decoder": {"architecture": "decoder", "context_length": 16},
    "recurrent": {"architecture": "recurrent_encoder_decoder", "context_length": 16, "bidirectional": True},
}
TRANSFORMER = {"num_layers": 1, "width": 32, "num_heads": 2, "positions": "learned", "norm": "rms_norm",
               "initialization": "lecun"}


def make_config(model, **decoding):
    own = {"num_layers": 1, "width": 32} if model["architecture"].startswith("recurrent") else TRANSFORMER
    model = {"vocabulary_size": 12} | own | model
    return Config(model=ModelConfig(**model), task=TaskConfig(name="sequence_to_sequence"), data=DataConfig(),
                  decoding=DecodingConfig(**({"max_new_tokens": 8} | decoding)),
                  training=TrainingConfig(num_steps=1, batch_size=64))


def make_sources(count, seed):
    random = np.random.default_rng(seed)
    return [random.integers(0, SIGNS, random.integers(1, LENGTH + 1)).astype(np.int32) for _ in range(count)]


def train(config, steps=250):
    params = task.initialize(config, jax.random.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    state = optimizer.init(params)
    sources = make_sources(64 * 20, 0)
    records = [{"source": ids, "target": np.append(ids[::-1], END).astype(np.int32), "end": END} for ids in sources]
    batches = [task.collate(config, records[start:start + 64], 16) for start in range(0, len(records), 64)]

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            sums = task.loss_sums(config, params, batch, None)
            return sums["loss"] / sums["weight"]

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for number in range(steps):
        params, state = step(params, state, batches[number % len(batches)])
    return params


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=pytest.mark.slow) if name == "recurrent" else name for name in MODELS])
def learned(request):
    config = make_config(MODELS[request.param])
    return request.param, config, train(config)


def ask(config, params, sources, batch_size=16):
    return answer(config, params, sources, batch_size=batch_size, special=around(END), vocabulary_size=9)


def test_what_was_learned_is_written(learned):
    # Reddens where prompts, ends or the order of answers are wrong.
    _, config, params = learned
    sources = make_sources(40, 1)
    answers = ask(config, params, sources)
    right = [found.ids_T.tolist() == ids[::-1].tolist() and found.finished for found, ids in zip(answers, sources)]
    assert np.mean(right) > 0.6  # by chance it would be 0.02


def test_log_probability_is_that_of_the_loss(learned):
    # Reddens where cached decoding and the training's forward pass differ, or the end is left out.
    _, config, params = learned
    sources = make_sources(6, 2)
    answers = ask(config, params, sources)
    records = [{"source": ids, "target": np.append(found.ids_T, END).astype(np.int32), "end": END}
               for found, ids in zip(answers, sources)]
    batch = task.collate(config, records, 16)
    loss = float(jax.jit(lambda params: task.loss_sums(config, params, batch, None)["cross_entropy"])(params))
    # The loss is over the model's 12 ids, of which three, never seen, are never drawn.
    assert sum(found.log_probability for found in answers) == pytest.approx(-loss, abs=0.05)


def test_an_answer_does_not_depend_on_its_batch(learned):
    _, config, params = learned
    sources = make_sources(7, 3)
    together, alone = ask(config, params, sources, batch_size=8), [ask(config, params, [ids], 8)[0] for ids in sources]
    for one, other in zip(together, alone):
        assert one.ids_T.tolist() == other.ids_T.tolist() and one.finished == other.finished
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)


def test_a_beam_finds_answers_at_least_as_likely(learned):
    name, config, params = learned
    sources, beam = make_sources(12, 4), make_config(MODELS[name], beam_size=4, length_penalty=0.0)
    greedy = ask(config, params, sources)
    for one, other in zip(greedy, ask(beam, params, sources)):
        assert other.log_probability >= one.log_probability - 1e-4


def test_the_best_of_a_beam(learned):
    # Reddens with: ranks and rows swapped, or log-probabilities of another hypothesis.
    name, _, params = learned
    sources = make_sources(5, 6)
    beam = make_config(MODELS[name], beam_size=4, num_best=3, length_penalty=0.0, beam_groups=2, diversity_penalty=0.5)
    for found in ask(beam, params, sources):
        assert len(found.best) == 3 and found.best[0].ids_T.tolist() == found.ids_T.tolist()
    plain = make_config(MODELS[name], beam_size=4, num_best=3, length_penalty=0.0)
    for found in ask(plain, params, sources):
        assert len({tuple(one.ids_T.tolist()) for one in found.best}) == 3
        chances = [one.log_probability for one in found.best if one.finished]
        assert chances == sorted(chances, reverse=True)


def test_answers_are_drawn_as_configured(learned):
    # Reddens where the sampler of config.decoding is not read, or a draw depends on its batch.
    name, config, params = learned
    sources = make_sources(9, 3)
    drawn = make_config(MODELS[name], temperature=3.0)
    one, other = (ask(drawn, params, sources, batch_size=size) for size in (9, 4))
    assert [found.ids_T.tolist() for found in one] == [found.ids_T.tolist() for found in other]
    greedy = ask(config, params, sources)
    assert [found.ids_T.tolist() for found in one] != [found.ids_T.tolist() for found in greedy]
    first = ask(make_config(MODELS[name], temperature=3.0, top_k=1), params, sources)
    assert [found.ids_T.tolist() for found in first] == [found.ids_T.tolist() for found in greedy]


def test_the_longest_answer_is_cut_and_said(learned):
    _, config, params = learned
    short = make_config(MODELS[learned[0]], max_new_tokens=2)
    found, = ask(short, params, [np.array([1, 2, 3, 4], np.int32)])
    assert not found.finished and len(found.ids_T) == 2


def test_damaged_parameters_are_told():
    config = make_config(MODELS["encoder_decoder"])
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, task.initialize(config, jax.random.key(0)))
    with pytest.raises(UserError, match="not finite"):
        ask(config, params, make_sources(2, 0))
