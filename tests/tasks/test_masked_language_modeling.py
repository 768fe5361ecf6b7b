"""Masks: how many, of what kind, the same ones again; the loss at them."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from streams import byte_stream

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.tasks import masked_language_modeling as task
from purelm.tasks.noised_windows import NoisedWindows

END, MASK = 256, 257


def make_config(**training):
    model = ModelConfig(architecture="encoder", vocabulary_size=258, context_length=32, num_layers=1, width=16,
                        num_heads=2)
    return Config(model=model, task=TaskConfig(name="masked_language_modeling"), data=DataConfig(),
                  training=TrainingConfig(**{"num_steps": 2, "batch_size": 8} | training))


@pytest.fixture(scope="module")
def data():
    return NoisedWindows(byte_stream(), task.masked, num_specials=1, purpose=11,
                         window_length=lambda config: config.model.context_length)


def training_batches(data, config, count, **arguments):
    return list(itertools.islice(data.training_batches(config, **{"start_step": 0} | arguments), count))


def test_every_row_has_its_count_of_distinct_hidden_places(data):
    # Reddens where a place is chosen twice, an end of text is, or a target is not the token that was there.
    config = make_config()
    plain = list(itertools.islice(data.inner.training_batches(config, start_step=0), 5))
    for batch, before in zip(training_batches(data, config, 5), plain, strict=True):
        assert batch["masked_positions"].shape == (8, 5) == (8, task.num_masked(config))
        for row in range(8):
            places = batch["masked_positions"][row]
            text = (before["tokens"][row] != END).sum()
            assert batch["weights"][row].sum() == round(0.15 * text) == len(set(places[batch["weights"][row] == 1]))
            np.testing.assert_array_equal(before["tokens"][row, places], batch["targets"][row])
            assert (batch["targets"][row] != END).all()
            elsewhere = np.setdiff1d(np.arange(32), places)
            np.testing.assert_array_equal(batch["tokens"][row, elsewhere], before["tokens"][row, elsewhere])


def test_eight_of_ten_become_the_mask_one_another_token_one_stays(data):
    # Four standard errors of a proportion over 4,000 places. Reddens where the two thresholds are wrong.
    batches = training_batches(data, make_config(batch_size=100), 10)
    now = np.concatenate([np.take_along_axis(b["tokens"], b["masked_positions"], 1)[b["weights"] == 1]
                          for b in batches])
    before = np.concatenate([b["targets"][b["weights"] == 1] for b in batches])
    assert abs((now == MASK).mean() - 0.8) < 0.026 and abs((now == before).mean() - 0.1 - 0.1 / 256) < 0.02
    other = now[(now != MASK) & (now != before)]
    assert len(np.unique(other)) > 100 and other.max() < 256


def test_padding_is_not_hidden(data):
    # 1,000 targets are 31 windows and 8 tokens of another: reddens where padding may be chosen.
    config = make_config()
    batches = list(data.evaluation_batches("validation", config, batch_size=8))
    weights = np.concatenate([batch["weights"].sum(1) for batch in batches])
    assert len(weights) == 32 and 1 <= weights[31] <= 2 and weights[:31].min() >= 4
    last = batches[3]
    assert (last["tokens"][7, 8:] == 0).all() and (last["masked_positions"][7][last["weights"][7] == 1] < 8).all()


def test_evaluation_hides_the_same_whatever_the_batch_the_seed_and_the_processes(data):
    config = make_config()
    other = dataclasses.replace(config, seed=5)
    whole = list(data.evaluation_batches("validation", config, batch_size=8))
    shards = [list(data.evaluation_batches("validation", other, batch_size=16, process_index=index, process_count=2))
              for index in range(2)]
    for name in whole[0]:
        mixed = np.concatenate([np.stack(pair, 1).reshape(16, -1) for pair in zip(
            *([batch[name] for batch in shard] for shard in shards), strict=True)])
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in whole]), mixed)


def test_training_goes_on_from_any_step_and_on_any_processes(data):
    # Reddens where the noise depends on when the iterator was made, or is drawn for local rows alone.
    config = make_config()
    third = training_batches(data, config, 3)[2]
    again = training_batches(data, config, 1, start_step=2)[0]
    parts = [training_batches(data, config, 1, start_step=2, process_index=index, process_count=2)[0]
             for index in range(2)]
    for name in third:
        np.testing.assert_array_equal(third[name], again[name])
        mixed = np.stack([part[name] for part in parts], 1).reshape(third[name].shape)
        np.testing.assert_array_equal(third[name], mixed)
    seeded = training_batches(data, dataclasses.replace(config, seed=1), 3)[2]
    assert (seeded["masked_positions"] != third["masked_positions"]).any()


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: 5 * leaf, task.initialize(make_config(), jax.random.key(0)))


def test_loss_is_pytorchs_cross_entropy_at_the_hidden_places(data, params):
    # Reddens where features are gathered from other places, or weights are not applied.
    torch = pytest.importorskip("torch")
    from purelm.models import make_model

    config = make_config()
    batch = list(data.evaluation_batches("validation", config, batch_size=8))[3]
    sums = task.loss_sums(config, params, batch, None)
    logits = make_model(config.model).apply({"params": params}, batch["tokens"], positions_BT=batch["positions"],
                                            segments_BT=batch["segments"]).logits_BTV
    rows, columns = np.nonzero(batch["weights"])
    at = np.asarray(logits)[rows, batch["masked_positions"][rows, columns]]
    expected = torch.nn.functional.cross_entropy(torch.tensor(at), torch.tensor(
        batch["targets"][rows, columns]).long(), reduction="sum")
    np.testing.assert_allclose(sums["cross_entropy"], expected, rtol=1e-5)
    assert sums["weight"] == len(rows) and sums["loss"] == sums["cross_entropy"]


@pytest.mark.parametrize("head", [{}, {"head_transform": True, "head_bias": True, "token_types": 2},
                                  {"tied_embeddings": False}])
def test_chunked_loss_equals_whole(data, head):
    # Reddens where the chunked path forgets the bias or the transform.
    config = make_config(loss_chunk=100)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **head))
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    batch = next(data.training_batches(config, start_step=0))
    whole = dataclasses.replace(config, training=dataclasses.replace(config.training, loss_chunk=None))
    sums = [task.loss_sums(c, params, batch, None) for c in (config, whole)]
    np.testing.assert_allclose(sums[0]["loss"], sums[1]["loss"], rtol=1e-5)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in task.batch_shapes(config, 8).items()}
