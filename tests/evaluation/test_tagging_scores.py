"""Entities and their scores against seqeval and by hand, and predictions of a small model."""

import types

import jax
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.evaluation import tagging
from purelm.evaluation.baselines import tagging as baselines
from purelm.tasks import tagging as task

TAGS = ("B-person", "B-place", "I-place", "O")


@pytest.fixture(scope="module")
def run():
    config = Config(
        model=ModelConfig(architecture="encoder", context_length=16, num_layers=1, width=16, num_heads=2,
                          vocabulary_size=257, num_classes=len(TAGS)),
        data=DataConfig(), task=TaskConfig(name="tagging"), training=TrainingConfig(num_steps=1))
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    return types.SimpleNamespace(config=config, params=params, tokenizer=ByteTokenizer(True), labels=TAGS)


def test_scores_by_hand_and_by_seqeval():
    # Two right entities; answered: one of them whole, one cut short. Reddens where words are scored, not entities.
    right = [["B-place", "I-place", "O", "B-person"]]
    answered = [["B-place", "O", "O", "B-person"]]
    found = tagging.entity_scores(right, answered)
    assert (found["precision"], found["recall"], found["f1"], found["accuracy"]) == (0.5, 0.5, 0.5, 0.75)
    assert found["per_type"]["person"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert found["per_type"]["place"]["f1"] == 0 and found["macro"]["f1"] == 0.5
    from seqeval.metrics import f1_score

    assert found["f1"] == f1_score(right, answered)


def test_an_inside_tag_that_nothing_opened_opens_an_entity():
    # conlleval's reading; the strict one finds nothing here.
    assert tagging.entity_scores([["O", "B-place"]], [["O", "I-place"]])["f1"] == 1.0
    assert tagging.entity_scores([["O", "B-place"]], [["O", "O"]])["f1"] == 0.0


def test_entities_are_named_by_their_words():
    found = tagging.entities_of(["in", "New", "York", "Ann"], ["O", "B-place", "I-place", "B-person"])
    assert found == [{"type": "place", "text": "New York", "start": 1, "end": 3},
                     {"type": "person", "text": "Ann", "start": 3, "end": 4}]
    assert tagging.entities_of(["Ann", "runs"], ["NOUN", "LABEL_1"]) == []  # Tags that spell none.


@pytest.mark.parametrize("text, words", [
    ("Ann isn't in New-York, @bob!", ["Ann", "isn", "'t", "in", "New", "-", "York", ",", "@bob", "!"]),
    ("我在北京 ok", ["我", "在", "北", "京", "ok"]), ("", [])])
def test_text_is_parted_at_space_and_punctuation(text, words):
    assert tagging.example_of_text(None, text)["tokens"] == words


def test_a_tag_for_every_word_in_the_order_of_the_examples(run):
    """Words that the context has no room for are "O" with probability 0."""
    texts = ["a b", "one two three four five six", "c", ""]
    examples = [tagging.example_of_text(run.config, text) for text in texts]
    together = tagging.predict(run, examples, batch_size=3)
    for example, prediction in zip(examples, together):
        assert prediction["tokens"] == example["tokens"]
        assert len(prediction["tags"]) == len(prediction["probabilities"]) == len(example["tokens"])
        [alone] = tagging.predict(run, [example], batch_size=1)
        assert alone["tags"] == prediction["tags"] and set(alone["tags"]) <= set(TAGS)
        assert alone["probabilities"] == pytest.approx(prediction["probabilities"], rel=1e-4)
    assert together[1]["tags"][-2:] == ["O", "O"] and together[1]["probabilities"][-2:] == [0.0, 0.0]
    assert all(together[1]["probabilities"][:3])
    right = [{"tags": ["O"] * len(example["tokens"])} for example in examples]
    assert set(tagging.score(run, right, together)) == {"precision", "recall", "f1", "macro", "accuracy", "per_type"}


def test_baseline_remembers_words():
    def row(words, tags):
        return {"tokens": words.split(), "tags": tags.split()}

    train = [row("Paris is", "B-place O"), row("Paris Paris", "B-place B-person")]
    found = baselines.baseline({"train": train, "test": [row("is Paris Rome", "O B-place B-place")]}, None)
    assert found["precision"] == 1.0 and found["recall"] == 0.5
