"""Which metrics an evaluation gives, by task, so that a misspelt one is seen before anything runs."""

from __future__ import annotations

from purelm.config import Config

# What follows from the loss alone (training/evaluation.py); these need no answers.
LOSSES = ("loss", "perplexity", "bits_per_byte")
# What the answers of each task are scored by (evaluation/TASK.py): of nested ones the outermost name.
_OF_ANSWERS = {
    "classification": ("accuracy", "macro", "weighted", "per_class", "expected_calibration_error",
                       "majority_accuracy"),
    "tagging": ("accuracy", "precision", "recall", "f1", "macro", "per_type"),
    "extractive_qa": ("exact_match", "f1"),
    "dialogue": ("bleu", "chrf", "distinct_1", "distinct_2", "exact", "length_ratio"),
    "code_generation": ("pass_at_1", "pass_at_10", "pass_at_100", "passed_problems", "timed_out", "unparsed"),
    "word_vectors": ("words", "mean_similarity"),
}
_OF_TEXTS = {"bleu": ("bleu",), "chrf": ("chrf",), "rouge": ("rouge1", "rouge2", "rougeL"),
             "squad": ("exact_match", "f1")}


def metrics_given(config: Config, *, answers: bool) -> tuple[str, ...] | None:
    """Names of the metrics of a model of this config, of nested ones the outermost; None where only the task, one of
    the user's own, knows.

    Args:
      answers: whether answers are written and scored besides the loss.
    """
    if "." in config.task.name:
        return None
    found = (*LOSSES, "accuracy")
    if not answers:
        return found
    if config.task.name == "sequence_to_sequence":
        scores = tuple(name for metric in config.task.metrics for name in _OF_TEXTS[metric])
        return (*found, *scores, *(("components",) if config.data.mixture else ()), "seconds_to_answer")
    if config.task.name in _OF_ANSWERS:
        return (*found, *_OF_ANSWERS[config.task.name], "seconds_to_answer")
    return found
