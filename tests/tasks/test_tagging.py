"""Words, their subwords and their tags; the loss on the first token of each word."""

import collections

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer, train_tokenizer
from purelm.data.tokenizers.words import WordTokenizer
from purelm.errors import UserError
from purelm.tasks import tagging

TAGS = ("B-place", "I-place", "O")


def make_config(training=None, **model):
    model = {"context_length": 24, "num_layers": 1, "width": 16, "num_heads": 2, "vocabulary_size": 257,
             "num_classes": len(TAGS), "architecture": "encoder"} | model
    return Config(model=ModelConfig(**model), data=DataConfig(), task=TaskConfig(name="tagging"),
                  training=TrainingConfig(num_steps=4, batch_size=3, **(training or {})))


def example(words, tags):
    return {"where": "train.jsonl, line 2", "tokens": words, "tags": tags}


TWO = (example(["New", "York", "is"], ["B-place", "I-place", "O"]), example(["no"], ["O"]))


def encode(config, *examples, tokenizer=None):
    counts = collections.Counter()
    rows = tagging.encode(config, tokenizer or ByteTokenizer(True), TAGS, examples, counts)
    return [row[0] for row in rows], counts


def make_batch(config, length=24, padding_rows=0):
    records, _ = encode(config, *TWO)
    return tagging.collate(config, [*records, *[None] * padding_rows], length)


def test_tags_stand_on_the_first_token_of_each_word():
    # Reddens where a word's space is missing, or the end of text is not counted in.
    records, counts = encode(make_config(), *TWO)
    assert records[0]["tokens"].tolist() == [256, *b"New York is"]
    assert records[0]["words"].tolist() == [-1, 0, -1, -1, 1, -1, -1, -1, -1, 2, -1, -1]
    assert records[0]["labels"].tolist() == [-1, 0, -1, -1, 1, -1, -1, -1, -1, 2, -1, -1]
    batch = make_batch(make_config())
    assert batch["weights"].sum() == 4 and batch["weights"][0, 4] == 1 and batch["labels"][0, 4] == 1
    assert not any(counts.values())


def test_words_are_encoded_as_they_are_in_a_text():
    tokenizer = train_tokenizer("bpe", ["New York is far from Boston. " * 20], 300, end_of_text=True)
    words = ["New", "York", "is", "Boston"]
    records, _ = encode(make_config(), example(words, ["O"] * 4), tokenizer=tokenizer)
    assert records[0]["tokens"].tolist() == [tokenizer.end_of_text_id, *tokenizer.encode(" ".join(words))]
    firsts = np.flatnonzero(records[0]["words"] >= 0)
    assert [tokenizer.decode(records[0]["tokens"][first:first + 1])[:2] for first in firsts][1:] == [" Y", " i", " B"]


def test_words_beyond_the_context_and_words_without_a_token_are_counted():
    records, counts = encode(make_config(context_length=6), example(["ab", "", "cd", "ef", "gh"], ["O"] * 5))
    # The empty word is a space here; "cd" begins at the context's last place but one; "ef" and "gh" have none.
    assert records[0]["words"].tolist() == [-1, 0, -1, 1, 2, -1] and len(records[0]["tokens"]) == 6
    assert counts["words beyond the context"] == 2
    words = WordTokenizer.train(["ab cd"], 10, end_of_text=True)
    records, counts = encode(make_config(), example(["ab", " ", "cd"], ["O"] * 3), tokenizer=words)
    assert records[0]["words"].tolist() == [-1, 0, 2] and counts["words without a token"] == 1


def test_tags_that_are_unknown_or_not_given():
    with pytest.raises(UserError, match=r"^train.jsonl, line 2: tag 'B-plac' is none of .*did you mean 'B-place'\?$"):
        encode(make_config(), example(["x"], ["B-plac"]))
    records, _ = encode(make_config(), example(["x", "y"], None))
    assert records[0]["words"].max() == 1 and tagging.collate(make_config(), records, 8)["weights"].sum() == 0


@pytest.mark.parametrize("model", [{"token_types": 2}, {"architecture": "recurrent", "bidirectional": True}], ids=str)
def test_gradients_padding_and_shapes(model):
    config = make_config(**model)
    params = tagging.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    run = jax.jit(jax.value_and_grad(lambda params, batch: (
        lambda sums: (sums["loss"], sums))(tagging.loss_sums(config, params, batch, None)), has_aux=True))
    (_, whole), gradients = run(params, make_batch(config))
    (_, padded), _ = run(params, make_batch(config, length=14, padding_rows=1))
    for name, value in whole.items():
        np.testing.assert_allclose(padded[name], value, rtol=1e-5, err_msg=name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    batch = make_batch(config)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in tagging.batch_shapes(config, 2).items()}


def test_loss_against_pytorch():
    torch = pytest.importorskip("torch")
    config = make_config({"label_smoothing": 0.2})
    params = jax.tree.map(lambda leaf: 8 * leaf, tagging.initialize(config, jax.random.key(0)))
    batch = make_batch(config)
    logits = np.array(tagging.logits_of(config, params, batch)).reshape(-1, len(TAGS))
    right = torch.tensor(np.where(batch["weights"] > 0, batch["labels"], -100).reshape(-1)).long()
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), right, label_smoothing=0.2, reduction="sum")
    found = tagging.loss_sums(config, params, batch, None)
    np.testing.assert_allclose(found["loss"], expected.item(), rtol=1e-5)
    assert found["weight"] == 4
