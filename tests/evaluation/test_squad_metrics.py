"""SQuAD's and CMRC 2018's rules by hand, and against whatever other implementation is at hand."""

import pytest

from purelm.evaluation import squad_metrics as metrics


@pytest.mark.parametrize("text, normalized", [
    ("The Eiffel Tower!", "eiffel tower"), ("  an   apple\ta\n day ", "apple day"), ("U.S.A.", "usa"),
    ("theory of a-an", "theory of aan"), ("the", ""), ("Beyoncé’s", "beyoncé’s"), ("$1,000.50", "100050")])
def test_normalization(text, normalized):
    # Punctuation goes before articles: "a-an" is one word. Only ASCII punctuation goes. Reddens in another order.
    assert metrics.normalize(text) == normalized


@pytest.mark.parametrize("prediction, answer, exact, f1", [
    ("the cat", "Cat.", 1, 1), ("a big cat", "cat", 0, 2 / 3), ("dog", "cat", 0, 0), ("the", "a", 1, 0),
    ("cat cat", "cat", 0, 2 / 3), ("", "cat", 0, 0), ("black cat sat", "cat black", 0, 4 / 5)])
def test_english(prediction, answer, exact, f1):
    # "cat cat" has the word once in common: reddens with sets in place of bags.
    assert metrics.exact_match(prediction, answer) == exact and metrics.f1(prediction, answer) == pytest.approx(f1)


@pytest.mark.parametrize("prediction, answer, exact, f1", [
    ("1889年", "1889年。", 1, 1), ("《红楼梦》", "红楼梦", 1, 1), ("曹雪芹写", "曹雪芹", 0, 6 / 7),
    ("雪曹芹", "曹雪芹", 0, 2 / 6), ("iPhone手机", "iphone 手机", 0, 1),
    ("甲乙丙丁", "甲乙戊丁", 0, 4 / 8), ("甲", "乙", 0, 0)])
def test_chinese(prediction, answer, exact, f1):
    # 甲乙丙丁 and 甲乙戊丁 have a subsequence of three in common, but a run of two: reddens with the former.
    assert metrics.chinese_exact_match(prediction, answer) == exact
    assert metrics.chinese_f1(prediction, answer) == pytest.approx(f1)


def test_chinese_is_divided_into_characters_and_other_words():
    assert metrics.chinese_words("2008年，Nexon发行v1.5版") == ["2008", "年", "nexon", "发", "行", "v1", ".", "5", "版"]


def test_the_best_answer_counts_and_every_question():
    found = metrics.measure(["the cat", "x"], [["a dog", "cat"], ["y"]], "squad")
    assert found == {"exact_match": 50.0, "f1": 50.0, "rules": "squad", "questions": 2}
    with pytest.raises(ValueError):
        metrics.measure(["x"], [["x"], ["y"]], "squad")
    with pytest.raises(ValueError):
        metrics.measure([], [], "squad")


def test_the_rules_follow_the_questions():
    english, chinese = {"question": "Who is 元朝?"}, {"question": "谁是 X？"}
    assert metrics.rules_of([english, {"question": "Who?"}]) == "squad" and metrics.rules_of([chinese]) == "cmrc2018"


def test_normalization_is_that_of_transformers():
    theirs = pytest.importorskip("transformers.data.metrics.squad_metrics")
    for text in ("The U.S. Army's 3rd, a half-day!", "An  article about the\tthe", "naïve – “quoted” (1,000)"):
        assert metrics.normalize(text) == theirs.normalize_answer(text)
        assert metrics.f1(text, "the army half day") == theirs.compute_f1("the army half day", text)
