"""What a pair becomes, and its loss."""

import collections
import dataclasses
import json

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.errors import UserError
from purelm.models import make_model
from purelm.tasks import sequence_to_sequence as task

END = 256


def make_config(model=None, training=None, data=None, max_new_tokens=8):
    fields = {"architecture": "encoder_decoder", "context_length": 16, "num_layers": 1, "width": 16, "num_heads": 2,
              "vocabulary_size": 257} | (model or {})
    return Config(
        model=ModelConfig(**fields), task=TaskConfig(name="sequence_to_sequence"), data=DataConfig(**(data or {})),
        decoding=DecodingConfig(max_new_tokens=max_new_tokens),
        training=TrainingConfig(num_steps=4, batch_size=3, **(training or {})))


def records(config, *pairs, counts=None):
    examples = [{"where": "here", "source": source, "targets": targets} for source, targets in pairs]
    return task.encode(config, ByteTokenizer(True), None, examples, collections.Counter() if counts is None else counts)


def ids(text):
    return [*text.encode()]


def test_both_sides_of_an_encoder_decoder():
    config = make_config()
    (record,), = records(config, ("abc", ["xy"]))
    batch = task.collate(config, [record, None], 8)
    assert batch["source"][0].tolist() == [*ids("abc"), END, 0, 0, 0, 0]
    assert batch["source_segments"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["tokens"][0].tolist() == [END, *ids("xy"), 0, 0, 0, 0, 0]
    assert batch["targets"][0].tolist() == [*ids("xy"), END, 0, 0, 0, 0, 0]
    assert batch["weights"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [0] * 8]
    assert task.record_length(config, record) == 4
    shapes = {name: leaf.shape for name, leaf in task.batch_shapes(config, 5).items()}
    assert shapes["source"] == (5, 16) and shapes["tokens"] == (5, 8)


def test_the_one_row_of_a_decoder():
    config = make_config({"architecture": "decoder", "prefix_attention": True})
    (record,), = records(config, ("abc", ["xy"]))
    batch = task.collate(config, [record, None], 8)
    assert batch["tokens"][0].tolist() == [*ids("abc"), END, *ids("xy"), 0, 0]
    assert batch["targets"][0].tolist() == [*ids("bc"), END, *ids("xy"), END, 0, 0]
    assert batch["weights"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0] * 8]
    assert batch["prefix"][0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert task.record_length(config, record) == 6
    plain = make_config({"architecture": "decoder"})
    assert "prefix" not in task.collate(plain, [record], 8)


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_what_has_no_room_is_cut_and_counted(architecture):
    config, counts = make_config({"architecture": architecture}), collections.Counter()
    (first,), (second, third) = records(config, ("s" * 40, ["t" * 40]), ("a", ["b", "c", "b"]), counts=counts)
    sources, targets = task.rooms(config)
    assert len(first["source"]) == sources - 1 and len(first["target"]) == targets
    assert END not in first["target"]  # a cut target has not ended
    assert (second["target"].tolist(), third["target"].tolist()) == ([*ids("b"), END], [*ids("c"), END])
    assert sorted(counts.values()) == [1, 1]
    assert task.record_length(config, first) <= config.model.context_length
    task.collate(config, [first], config.model.context_length)


def test_other_formats_are_read_as_pairs():
    config = make_config(data={"format": "squad", "prompt": "answer: "})
    example = {"where": "here", "id": "1", "context": "It rains.", "question": "What?",
               "answers": [{"text": "rain", "start": 3}]}
    pair = task.pair_of(config, example)
    assert pair["source"] == "answer: question: What? context: It rains." and pair["targets"] == ["rain"]


def test_end_of_text_is_needed():
    with pytest.raises(UserError, match="end_of_text=true"):
        task.encode_sources(make_config(), ByteTokenizer(False), ["a"])


PAIRS = (("abcd", ["xyz"]), ("e", ["w", "vwx"]), ("fg hi", ["z"]))
MODELS = [{}, {"architecture": "decoder"}, {"architecture": "decoder", "prefix_attention": True}]


def make_batch(config, length=16):
    return task.collate(config, [record for row in records(config, *PAIRS) for record in row], length)


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), a, b)


def gradient(config, params, batch):
    def loss(params):
        sums = task.loss_sums(config, params, batch, None)
        return sums["loss"], sums

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.fixture(scope="module", params=MODELS, ids=["encoder_decoder", "decoder", "prefix"])
def made(request):
    """(config, params, jitted sums of a batch)."""
    config = make_config(request.param)
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    return config, params, jax.jit(lambda batch: task.loss_sums(config, params, batch, None))


