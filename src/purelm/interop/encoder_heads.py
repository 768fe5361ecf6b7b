"""Heads of pretrained encoders as transformers has them: masked tokens, a text's class, words' tags, answers."""

from __future__ import annotations

from typing import Any

from purelm.config import ModelConfig
from purelm.interop.fields import Fields
from purelm.interop.mapping import Tensor, linear, norm

# A name is made for each.
_MOST_LABELS = 1_000_000


def tasks_of(prefix: str) -> dict[str, str]:
    """transformers' classes whose names begin with `prefix` -> config.task.name."""
    return {f"{prefix}ForMaskedLM": "masked_language_modeling", f"{prefix}ForSequenceClassification": "classification",
            f"{prefix}ForTokenClassification": "tagging", f"{prefix}ForQuestionAnswering": "extractive_qa"}


def head_fields(fields: Fields, task: str, pooling_transform: str) -> dict[str, Any]:
    """Fields of ModelConfig for the head of a task, dropout excepted.

    Raises:
      UserError: a classifier of numbers, or of several labels a text; question answering without two outputs.
    """
    masked = task == "masked_language_modeling"
    tied = fields.take("tie_word_embeddings", True, bool)
    changes = {"tied_embeddings": tied or not masked, "head_transform": masked, "head_bias": masked}
    if masked:
        return changes
    labels = fields.take("id2label", None, dict)
    count = fields.size("num_labels", 2, _MOST_LABELS) if labels is None else len(labels)
    name = "num_labels" if labels is None else "id2label"
    if task == "extractive_qa":
        if count != 2:
            raise fields.error(name, f"question answering has 2 outputs, start and end, not {count}")
        return changes
    if task == "classification":
        fields.require("problem_type", ("single_label_classification", None),
                       "only one class a text can be taken over: single_label_classification, or none", None)
        changes |= {"pooling": "first", "pooling_transform": pooling_transform}
    if count < 2:
        raise fields.error(name, "a classifier has 2 labels at least; with 1 it is a regression, which cannot be "
                                 "taken over")
    return changes | {"num_classes": count}


def write_head_fields(model: ModelConfig, task: str) -> dict[str, Any]:
    """`head_fields` back; labels have the names that transformers gives to those without one."""
    written: dict[str, Any] = {"tie_word_embeddings": model.tied_embeddings}
    if task == "classification":
        written["problem_type"] = "single_label_classification"
    if model.num_classes is not None:
        names = [f"LABEL_{number}" for number in range(model.num_classes)]
        written |= {"id2label": {str(number): name for number, name in enumerate(names)},
                    "label2id": {name: number for number, name in enumerate(names)}}
    return written


def head_tensors(
    model: ModelConfig, task: str, *, transform: str, transform_norm: str, bias: str, output: str, pooler: str,
    classes: str,
) -> list[Tensor]:
    """The table of the head of a task.

    Args:
      transform, transform_norm, bias, output: of masked tokens: the layer and norm before the output layer, its bias
        where it is tied to the embedding, and the layer itself where it is not.
      pooler, classes: of a text's class: the layer on its first token, and the output layer.
    """
    if task == "masked_language_modeling":
        last = [Tensor("head/bias", bias)] if model.tied_embeddings else linear("head", output, True)
        return [*linear("head_transform", transform, True), *norm("head_transform_norm", transform_norm, True), *last]
    if task == "classification":
        return [*linear("classifier/transform", pooler, True), *linear("classifier/output", classes, True)]
    return linear("classifier/output", "classifier", True) if task == "tagging" else linear("span", "qa_outputs", True)
