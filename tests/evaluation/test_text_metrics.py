"""Metrics equal the packages called directly, and notice swapped arguments."""

import numpy as np
import pytest

from purelm.evaluation import text_metrics

PREDICTIONS = ["the cat sat on the mat", "a dog runs", "he reads a very long book about the sea"]
REFERENCES = [["the cat sat on a mat", "a cat was on the mat"], ["a dog is running fast", "one dog runs"],
              ["she read a long book about the sea"]]


def test_bleu_and_chrf_with_several_references_are_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    streams = [[texts[0] for texts in REFERENCES], [REFERENCES[0][1], REFERENCES[1][1], None]]
    found = text_metrics.bleu(PREDICTIONS, REFERENCES, tokenizer="13a")
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(PREDICTIONS, streams).score)
    assert "tok:13a" in found["bleu_signature"] and "nrefs:var" in found["bleu_signature"]
    found = text_metrics.chrf(PREDICTIONS, REFERENCES)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(PREDICTIONS, streams).score)
    assert "nc:6" in found["chrf_signature"]


def test_chinese_is_scored_by_character():
    # Reddens where the tokenizer is not handed on: by 13a each sentence is one word, and nothing matches.
    predictions, references = ["我们今天去公园散步。"], [["我们今天去公园跑步。"]]
    found = text_metrics.bleu(predictions, references, tokenizer="zh")
    assert found["bleu"] > 50 > text_metrics.bleu(predictions, references, tokenizer="13a")["bleu"]
    assert "tok:zh" in found["bleu_signature"]


@pytest.mark.parametrize("metric", [lambda p, r: text_metrics.bleu(p, r, tokenizer="13a")["bleu"],
                                    lambda p, r: text_metrics.chrf(p, r)["chrf"]], ids=["bleu", "chrf"])
def test_swapped_arguments_give_another_score(metric):
    first = [texts[0] for texts in REFERENCES]
    assert metric(PREDICTIONS, [[text] for text in first]) != metric(first, [[text] for text in PREDICTIONS])


def test_rouge_is_the_mean_of_the_best_reference():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = text_metrics.rouge(PREDICTIONS, REFERENCES)
    for name in ("rouge1", "rouge2", "rougeL"):
        best = [max(scorer.score(text, prediction)[name].fmeasure for text in texts)
                for prediction, texts in zip(PREDICTIONS, REFERENCES)]
        assert found[name] == pytest.approx(100 * np.mean(best))
    # By hand: "cats" has the stem of "cat"; two of two words are right, of three asked for.
    by_hand = text_metrics.rouge(["cats sleep"], [["a cat sleeps"]])
    assert by_hand["rouge1"] == pytest.approx(100 * 2 * (1 * 2 / 3) / (1 + 2 / 3))


def test_squad_takes_the_best_answer():
    found = text_metrics.squad(["The Cat!", "in 1999"], [["a cat", "dog"], ["1999"]])
    assert found == {"exact_match": 50, "f1": pytest.approx(100 * (1 + 2 / 3) / 2), "rules": "squad"}
    assert text_metrics.squad(["北京。"], [["北京"]]) == {"exact_match": 100, "f1": 100, "rules": "cmrc2018"}
