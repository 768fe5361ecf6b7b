"""Scores of written texts by the config's metrics, and what needs no training."""

import types

import pytest

from purelm.config import Config, DataConfig, TaskConfig, TrainingConfig
from purelm.errors import UserError
from purelm.evaluation import sequence_to_sequence as evaluation
from purelm.evaluation import text_metrics
from purelm.evaluation.baselines.sequence_to_sequence import baseline, lead

EXAMPLES = [
    {"where": "test.jsonl, line 1", "source": "to: A cat sleeps. It is old.", "targets": ["Eine Katze schläft."]},
    {"where": "test.jsonl, line 2", "source": "to: Dogs run in the park.", "targets": ["Hunde rennen im Park."]},
]
PREDICTIONS = [{"text": "Eine Katze schläft."}, {"text": "Hunde laufen im großen Park."}]


def make_config(metrics=("bleu", "chrf"), **data):
    return Config(task=TaskConfig(name="sequence_to_sequence", metrics=metrics), data=DataConfig(**data),
                  training=TrainingConfig(num_steps=1))


def run_of(config):
    return types.SimpleNamespace(config=config)


def test_the_metrics_asked_for_are_measured():
    found = evaluation.score(run_of(make_config()), EXAMPLES, PREDICTIONS)
    texts, references = [p["text"] for p in PREDICTIONS], [e["targets"] for e in EXAMPLES]
    assert found == {"examples": 2, **text_metrics.bleu(texts, references, tokenizer="13a"),
                     **text_metrics.chrf(texts, references)}
    found = evaluation.score(run_of(make_config(("rouge", "squad"))), EXAMPLES, PREDICTIONS)
    assert set(found) == {"examples", "rouge1", "rouge2", "rougeL", "rouge_signature", "exact_match", "f1", "rules"}
    assert found["exact_match"] == 50


def test_the_parts_of_a_mixture_are_scored_apart():
    examples = [example | {"component": name} for example, name in zip(EXAMPLES, ("first", "second"))]
    found = evaluation.score(run_of(make_config()), examples, PREDICTIONS)
    assert found["components"]["first"]["bleu"] == pytest.approx(100)
    assert found["components"]["second"]["bleu"] < found["bleu"] < 100


def test_what_cannot_be_scored_is_said():
    with pytest.raises(UserError, match="no examples"):
        evaluation.score(run_of(make_config()), [], [])
    with pytest.raises(UserError, match=r"test.jsonl, line 1: has no target"):
        evaluation.score(run_of(make_config()), [EXAMPLES[0] | {"targets": None}], PREDICTIONS[:1])


def test_a_bare_text_is_a_source():
    example = evaluation.example_of_text(make_config(prompt="to: "), "Hello")
    assert (example["source"], example["targets"]) == ("to: Hello", None)
    squad = evaluation.example_of_text(make_config(format="squad"), "Who? ||| It was Ann.")
    assert (squad["question"], squad["context"]) == ("Who?", "It was Ann.")
    with pytest.raises(UserError, match="question"):
        evaluation.example_of_text(make_config(format="squad"), "Who?")
    assert evaluation.input_format(make_config()) == "pairs"


@pytest.mark.parametrize("text, count, expected", [
    ("One is v1.5 of it. Two? Three.", 1, "One is v1.5 of it."),
    ("One is v1.5 of it. Two? Three.", 2, "One is v1.5 of it. Two?"),
    ("No end", 1, "No end"),
    ('He said "no." Then he left.', 1, 'He said "no."'),
    ("我来了。“你呢？”他问。", 2, "我来了。“你呢？”"),
    ("Just one.", 3, "Just one."),
])
def test_lead_sentences(text, count, expected):
    assert lead(text, count) == expected


def test_baselines():
    data = {"train": [], "test": EXAMPLES}
    found = baseline(data, make_config(prompt="to: "))
    assert found["model"] == "copied source"
    copied = [{"text": "A cat sleeps. It is old."}, {"text": "Dogs run in the park."}]
    scored = evaluation.score(run_of(make_config()), EXAMPLES, copied)
    assert scored.items() <= found.items()
    rouge = baseline(data, make_config(("rouge",), prompt="to: "))
    first = evaluation.score(run_of(make_config(("rouge",))), EXAMPLES, [{"text": "A cat sleeps."}, copied[1]])
    assert first.items() <= rouge.items() and rouge["first_three_sentences"]["rouge1"] <= rouge["rouge1"]
