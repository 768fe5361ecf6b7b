"""Spans: T5's counts, nothing lost between what is read and what is written; prefixes."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from streams import byte_stream

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.errors import UserError
from purelm.tasks import language_modeling
from purelm.tasks import span_corruption as task
from purelm.tasks.noised_windows import NoisedWindows
from purelm.tasks.prefix_windows import with_prefixes

END = 256


def make_config(architecture="encoder_decoder", context_length=40, **model):
    model = {"num_layers": 1, "width": 16, "num_heads": 2, "prefix_attention": architecture == "decoder"} | model
    config = Config(model=ModelConfig(architecture=architecture, context_length=context_length, **model),
                    task=TaskConfig(name="span_corruption"), data=DataConfig(),
                    training=TrainingConfig(num_steps=2, batch_size=8))
    return dataclasses.replace(config, model=dataclasses.replace(
        config.model, vocabulary_size=257 + task.sizes(config).spans))


def noised(config):
    return NoisedWindows(byte_stream(), task.corrupted, num_specials=task.sizes(config).spans, purpose=12,
                         window_length=lambda config: task.sizes(config).window)


def joined(source, target):
    """The window that was cut: each sentinel of the source gives way to what follows it in the target."""
    spans, current = {}, None
    for token in target:
        if token > END:
            current = spans.setdefault(int(token), [])
        elif current is not None:
            current.append(token)
    return [token for entry in source for token in (spans[int(entry)] if entry > END else [entry])]


def test_sizes_are_those_of_t5():
    # T5's own numbers for 512 tokens read: windows of 568, 114 written, 85 tokens cut out in 28 spans.
    assert task.sizes(make_config(context_length=512)) == (568, 85, 28, 512, 114)
    assert task.sizes_of_window(10, 0.15, 3.0) == (10, 2, 1, 10, 4)
    decoder = task.sizes(make_config("decoder", 128))
    assert 126 <= decoder.source + decoder.target - 1 <= 128


def test_a_context_with_no_room_is_refused():
    with pytest.raises(UserError, match="too short"):
        task.sizes(Config(model=ModelConfig(context_length=2)))


@pytest.mark.parametrize("mean_span_length", [1.0, 3.0])
def test_what_is_read_and_written_gives_the_window_back(mean_span_length):
    # Reddens where a sentinel is missing, out of order, or a token is lost or doubled.
    config = make_config()
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, mean_span_length=mean_span_length))
    data, found = noised(config), task.sizes(config)
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, context_length=found.window))
    plain = list(itertools.islice(data.inner.training_batches(plain, start_step=0), 3))
    for batch, before in zip(itertools.islice(data.training_batches(config, start_step=0), 3), plain, strict=True):
        assert batch["source"].shape == (8, found.source) and batch["targets"].shape == (8, found.target)
        assert (batch["source"][:, -1] == END).all() and (batch["targets"][:, -1] == END).all()
        assert (batch["tokens"][:, 0] == END).all() and (batch["tokens"][:, 1:] == batch["targets"][:, :-1]).all()
        assert batch["weights"].all() and batch["source_segments"].all()
        for row in range(8):
            source, target = batch["source"][row, :-1], batch["targets"][row, :-1]
            np.testing.assert_array_equal(joined(source, target), before["tokens"][row])
            sentinels = END + 1 + np.arange(found.spans)
            np.testing.assert_array_equal(source[source > END], sentinels)
            np.testing.assert_array_equal(target[target > END], sentinels)


def test_evaluation_covers_the_text_once_and_pads_nothing_that_counts():
    config = make_config()
    data, found = noised(config), task.sizes(config)
    batches = list(data.evaluation_batches("validation", config, batch_size=8))
    again = list(data.evaluation_batches("validation", dataclasses.replace(config, seed=3), batch_size=8))
    text = []
    for batch, same in zip(batches, again, strict=True):
        np.testing.assert_array_equal(batch["source"], same["source"])
        for row in range(8):
            source = batch["source"][row][batch["source_segments"][row] == 1]
            target = batch["targets"][row][batch["weights"][row] == 1]
            if len(target):
                assert source[-1] == target[-1] == END
                text += joined(source[:-1], target[:-1])
    tokens = data.inner.splits["validation"].tokens[:-1]
    np.testing.assert_array_equal(text, tokens)
    assert found.window * (len(batches) * 8) >= len(tokens)


def test_lengths_of_spans_are_drawn_uniformly():
    # Two spans of 4 tokens: (1, 3), (2, 2), (3, 1) equally often, of 3,000 rows, within four standard errors.
    random = np.random.default_rng(0)
    lengths = task._division(random.random((3000, 3)), 2)
    assert (lengths.sum(1) == 4).all() and lengths.min() == 1
    assert np.abs(np.bincount(lengths[:, 0], minlength=4)[1:] / 3000 - 1 / 3).max() < 0.035


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_batches_have_the_announced_shapes_and_a_loss(architecture):
    config = make_config(architecture)
    batch = next(noised(config).training_batches(config, start_step=0))
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in task.batch_shapes(config, 8).items()}
    params = task.initialize(config, jax.random.key(0))
    sums = jax.jit(lambda params: task.loss_sums(config, params, batch, None))(params)
    assert sums["weight"] == 8 * task.sizes(config).target
    np.testing.assert_allclose(sums["loss"] / sums["weight"], np.log(config.model.vocabulary_size), rtol=0.02)


def test_a_decoder_reads_the_source_as_its_prefix_and_writes_the_rest():
    config = make_config("decoder")
    batch = next(noised(config).training_batches(config, start_step=0))
    found = task.sizes(config)
    for row in range(8):
        prefix = batch["prefix"][row].sum()
        assert prefix == found.source and batch["tokens"][row, prefix - 1] == END
        predicted = batch["targets"][row][batch["weights"][row] == 1]
        assert len(predicted) == found.target and predicted[0] == END + 1 and predicted[-1] == END
        np.testing.assert_array_equal(np.flatnonzero(batch["weights"][row])[0], prefix - 1)


def test_prefixes_leave_the_rest_to_be_predicted():
    # Reddens where the first token after the prefix, or a token of the prefix, has the wrong weight.
    config = make_config("decoder", 32)
    data = with_prefixes(byte_stream())
    sizes = []
    for batch in itertools.islice(data.training_batches(config, start_step=0), 20):
        for prefix, weights in zip(batch["prefix"], batch["weights"], strict=True):
            size = prefix.sum()
            assert prefix[:size].all() and weights[:size - 1].sum() == 0 and weights[size - 1:].all()
            sizes.append(size)
    assert min(sizes) == 1 and max(sizes) == 31 and data.vocabulary_size == 257


def test_a_language_model_with_prefixes_sees_them_both_ways():
    # Reddens where the loss does not hand the prefix to the model, or counts targets inside it.
    # Two layers: the second reads what the first made of the prefix.
    config = dataclasses.replace(make_config("decoder", 32, num_layers=2), task=TaskConfig())
    batch = next(with_prefixes(byte_stream()).training_batches(config, start_step=0))
    params = language_modeling.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: 5 * leaf, params)
    sums = language_modeling.loss_sums(config, params, batch, None)
    causal = language_modeling.loss_sums(config, params, batch | {"prefix": 0 * batch["prefix"]}, None)
    assert sums["weight"] == batch["weights"].sum() < 8 * 32 and sums["loss"] != causal["loss"]
    assert {name: value.shape for name, value in batch.items()} == {
        name: shape.shape for name, shape in language_modeling.batch_shapes(config, 8).items()}
