"""Scores of classes against scikit-learn on cases made by hand, and predictions of a small model."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.evaluation import classification
from purelm.evaluation.baselines import classification as baselines
from purelm.tasks import classification as task

LABELS = ("a", "b", "c", "d", "e", "f")


def fake_run(labels=("cat", "dog"), **changes):
    return types.SimpleNamespace(labels=labels, **changes)


def answer(label, probability):
    return {"label": label, "probability": probability, "probabilities": {label: probability}}


@pytest.fixture(scope="module")
def run():
    """A bidirectional LSTM with attention over bytes, with random parameters."""
    config = Config(
        model=ModelConfig(architecture="recurrent", bidirectional=True, pooling="attention", context_length=16,
                          num_layers=1, width=8, vocabulary_size=257, num_classes=len(LABELS)),
        data=DataConfig(), task=TaskConfig(name="classification"), training=TrainingConfig(num_steps=1))
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    return fake_run(LABELS, config=config, params=params, tokenizer=ByteTokenizer(True))


def test_scores_are_those_of_scikit_learn_by_hand():
    # By hand: 2 of 3 cats, 1 of 1 dogs; Reddens where rows and columns are exchanged, or averages are.
    right = [{"label": label} for label in ("cat", "cat", "cat", "dog")]
    answers = [answer("cat", 0.9), answer("cat", 0.8), answer("dog", 0.6), answer("dog", 0.7)]
    found = classification.score(fake_run(), right, answers)
    assert found["accuracy"] == found["majority_accuracy"] == 0.75
    assert found["confusion_matrix"] == [[2, 1], [0, 1]] and found["labels"] == ["cat", "dog"]
    assert found["per_class"]["cat"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8),
                                         "support": 3}
    assert found["macro"]["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["weighted"]["f1"] == pytest.approx((3 * 0.8 + 2 / 3) / 4)


def test_calibration_error_by_hand():
    # Bins of 1/15: two answers at 0.95 of which one is right; one at exactly 2/15, which its upper edge belongs to.
    confidence, hit = np.array([0.95, 0.95, 2 / 15]), np.array([True, False, False])
    assert classification.expected_calibration_error(confidence, hit) == pytest.approx((2 * 0.45 + 2 / 15) / 3)
    assert [count for count, _, _ in classification.calibration_bins(confidence, hit)] == [0, 1, *[0] * 12, 2]
    assert classification.expected_calibration_error(np.ones(4), np.ones(4, bool)) == 0


def test_predictions_come_back_in_order_whatever_the_batch(run):
    texts = ["x", "a text with more characters than fit", "good", "", "another"]
    examples = [classification.example_of_text(run.config, text) for text in texts]
    lines = []
    together = classification.predict(run, examples, batch_size=2, progress=lines.append)
    alone = [classification.predict(run, [example], batch_size=1)[0] for example in examples]
    for one, other in zip(together, alone):
        assert one["label"] == other["label"] and one["probability"] == max(one["probabilities"].values())
        np.testing.assert_allclose(one["probability"], other["probability"], rtol=1e-4)
        assert len(one["probabilities"]) == 5 and one["label"] == next(iter(one["probabilities"]))
    assert len({prediction["probability"] for prediction in together}) == len(texts) and lines[-1].endswith("5 of 5")


def test_the_program_is_kept(run, monkeypatch):
    # Reddens where each call compiles one of its own, which a server answers by.
    examples = [classification.example_of_text(run.config, "abc")]
    found = classification.predict(run, examples, batch_size=1)
    monkeypatch.delattr(task, "logits_of")
    assert classification.predict(run, examples, batch_size=1) == found


def test_attention_weights_by_name(run):
    example = classification.example_of_text(run.config, "abc")
    [prediction] = classification.predict(run, [example], batch_size=1, explain=True)
    tokens, weights = zip(*prediction["pooling_weights"])
    assert tokens == ("<|endoftext|>", "a", "b", "c") and sum(weights) == pytest.approx(1, abs=1e-5)
    assert "pooling_weights" not in classification.predict(run, [example], batch_size=1)[0]


def test_classes_beyond_the_labels_are_never_answered(run):
    few = fake_run(LABELS[:2], config=run.config, params=run.params, tokenizer=run.tokenizer)
    [prediction] = classification.predict(few, [classification.example_of_text(run.config, "a")], batch_size=1)
    assert sum(prediction["probabilities"].values()) == pytest.approx(1) and len(prediction["probabilities"]) == 2


def test_a_pair_is_written_with_a_tab(run):
    config = dataclasses.replace(run.config, data=DataConfig(text_pair_field="other"))
    example = classification.example_of_text(config, "a b\tc")
    assert (example["text"], example["pair"], example["label"]) == ("a b", "c", None)
    assert classification.input_format(config) == "labels"


@pytest.mark.parametrize("labels", [("a", "b"), tuple(f"class {number}" for number in range(77)), ("经济学", "历史学")],
                         ids=["2", "77", "chinese"])
def test_pictures_are_drawn(labels, tmp_path):
    random = np.random.default_rng(0)
    examples = [{"label": labels[number]} for number in random.integers(0, len(labels), 50)]
    answers = [answer(labels[number], 0.3) for number in random.integers(0, len(labels), 50)]
    paths = classification.pictures(fake_run(labels), examples, answers, tmp_path)
    assert [path.name for path in paths] == ["confusion_matrix.png", "calibration.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_baseline_learns_words_and_tells_chinese():
    def rows(*pairs):
        return [{"text": text, "pair": None, "label": label} for text, label in pairs]

    train = rows(*[("a good film", "pos"), ("a bad film", "neg")] * 5, ("good", "pos"))
    found = baselines.baseline({"train": train, "test": rows(("good", "pos"), ("bad bad", "neg"), ("bad", "neg"))},
                               None)
    assert found["accuracy"] == 1.0 and found["majority_accuracy"] == pytest.approx(1 / 3)
    assert found["analyzer"] == "word" and found["examples"] == 3
    chinese = rows(*[("好电影", "pos"), ("坏电影", "neg")] * 5)
    found = baselines.baseline({"train": chinese, "test": rows(("好", "pos"), ("坏", "neg"))}, None)
    assert found["accuracy"] == 1.0 and found["analyzer"] == "char"
