"""The best legal span, over all windows, for every question; the sliding window without a network."""

import types

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.errors import UserError
from purelm.evaluation import extractive_qa
from purelm.evaluation.baselines import extractive_qa as baselines
from purelm.tasks import extractive_qa as task

PARAGRAPH = "Ada was born in London. Charles Babbage built the engine in 1837, and 🗼 stands. " * 2
EXAMPLES = [{"where": f"line {i}", "id": str(i), "context": PARAGRAPH[:size], "question": question,
             "answers": [{"text": "London", "start": 16}]}
            for i, (size, question) in enumerate([(24, "Where was Ada born?"), (160, "Who built it?"), (3, "Q?"),
                                                  (90, "When?")])]


def log_softmax(values):
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def test_best_span_is_that_of_all_legal_spans():
    # Against a search of all pairs. Reddens where an end comes before its start, or a span is too long by one.
    random = np.random.default_rng(0)
    log_B2T = log_softmax(random.normal(size=(20, 2, 12)) * 3)
    paragraphs = [(int(first), int(first + random.integers(1, 12 - first + 1))) for first in random.integers(1, 11, 20)]
    for longest in (1, 3, 20):
        found = extractive_qa.best_spans(log_B2T, paragraphs, longest)
        for row, span in enumerate(found):
            first, last = paragraphs[row]
            legal = {(i, j): log_B2T[row, 0, i] + log_B2T[row, 1, j] for i in range(first, last)
                     for j in range(i, min(i + longest, last))}
            assert (span.start, span.end) == max(legal, key=legal.get)
            assert span.score == pytest.approx(max(legal.values()))
            assert span.total == pytest.approx(np.log(np.exp(list(legal.values())).sum()))


@pytest.fixture(scope="module")
def run():
    config = Config(
        model=ModelConfig(architecture="encoder", context_length=64, num_layers=1, width=8, num_heads=2,
                          vocabulary_size=257, token_types=3),
        task=TaskConfig(name="extractive_qa", window_overlap=10, longest_answer=12), data=DataConfig(),
        training=TrainingConfig(num_steps=1, batch_size=3))
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + jax.random.normal(jax.random.key(1), leaf.shape), params)
    return types.SimpleNamespace(config=config, params=params, tokenizer=ByteTokenizer(True), labels=None)


def test_every_question_gets_a_span_of_its_paragraph(run):
    # Reddens where windows are mixed up, answers are in another order, or offsets are those of the window.
    found = extractive_qa.predict(run, EXAMPLES, batch_size=3)
    assert [row["id"] for row in found] == ["0", "1", "2", "3"]
    for row, example in zip(found, EXAMPLES, strict=True):
        assert example["context"][row["start"]:row["end"]] == row["answer"] and 0 < row["probability"] <= 1
        assert len(row["answer"].encode()) <= 12 + 6
    again = extractive_qa.predict(run, EXAMPLES[::-1], batch_size=16)[::-1]
    for one, other in zip(found, again, strict=True):
        assert one["answer"] == other["answer"] and one["probability"] == pytest.approx(other["probability"], rel=1e-3)


def test_the_program_is_kept(run, monkeypatch):
    # Reddens where each call compiles one of its own, which a server answers by.
    found = extractive_qa.predict(run, EXAMPLES, batch_size=3)
    monkeypatch.delattr(task, "logits_of")
    assert extractive_qa.predict(run, EXAMPLES, batch_size=3) == found


def test_one_token_of_text_has_all_the_probability(run):
    one = [{**EXAMPLES[0], "context": "x"}]
    assert extractive_qa.predict(run, one, batch_size=2)[0] == {
        "id": "0", "answer": "x", "probability": pytest.approx(1.0), "start": 0, "end": 1}


def test_a_span_is_found_in_a_later_window(run, monkeypatch):
    # A model whose answers start with "C" and end with "s", wherever they are. Reddens where a window's first token is
    # not added to its places.
    def logits_of(config, params, batch, key=None):
        return jax.numpy.stack([9.0 * (batch["tokens"] == ord(letter)) for letter in "Cs"], 1)

    monkeypatch.setattr(task, "logits_of", logits_of)
    monkeypatch.setattr(extractive_qa, "_program", extractive_qa._program.__wrapped__)  # Not kept for other tests.
    context = "x" * 100 + "Charles" + "y" * 40
    found = extractive_qa.predict(run, [{**EXAMPLES[0], "context": context}], batch_size=2)[0]
    assert found["answer"] == "Charles" and found["start"] == 100 and found["probability"] > 0.9


def test_scores_cover_every_question(run):
    predictions = [{"answer": text} for text in ("london", "engine", "", "the London")]
    found = extractive_qa.score(run, EXAMPLES, predictions)
    assert found == {"exact_match": 50.0, "f1": 50.0, "rules": "squad", "questions": 4}


def test_a_text_is_a_question_and_a_paragraph(run):
    example = extractive_qa.example_of_text(run.config, "Who? ||| Ada.")
    assert (example["question"], example["context"]) == ("Who?", "Ada.")
    assert extractive_qa.predict(run, [example], batch_size=1)[0]["answer"]
    with pytest.raises(UserError, match="paragraph"):
        extractive_qa.example_of_text(run.config, "Who is it?")


def test_sliding_window_takes_a_run_of_words_from_the_sentence_that_is_asked_about():
    # Reddens where the question's own words are the answer, or another sentence is taken.
    context = "Ada Lovelace was born in London. Charles Babbage designed the engine. It was made of brass."
    answer, sentence = baselines.answer_of("Who designed the engine?", context)
    assert answer == "Charles Babbage" and sentence == "Charles Babbage designed the engine."
    found = baselines.baseline({"test": [{"question": "Who designed the engine?", "context": context,
                                          "answers": [{"text": "Charles Babbage", "start": 33}]}]}, None)
    assert found["exact_match"] == 100.0 and found["questions"] == 1 and found["whole_sentence"]["exact_match"] == 0


def test_sliding_window_in_chinese_and_without_candidates():
    answer, sentence = baselines.answer_of("铁塔位于哪里？", "铁塔位于巴黎。它很高。")
    assert sentence == "铁塔位于巴黎。" and answer == "巴黎"
    assert baselines.answer_of("the?", "the")[0] == "the"
