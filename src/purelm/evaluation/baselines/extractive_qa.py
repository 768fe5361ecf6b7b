"""Answers without a network: the sliding window of Rajpurkar et al. 2016 (section 5.1) and MCTest."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from purelm.config import Config
from purelm.evaluation.squad_metrics import measure, rules_of

_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CHINESE}]|[^\W_{_CHINESE}]+(?:['’.,\-][^\W_{_CHINESE}]+)*")
_SENTENCE = re.compile(r"(?:[^.!?。！？；\n]|[.!?](?=\S))+[.!?。！？；\n]*")
_BREAK = re.compile(r"[^\w\s'’\-$€£%&/]")
_LONGEST = 10
_FUNCTION_WORDS = frozenset(re.findall(
    r"\w+",
    "a an the of in on at by to for from with as and or but nor is are was were be been being has have had do does "
    "did that which who whom whose this these those it its he she they them his her their there what when where why "
    "how not can could may might will would shall should must than then also into about after before during between "
    "under over such if while because so "
    "的 了 是 在 和 与 及 或 为 于 由 被 把 将 对 从 到 也 而 其 之 以 个 着 等 这 那 有"))


class Word(NamedTuple):
    """A word as it is compared, and its characters [start, stop) of the text."""

    text: str
    start: int
    stop: int


def baseline(data: Mapping[str, Sequence[Mapping[str, Any]]], config: Config) -> dict[str, Any]:
    """Exact match and F1 over every question of the test split (the validation split where there is none).

    The sentence with the largest unigram overlap with the question is found; `exact_match` and `f1` are those of the
    best candidate in it by the sliding window, under "whole_sentence" of the sentence itself.

    Args:
      data: examples of the format squad of "test", or "validation".
      config: not read.
    """
    examples = data["test" if "test" in data else "validation"]
    answers = [[answer["text"] for answer in example["answers"]] for example in examples]
    spans, sentences = zip(*(answer_of(example["question"], example["context"]) for example in examples), strict=True)
    rules = rules_of(examples)
    return {"task": "extractive_qa", "model": "sliding window", **measure(spans, answers, rules),
            "whole_sentence": measure(sentences, answers, rules)}


def answer_of(question: str, context: str) -> tuple[str, str]:
    """(the best candidate, the sentence that it stands in).

    Rajpurkar et al. take a parser's constituents for candidates; here they are the runs of at most ten words between
    punctuation, function words and words of the question. Of the sentence with most words of the question, that
    candidate is taken whose words and the question's fill a window of the paragraph best (Richardson et al. 2013,
    algorithm 1): the window is as wide as there are such words, and word w counts log(1 + 1 / count(w)).
    """
    asked = {word.text for word in words(question)}
    paragraph = words(context)
    weight = {text: math.log(1 + 1 / count) for text, count in Counter(word.text for word in paragraph).items()}
    sentences = [match.span() for match in _SENTENCE.finditer(context)] or [(0, len(context))]
    inside = {span: [word for word in paragraph if span[0] <= word.start < span[1]] for span in sentences}
    start, stop = max(sentences, key=lambda span: sum(
        weight[text] for text in {word.text for word in inside[span]} & asked))
    runs = candidates(inside[start, stop], context, asked)
    sentence = context[start:stop].strip()
    if not runs:
        return sentence, sentence
    texts = [word.text for word in paragraph]
    best = max(runs, key=lambda run: window_score(texts, asked | {word.text for word in run}, weight))
    return context[best[0].start:best[-1].stop], sentence


def words(text: str) -> list[Word]:
    """The words of a text in lower case; each Chinese character is one."""
    return [Word(match.group().lower(), *match.span()) for match in _WORD.finditer(text)]


def candidates(sentence: Sequence[Word], text: str, asked: set[str]) -> list[list[Word]]:
    """The runs of at most ten words that no punctuation, function word or word of the question parts."""
    runs: list[list[Word]] = [[]]
    for word in sentence:
        apart = runs[-1] and (_BREAK.search(text[runs[-1][-1].stop:word.start]) or len(runs[-1]) == _LONGEST)
        if word.text in asked or word.text in _FUNCTION_WORDS:
            runs.append([])
        elif apart:
            runs.append([word])
        else:
            runs[-1].append(word)
    return [run for run in runs if run]


def window_score(texts: Sequence[str], wanted: set[str], weight: Mapping[str, float]) -> float:
    """The largest sum of the weights of wanted words in any window of len(wanted) words."""
    values = [weight[text] if text in wanted else 0.0 for text in texts]
    total = best = sum(values[:len(wanted)])
    for place in range(len(wanted), len(values)):
        total += values[place] - values[place - len(wanted)]
        best = max(best, total)
    return best
