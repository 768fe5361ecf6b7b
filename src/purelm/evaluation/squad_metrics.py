"""Exact match and F1 of answers, by the rules of SQuAD v1.1 (English) and of CMRC 2018 (Chinese).

SQuAD: Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1, and its script evaluate-v1.1.py: lower case, no ASCII
punctuation, no articles, single spaces; F1 of the bags of words; the best over a question's right answers.
CMRC 2018: Cui et al. 2019, arXiv 1810.07366, section 4.1, and its script cmrc2018_evaluate.py: lower case, without the
marks below; a Chinese character is a word of its own; F1 by the longest run of words that both have (the paper says
"longest common sequence"; its script looks for a common substring, and so does this). Other text, which the script
divides by NLTK's tokenizer, is divided here into words and signs, which differs only in such as "don't".
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Rules = Literal["squad", "cmrc2018"]

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHINESE_MARKS = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE_WORD = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+|[^\w\s]")
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")


def normalize(text: str) -> str:
    """SQuAD's: lower case without punctuation, the words a, an and the, and surplus white space."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where both are the same by SQuAD's rules, else 0."""
    return float(normalize(prediction) == normalize(answer))


def f1(prediction: str, answer: str) -> float:
    """SQuAD's: the harmonic mean of precision and recall of words, each as often as it occurs."""
    predicted, right = normalize(prediction).split(), normalize(answer).split()
    return _harmonic((collections.Counter(predicted) & collections.Counter(right)).total(), len(predicted), len(right))


def chinese_words(text: str) -> list[str]:
    """CMRC's: in lower case and without its marks, each Chinese character, and the words and signs between them."""
    return _CHINESE_WORD.findall(text.lower().strip().translate(_CHINESE_MARKS))


def chinese_exact_match(prediction: str, answer: str) -> float:
    """1 where both are the same in lower case and without CMRC's marks, else 0."""
    return float(prediction.lower().strip().translate(_CHINESE_MARKS)
                 == answer.lower().strip().translate(_CHINESE_MARKS))


def chinese_f1(prediction: str, answer: str) -> float:
    """CMRC's: of the longest run of words that both have."""
    predicted, right = chinese_words(prediction), chinese_words(answer)
    return _harmonic(_longest_common_run(predicted, right), len(predicted), len(right))


def _harmonic(common: int, predicted: int, right: int) -> float:
    """2 precision recall / (precision + recall), which is 2 common / (predicted + right); 0 for nothing in common."""
    return 2 * common / (predicted + right) if common else 0.0


def _longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    longest, before = 0, [0] * (len(second) + 1)
    for word in first:
        row = [0] * (len(second) + 1)
        for place, other in enumerate(second):
            if word == other:
                row[place + 1] = before[place] + 1
                longest = max(longest, row[place + 1])
        before = row
    return longest


_MEASURES: dict[Rules, dict[str, Callable[[str, str], float]]] = {
    "squad": {"exact_match": exact_match, "f1": f1},
    "cmrc2018": {"exact_match": chinese_exact_match, "f1": chinese_f1},
}


def rules_of(examples: Sequence[Mapping[str, Any]]) -> Rules:
    """"cmrc2018" where most questions hold a Chinese character, else "squad"."""
    chinese = sum(_CHINESE.search(example["question"]) is not None for example in examples)
    return "cmrc2018" if 2 * chinese > len(examples) else "squad"


def measure(predictions: Sequence[str], answers: Sequence[Sequence[str]], rules: Rules) -> dict[str, Any]:
    """exact_match and f1 in percent over all questions, each by the best of its right answers; `rules`, `questions`.

    Raises ValueError where the two have different lengths, or there is no question.
    """
    if not predictions:
        raise ValueError("no questions to measure")
    totals = {name: 100 / len(predictions) * sum(
        max(function(prediction, answer) for answer in right)
        for prediction, right in zip(predictions, answers, strict=True))
        for name, function in _MEASURES[rules].items()}
    return {**totals, "rules": rules, "questions": len(predictions)}
