"""Texts with gaps, filled by masked language models and by span corruption."""

import math
import types

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer, train_tokenizer
from purelm.errors import UserError
from purelm.evaluation import marks, masked_language_modeling, span_corruption
from purelm.inference.sequence_to_sequence import Answer
from purelm.tasks import masked_language_modeling as masked_task
from purelm.tasks import span_corruption as span_task


def make_run(task, name, architecture, specials, context_length=24):
    config = Config(
        model=ModelConfig(architecture=architecture, context_length=context_length, num_layers=1, width=8, num_heads=2,
                          vocabulary_size=257 + specials),
        task=TaskConfig(name=name), data=DataConfig(), training=TrainingConfig(num_steps=1, batch_size=2))
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    return types.SimpleNamespace(config=config, params=params, tokenizer=ByteTokenizer(True), labels=None)


@pytest.fixture(scope="module")
def masked_run():
    return make_run(masked_task, "masked_language_modeling", "encoder", 1)


@pytest.fixture(scope="module")
def span_run():
    return make_run(span_task, "span_corruption", "encoder_decoder", 1)


def test_marks_take_the_space_before_them_only_where_tokens_have_it():
    assert marks.encode_marked(ByteTokenizer(True), "a [MASK]b[mask]", [300, 301]).tolist() == [97, 32, 300, 98, 301]
    bpe = train_tokenizer("bpe", ["a b"], 257, end_of_text=True)
    ids = marks.encode_marked(bpe, "a [MASK] b", [300]).tolist()
    assert bpe.decode([i for i in ids if i != 300]) == "a b" and ids[1] == 300


def test_gaps_are_filled_by_the_most_probable_tokens(masked_run):
    found = masked_language_modeling.predict(masked_run, [
        {"where": "1", "text": "ab[MASK]c[MASK]"}, {"where": "2", "text": "[MASK]"}], batch_size=2)
    assert len(found[0]["fills"]) == 2 and len(found[1]["fills"]) == 1
    for row in found:
        tops = [fill[0] for fill in row["fills"]]
        assert row["probability"] == pytest.approx(math.prod(probability for _, probability in tops))
        assert all(sorted(fill, key=lambda pair: -pair[1]) == fill and len(fill) == 5 for fill in row["fills"])


def test_pseudo_log_likelihood_hides_one_token_at_a_time(masked_run):
    # Against the fills of the same text with a gap at each place. Reddens where a token sees itself.
    text = "abc"
    gaps = [{"where": "", "text": text[:i] + "[MASK]" + text[i + 1:]} for i in range(3)]
    run = masked_run
    rows = [masked_language_modeling._row(run, gap) for gap in gaps]
    logs = masked_language_modeling._log_probabilities(run, [(row, i + 1) for i, row in enumerate(rows)], 2, None)
    expected = sum(float(log[ord(character)]) for log, character in zip(logs, text, strict=True))
    found = masked_language_modeling.predict(run, [{"where": "", "text": text}], batch_size=2)[0]
    assert found["log_probability"] == pytest.approx(expected, rel=1e-5)
    assert found["probability"] == pytest.approx(math.exp(expected / 3), rel=1e-5)


def test_texts_that_do_not_fit_are_named(masked_run, span_run):
    with pytest.raises(UserError, match="line 3: 31 tokens"):
        masked_language_modeling.predict(masked_run, [{"where": "line 3", "text": "x" * 30}], batch_size=2)
    with pytest.raises(UserError, match="line 4: 0 gaps"):
        span_corruption.predict(span_run, [{"where": "line 4", "text": "x"}], batch_size=2)
    with pytest.raises(UserError, match="line 5: .* do not fit"):
        span_corruption.predict(span_run, [{"where": "line 5", "text": "[MASK]" + "x" * 30}], batch_size=2)


def test_spans_go_to_their_gaps():
    ids = np.array([300, 1, 2, 302, 9, 301, 3, 300, 7])
    assert span_corruption.filled_spans(ids, range(300, 310), 2) == [[1, 2], [3]]


def test_span_corruption_fills_each_gap(span_run, monkeypatch):
    seen = {}

    def answer(config, params, sources, **arguments):
        seen.update(arguments, sources=sources)
        return [Answer(np.array([257, 120, 121]), -1.0, True)]

    monkeypatch.setattr(span_corruption, "answer", answer)
    found = span_corruption.predict(span_run, [{"where": "", "text": "a[MASK]b"}], batch_size=2)[0]
    assert found == {"text": "axyb", "fills": ["xy"], "log_probability": -1.0,
                     "probability": pytest.approx(math.exp(-1))}
    assert seen["sources"][0].tolist() == [97, 257, 98] and seen["vocabulary_size"] == 258


def test_span_corruption_writes_with_a_model(span_run):
    found = span_corruption.predict(span_run, [{"where": "", "text": "a[MASK]b"}] * 3, batch_size=2)
    assert len(found) == 3 and found[0] == found[2] and found[0]["text"].startswith("a")
