"""Tags without a network: each word's most frequent tag of the training split."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import Config
from purelm.evaluation.tagging import OUTSIDE, entity_scores


def baseline(data: Mapping[str, Sequence[Mapping[str, Any]]], config: Config) -> dict[str, Any]:
    """seqeval's scores on the whole test split of each word's most frequent tag in training, else "O".

    Args:
      data: examples of the format tags of "train" and "test".
      config: not read.
    """
    seen: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for example in data["train"]:
        for word, tag in zip(example["tokens"], example["tags"]):
            seen[word][tag] += 1
    best = {word: tags.most_common(1)[0][0] for word, tags in seen.items()}
    answered = [[best.get(word, OUTSIDE) for word in example["tokens"]] for example in data["test"]]
    scores = entity_scores([example["tags"] for example in data["test"]], answered)
    return {"task": "tagging", "examples": len(answered), "model": "most frequent tag of each word", **scores}
