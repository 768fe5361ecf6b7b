"""Classes without a network: the most frequent one, and logistic regression on TF-IDF."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from purelm.config import Config
from purelm.errors import UserError

ANALYZERS = ("auto", "word", "char")
_CHINESE = ("\u3400", "\u9fff")


def baseline(data: Mapping[str, Sequence[Mapping[str, Any]]], config: Config,
             analyzer: Literal["auto", "word", "char"] = "auto") -> dict[str, Any]:
    """Accuracies on the whole test split of classifiers of the training split, both by scikit-learn.

    Args:
      data: examples of the format labels of "train" and "test".
      config: for messages.
      analyzer: TF-IDF of one and two "word"s (with sublinear counts), or of one to three "char"s; "auto" takes
        characters where a tenth of the training text is Chinese.

    Returns:
      `majority_accuracy`; `accuracy` and `macro_f1` of logistic regression (C = 10) on TF-IDF; `analyzer`, and
      `features`, how many there are.

    Raises UserError where there is one label alone, or no word in two training texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    texts, labels = {}, {}
    for split in ("train", "test"):
        texts[split] = [text if pair is None else f"{text} {pair}"
                        for text, pair in ((example["text"], example["pair"]) for example in data[split])]
        labels[split] = [example["label"] for example in data[split]]
    if analyzer == "auto":
        analyzer = "char" if _is_chinese("".join(texts["train"][:1000])) else "word"
    vectorizer = TfidfVectorizer(analyzer=analyzer, ngram_range=(1, 2) if analyzer == "word" else (1, 3), min_df=2,
                                 sublinear_tf=True)
    if len(set(labels["train"])) < 2:
        raise UserError(f"{config.data.path}: all of its training rows have the label '{labels['train'][0]}'; a "
                        "classifier needs two")
    try:
        features = vectorizer.fit_transform(texts["train"])
    except ValueError as error:
        raise UserError(f"{config.data.path}: no {analyzer} is in two of its {len(texts['train']):,} training texts; "
                        "give more of them") from error
    model = LogisticRegression(C=10, max_iter=1000).fit(features, labels["train"])
    answered = model.predict(vectorizer.transform(texts["test"]))
    majority = collections.Counter(labels["train"]).most_common(1)[0][0]
    return {"task": "classification", "examples": len(labels["test"]),
            "majority_accuracy": sum(label == majority for label in labels["test"]) / len(labels["test"]),
            "accuracy": float(accuracy_score(labels["test"], answered)),
            "macro_f1": float(f1_score(labels["test"], answered, average="macro")),
            "model": "TF-IDF, logistic regression", "analyzer": analyzer, "features": features.shape[1]}


def _is_chinese(text: str) -> bool:
    return sum(_CHINESE[0] <= character <= _CHINESE[1] for character in text) > 0.1 * len(text)