def test_padding_changes_nothing(made):
    # Reddens where padding of the source is attended to, or padding of the target counts.
    config, _, sums = made
    long = make_batch(config)
    close(sums(make_batch(config, 12)), sums(long))
    close(sums({name: np.concatenate([leaf, task.collate(config, [None, None], 16)[name]])
                for name, leaf in long.items()}), sums(long))
    if "source" in long:
        close(sums(long | {"source": np.where(long["source_segments"] == 0, 77, long["source"])}), sums(long))


def test_the_source_is_read(made):
    # Reddens where the decoder does not see the encoder, or the prompt is cut off.
    config, _, sums = made
    batch = make_batch(config)
    name = "source" if "source" in batch else "tokens"
    changed = batch[name].copy()
    changed[:, 0] += 1
    assert abs(float(sums(batch)["loss"]) - float(sums(batch | {name: changed})["loss"])) > 1e-4


def test_loss_is_that_of_torch():
    # Reddens for a target one step off, smoothing over another vocabulary, or a mean taken too early.
    torch = pytest.importorskip("torch")
    config = make_config(training={"label_smoothing": 0.1})
    params, batch = task.initialize(config, jax.random.key(0)), make_batch(config)
    params = jax.tree.map(lambda leaf: 5 * leaf, params)
    model = make_model(config.model)
    encoded = model.apply({"params": params}, batch["source"], source_segments_BS=batch["source_segments"],
                          method="encode")
    logits_BTV = np.asarray(model.apply({"params": params}, batch["tokens"], encoded=encoded).logits_BTV)
    targets_BT = np.where(batch["weights"] > 0, batch["targets"], -100)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits_BTV).flatten(0, 1), torch.tensor(targets_BT).flatten().long(), label_smoothing=0.1,
        reduction="sum")
    sums = task.loss_sums(config, params, batch, None)
    np.testing.assert_allclose(sums["loss"], expected.item(), rtol=1e-5)
    assert sums["weight"] == (targets_BT >= 0).sum() == sum(len(t) + 1 for _, texts in PAIRS for t in texts)


@pytest.mark.parametrize("model", [MODELS[1], {"head_bias": True, "tied_embeddings": False}])
def test_chunked_loss_equals_whole(model):
    training = {"label_smoothing": 0.1, "z_loss": 0.01}
    config = make_config(model, training)
    params, batch = task.initialize(config, jax.random.key(0)), make_batch(config)
    params = jax.tree.map(lambda leaf: 3 * leaf + 0.1 * (leaf.ndim == 1), params)
    close(gradient(config, params, batch),
          gradient(make_config(model, training | {"loss_chunk": 100}), params, batch), rtol=1e-4)


def test_dropout_differs_on_the_two_sides():
    # Reddens where encoder and decoder are given the same key, or none.
    config = make_config({"embedding_dropout": 0.5})
    params, batch = task.initialize(config, jax.random.key(0)), make_batch(config)
    still, one, two = (float(task.loss_sums(config, params, batch, key)["loss"])
                       for key in (None, jax.random.key(1), jax.random.key(2)))
    assert len({still, one, two}) == 3
    same = dataclasses.replace(config, model=dataclasses.replace(config.model, embedding_dropout=0.0))
    assert float(task.loss_sums(same, params, batch, jax.random.key(1))["loss"]) == pytest.approx(still, rel=1e-6)


def test_prepared_from_files(tmp_path):
    rows = [{"en": f"number {n}", "de": f"Nummer {n}"} for n in range(20)]
    for name, part in (("train", rows[:14]), ("validation", rows[14:17]), ("test", rows[17:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    config = make_config({"context_length": 32}, data={"path": str(tmp_path), "tokenizer": "bytes",
                                                       "cache_dir": str(tmp_path / "cache")}, max_new_tokens=32)
    prepared = task.prepare(config)
    assert prepared.vocabulary_size == 257 and prepared.splits["train"].num_records == 14
    batch = next(iter(prepared.training_batches(config, start_step=0)))
    assert {name: leaf.dtype for name, leaf in batch.items()} == {
        name: shape.dtype for name, shape in task.batch_shapes(config, 3).items()}
    assert batch["source"].shape[0] == 3 and batch["weights"].sum() > 0
