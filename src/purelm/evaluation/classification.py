"""Classification: predictions with their probabilities, and how good and how well calibrated they are."""

from __future__ import annotations

import collections
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from purelm.config import Config
from purelm.evaluation.batches import Progress, answers
from purelm.tasks import classification as task
from purelm.training.load import LoadedRun

BINS = 15
_SHOWN_CLASSES = 5


def input_format(config: Config) -> str:
    """The format of new rows."""
    return task.RECIPE.format


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means; where the run reads pairs, "first<TAB>second"."""
    first, _, second = text.partition("\t")
    paired = config.data.text_pair_field is not None
    return {"where": "--text", "text": first if paired else text, "pair": second if paired else None, "label": None}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None, explain: bool = False) -> list[dict[str, Any]]:
    """The class of each example.

    Args:
      run: its labels name the classes.
      examples: of the format labels; a label may be None.
      batch_size: rows at once.
      progress: called with a line now and then.
      explain: adds `pooling_weights` where model.pooling is attention: [token, weight] in the order of the text.

    Returns:
      `label` and its `probability`, and `probabilities` by label, the largest first and five at most.
    """
    params, compute = jax.device_put(run.params), _program(run.config, len(run.labels), explain)
    rows = answers(run.config, task.RECIPE, run.tokenizer, run.labels, examples, lambda batch: compute(params, batch),
                   batch_size=batch_size, progress=progress)
    return [_prediction(run, record, outputs) for record, outputs in rows]


@functools.lru_cache(maxsize=4)
def _program(config: Config, num_labels: int, explain: bool) -> Callable[[Any, Any], dict[str, jax.Array]]:
    """Probabilities, and the weights where they are explained, of (params, batch), compiled."""
    @jax.jit
    def compute(params, batch):
        logits_BC, weights_BT = task.logits_of(config, params, batch)
        outputs = {"probabilities": jax.nn.softmax(logits_BC[:, :num_labels])}
        return outputs | ({"weights": weights_BT} if explain and weights_BT is not None else {})

    return compute


def _prediction(run: LoadedRun, record: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    order = np.argsort(-outputs["probabilities"], kind="stable")[:_SHOWN_CLASSES]
    probabilities = {run.labels[number]: float(outputs["probabilities"][number]) for number in order}
    best = run.labels[order[0]]
    prediction = {"label": best, "probability": probabilities[best], "probabilities": probabilities}
    if "weights" in outputs:
        ids = task.collate(run.config, [record], task.length(record))["tokens"][0]
        prediction["pooling_weights"] = [[run.tokenizer.decode([token]), float(weight)]
                                         for token, weight in zip(ids.tolist(), outputs["weights"])]
    return prediction


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """scikit-learn's metrics of a whole split.

    Returns:
      `accuracy`; `macro` and `weighted` (precision, recall, f1); `per_class` (the same and `support`, by label);
      `confusion_matrix` (rows: the right class, columns: the answer, in the order of `labels`);
      `expected_calibration_error` (see there); `majority_accuracy`, of always answering the split's most frequent
      class.
    """
    from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

    labels = list(run.labels)
    right, answered = [example["label"] for example in examples], [answer["label"] for answer in predictions]
    report = classification_report(right, answered, labels=labels, output_dict=True, zero_division=0)
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score"}
    averages = {kind: {name: float(report[f"{kind} avg"][key]) for name, key in names.items()}
                for kind in ("macro", "weighted")}
    per_class = {label: {**{name: float(report[label][key]) for name, key in names.items()},
                         "support": int(report[label]["support"])} for label in labels}
    return {"accuracy": float(accuracy_score(right, answered)), **averages,
            "expected_calibration_error": expected_calibration_error(*_confidence(right, predictions)),
            "majority_accuracy": max(collections.Counter(right).values()) / len(right),
            "per_class": per_class, "labels": labels,
            "confusion_matrix": confusion_matrix(right, answered, labels=labels).tolist()}


def _confidence(right: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(probability of each answer, whether it is right)."""
    return (np.array([answer["probability"] for answer in predictions]),
            np.array([answer["label"] == label for answer, label in zip(predictions, right)]))


def calibration_bins(confidence_N: np.ndarray, hit_N: np.ndarray) -> list[tuple[int, float, float]]:
    """(answers, their mean probability, the part of them that is right) of each of BINS equal bins of (0, 1].

    An empty bin has (0, nan, nan).
    """
    number_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    members = [number_N == number for number in range(BINS)]
    return [(int(here.sum()), float(confidence_N[here].mean()), float(hit_N[here].mean())) if here.any()
            else (0, float("nan"), float("nan")) for here in members]


def expected_calibration_error(confidence_N: np.ndarray, hit_N: np.ndarray) -> float:
    """Sum over bins of (answers in it / all) |part that is right - mean probability| (Guo et al. 2017, equation 3)."""
    bins = calibration_bins(confidence_N, hit_N)
    return sum(count * abs(hit - confidence) for count, confidence, hit in bins if count) / len(confidence_N)


def pictures(run: LoadedRun, examples: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]],
             folder: pathlib.Path) -> list[pathlib.Path]:
    """Draws confusion_matrix.png and calibration.png in `folder` and returns their paths."""
    from sklearn.metrics import confusion_matrix

    from purelm.evaluation.plots import draw_calibration, draw_confusion_matrix

    right, answered = [example["label"] for example in examples], [answer["label"] for answer in predictions]
    matrix = confusion_matrix(right, answered, labels=list(run.labels))
    confidence_N, hit_N = _confidence(right, predictions)
    paths = [pathlib.Path(folder) / "confusion_matrix.png", pathlib.Path(folder) / "calibration.png"]
    draw_confusion_matrix(matrix, run.labels, paths[0])
    draw_calibration(calibration_bins(confidence_N, hit_N), expected_calibration_error(confidence_N, hit_N), paths[1])
    return paths
