"""Records and batches of labeled texts, and their loss against NumPy and PyTorch."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.errors import UserError
from purelm.tasks import classification

CLASSES, LENGTH = 3, 16
ARCHITECTURES = {"encoder": {"architecture": "encoder", "token_types": 2, "pooling": "first"},
                 "decoder": {"pooling": "last"},
                 "recurrent": {"architecture": "recurrent", "bidirectional": True, "pooling": "attention"}}


def make_config(training=None, task=None, data=None, **model):
    model = {"context_length": LENGTH, "num_layers": 1, "width": 16, "num_heads": 2, "vocabulary_size": 257,
             "num_classes": CLASSES} | model
    return Config(model=ModelConfig(**model), data=DataConfig(**(data or {})),
                  task=TaskConfig(name="classification", **(task or {})),
                  training=TrainingConfig(num_steps=4, batch_size=3, **(training or {})))


def example(text, label="b", pair=None):
    return {"where": "train.jsonl, line 7", "text": text, "pair": pair, "label": label}


def encode(config, *examples):
    counts = collections.Counter()
    rows = classification.encode(config, ByteTokenizer(True), ("a", "b", "c"), examples, counts)
    return [row[0] for row in rows], counts


TWO = (example("good", "a"), example("a longer one", "c"))


def make_batch(config, length=LENGTH, rows=(*TWO, None)):
    records, _ = encode(config, *(row for row in rows if row is not None))
    return classification.collate(config, [*records, *(None for row in rows if row is None)], length)


def sums(config, params, batch):
    return jax.jit(lambda params: classification.loss_sums(config, params, batch, None))(params)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request):
    """(config, random parameters) of each kind of model."""
    config = make_config(**ARCHITECTURES[request.param])
    params = classification.initialize(config, jax.random.key(0))
    return config, jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params)


@pytest.mark.parametrize("how, kept", [("head", "abcde"), ("tail", "hijkl"), ("both", "abckl")])
def test_a_long_text_is_cut_as_the_config_says_and_counted(how, kept):
    config = make_config(data={"truncation": how}, context_length=6)
    records, counts = encode(config, example("abcdefghijkl"), example("short"))
    assert bytes(records[0]["text"].tolist()).decode() == kept and len(records[1]["text"]) == 5
    assert counts["texts cut to the context"] == 1


def test_a_pair_shares_the_context_and_has_types():
    # Reddens where a short text does not leave its room to the other, or the separator is of the wrong type.
    config = make_config(data={"text_pair_field": "other"}, context_length=10, token_types=2)
    records, _ = encode(config, example("ab", pair="cdefghijkl"), example("abcdefgh", pair="xyzuvw"))
    batch = classification.collate(config, records, 10)
    assert batch["tokens"][0].tolist() == [256, *b"ab", 256, *b"cdefgh"]
    assert batch["token_types"][0].tolist() == [0] * 3 + [1] * 7
    assert batch["tokens"][1].tolist() == [256, *b"abcd", 256, *b"xyzu"]
    assert classification.length(records[0]) == 10


def test_labels_that_are_unknown_or_not_given():
    config = make_config()
    with pytest.raises(UserError, match=r"^train.jsonl, line 7: label 'bb' is none of .*did you mean 'b'\?$"):
        encode(config, example("x", "bb"))
    records, _ = encode(config, example("x", None))
    assert classification.collate(config, records, 8)["weights"].tolist() == [0.0]
    with pytest.raises(UserError, match="end_of_text"):
        classification.encode(config, ByteTokenizer(False), ("a",), [example("x", "a")], collections.Counter())


def test_batch_shapes_are_those_of_collate(trained):
    config, _ = trained
    batch, shapes = make_batch(config), classification.batch_shapes(config, 3)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in shapes.items()}


def test_every_parameter_has_a_gradient(trained):
    config, params = trained
    gradients = jax.jit(jax.grad(lambda params: classification.loss_sums(config, params, make_batch(config), None)[
        "loss"]))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_padding_counts_for_nothing(trained):
    # Reddens where a padding row has weight, or pooling or a recurrent network reads padding tokens.
    config, params = trained
    whole = sums(config, params, make_batch(config))
    for other in (make_batch(config, rows=TWO),
                  make_batch(config, length=13)):
        for name, value in sums(config, params, other).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-5, err_msg=name)
    assert whole["weight"] == 2


@pytest.mark.parametrize("smoothing, z_loss", [(0.0, 0.0), (0.3, 0.1)])
def test_losses_against_pytorch_and_numpy(smoothing, z_loss):
    torch = pytest.importorskip("torch")
    training = {"label_smoothing": smoothing, "z_loss": z_loss}
    config = make_config(training)
    params = jax.tree.map(lambda leaf: 8 * leaf, classification.initialize(config, jax.random.key(0)))
    batch = make_batch(config, rows=TWO)
    logits = np.array(classification.logits_of(config, params, batch)[0])
    found = sums(config, params, batch)
    squares = z_loss * np.square(np.log(np.exp(logits).sum(-1))).sum()
    right = torch.tensor([0, 2])
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), right, label_smoothing=smoothing,
                                                 reduction="sum").item()
    np.testing.assert_allclose(found["loss"], expected + squares, rtol=1e-5)
    np.testing.assert_allclose(found["cross_entropy"], torch.nn.functional.cross_entropy(
        torch.tensor(logits), right, reduction="sum").item(), rtol=1e-5)
    assert found["correct"] == (logits.argmax(-1) == right.numpy()).sum()

    brier = sums(make_config(training, {"loss": "squared_error"}), params, batch)
    target = (1 - smoothing) * np.eye(CLASSES)[[0, 2]] + smoothing / CLASSES
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(brier["loss"], np.square(probability - target).sum() + squares, rtol=1e-5)
    assert brier["cross_entropy"] == found["cross_entropy"]


def test_initial_values_of_the_model_do_not_depend_on_the_head():
    config = make_config()
    params = classification.initialize(config, jax.random.key(0))
    other = classification.initialize(dataclasses.replace(
        config, model=dataclasses.replace(config.model, num_classes=9)), jax.random.key(0))
    assert params.pop("classifier")["output"]["kernel"].shape == (16, 3)
    assert other.pop("classifier")["output"]["kernel"].shape == (16, 9)
    jax.tree.map(np.testing.assert_array_equal, params, other)


def test_dropout_of_the_head_needs_a_key():
    config = make_config(classifier_dropout=0.5)
    params, batch = classification.initialize(config, jax.random.key(0)), make_batch(config)
    run = jax.jit(lambda key: classification.loss_sums(config, params, batch, key)["loss"])
    still = classification.loss_sums(config, params, batch, None)["loss"]
    assert len({float(still), float(run(jax.random.key(1))), float(run(jax.random.key(2)))}) == 3
