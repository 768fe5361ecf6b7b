"""Replies without a network: always the most frequent one; and the reply to the most similar turn of training."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import Config
from purelm.evaluation.dialogue import reply_scores


def baseline(data: Mapping[str, Sequence[Mapping[str, Any]]], config: Config) -> dict[str, Any]:
    """The scores of evaluation/dialogue.py over every assistant's turn of the whole test split, of two systems.

    Args:
      data: examples of the format turns of "train" and "test".
      config: its task.bleu_tokenizer is used.

    Returns:
      `most_frequent`: `reply`, the commonest one of the training split, and its scores; `nearest`: those of the reply
      that followed the turn of training most similar to the one before (cosine of TF-IDF, scikit-learn; words of
      sacreBLEU's tokenizer).
    """
    train, test = _exchanges(data["train"]), _exchanges(data["test"])
    tokenizer = config.task.bleu_tokenizer
    references = [answer for _, answer in test]
    commonest = collections.Counter(answer for _, answer in train).most_common(1)[0][0]
    return {"task": "dialogue", "examples": len(data["test"]),
            "most_frequent": {"reply": commonest,
                              **reply_scores([commonest] * len(test), references, tokenizer)},
            "nearest": reply_scores(_nearest(train, test, tokenizer), references, tokenizer)}


def _exchanges(examples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(the turn before, or "", the assistant's turn) of all dialogues."""
    found = []
    for example in examples:
        before = ""
        for turn in example["turns"]:
            if turn["speaker"] == "assistant":
                found.append((before, turn["text"]))
            before = turn["text"]
    return found


def _nearest(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], tokenizer: str) -> list[str]:
    import numpy as np
    from sacrebleu.metrics import BLEU
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = BLEU(tokenize=tokenizer).tokenizer
    vectorizer = TfidfVectorizer(tokenizer=lambda text: words(text).split(), token_pattern=None, ngram_range=(1, 2))
    known = vectorizer.fit_transform([before for before, _ in train])
    asked = vectorizer.transform([before for before, _ in test])
    answers = []
    for start in range(0, asked.shape[0], 512):  # A whole table of similarities would be large.
        similarity = (asked[start:start + 512] @ known.T).toarray()
        answers += [train[number][1] for number in np.argmax(similarity, axis=1)]
    return answers
