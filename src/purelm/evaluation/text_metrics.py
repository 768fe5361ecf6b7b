"""Metrics of written text, each computed by the field's own package.

In all of them `predictions` are texts and `references` give, for each, one or several texts that are right.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np

References = Sequence[Sequence[str]]
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


def bleu(predictions: Sequence[str], references: References, *, tokenizer: str) -> dict[str, Any]:
    """{"bleu": 0 to 100, of the whole corpus, "bleu_signature"} by sacreBLEU (Post 2018, arXiv 1804.08771).

    `tokenizer` is sacreBLEU's, such as "13a", or "zh" for Chinese.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize=tokenizer)
    score = metric.corpus_score(list(predictions), _streams(references)).score
    return {"bleu": float(score), "bleu_signature": str(metric.get_signature())}


def chrf(predictions: Sequence[str], references: References) -> dict[str, Any]:
    """{"chrf": chrF2, 0 to 100, of the whole corpus, "chrf_signature"} by sacreBLEU (Popović 2015)."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    score = metric.corpus_score(list(predictions), _streams(references)).score
    return {"chrf": float(score), "chrf_signature": str(metric.get_signature())}


def rouge(predictions: Sequence[str], references: References) -> dict[str, Any]:
    """{"rouge1", "rouge2", "rougeL": F1, 0 to 100, "rouge_signature"} by rouge-score (Lin 2004), mean over examples.

    With Porter stemming. Of several references each measure takes the one it is best with, as is usual for SciTLDR
    (Cachola et al. 2020, arXiv 2004.15011). rouge-score's words are of a-z and 0-9: it sees nothing in other scripts.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    scores = [scorer.score_multi(list(texts), prediction) for prediction, texts in zip(predictions, references)]
    means = {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in ROUGE_TYPES}
    version = importlib.metadata.version("rouge-score")
    return means | {"rouge_signature": f"f1|stemming:porter|references:best|mean over examples|rouge-score:{version}"}


def squad(predictions: Sequence[str], references: References) -> dict[str, Any]:
    """{"exact_match", "f1": 0 to 100, "rules"} by the rules of SQuAD, best answer, mean over examples.

    By CMRC 2018's rules instead where most references hold Chinese (see squad_metrics).
    """
    from purelm.evaluation import squad_metrics

    rules = squad_metrics.rules_of([{"question": " ".join(texts)} for texts in references])
    found = squad_metrics.measure(predictions, references, rules)
    return {name: found[name] for name in ("exact_match", "f1", "rules")}


def _streams(references: References) -> list[list[str | None]]:
    """sacreBLEU's form: stream n holds each example's n-th reference, None where it has fewer."""
    most = max(len(texts) for texts in references)
    return [[texts[number] if number < len(texts) else None for texts in references] for number in range(most)]
