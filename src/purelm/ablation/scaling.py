"""Loss as a law of parameters and tokens: L(N, D) = E + A / N^a + B / D^b.

Hoffmann et al. 2022, arXiv 2203.15556, equation 10 and appendix D.2: a Huber loss (delta 0.001) on the logarithm of the
loss, minimized by L-BFGS from a grid of starts. As Besiroglu et al. 2024 (arXiv 2404.10102) found, the loss is to be
summed and minimized to the end, which the original did not do.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purelm.ablation.spec import Ablation
from purelm.ablation.store import CellRecord
from purelm.errors import UserError

_DELTA = 1e-3
_RESAMPLES = 200
_NAMES = ("E", "A", "a", "B", "b")
# Of log A and log B, at the middle of N and D, log E, a and b.
_BOUNDS = ((-40.0, 40.0), (-40.0, 40.0), (-20.0, 5.0), (0.0, 3.0), (0.0, 3.0))
_MIN_POINTS, _MIN_SPREAD = 6, 1.5


@dataclasses.dataclass(frozen=True)
class ScalingFit:
    """A fitted law.

    Attributes:
      parameters: E, A, a, B, b.
      intervals: of each of them, and of "a_compute": compute-optimal parameters grow as compute^a_compute,
        b / (a + b) (Hoffmann et al. 2022, equation 4).
      residual: root mean square of log(loss) - log(predicted).
      at_bound: which of E, a and b ended where the search ends: the points do not determine them.
      confidence, resamples: of the intervals, by bootstrap over the points (see fit_chinchilla).
    """

    parameters: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    residual: float
    at_bound: tuple[str, ...]
    confidence: float
    resamples: int

    def predict(self, num_parameters: float, num_tokens: float) -> float:
        """The loss that the law gives."""
        fitted = self.parameters
        return fitted["E"] + fitted["A"] / num_parameters ** fitted["a"] + fitted["B"] / num_tokens ** fitted["b"]


def fit_chinchilla(points: Sequence[tuple[float, float, float]], *, confidence: float = 0.95,
                   resamples: int = _RESAMPLES) -> ScalingFit:
    """Fits the law to (parameters, tokens, loss), each run, so each seed, a point.

    Intervals are percentiles over fits to resampled points: each point keeps its N and D and draws a residual of
    log(loss) from those of all points, scaled by sqrt(n / (n - 5)) for what the fit took. (Drawing whole points, of a
    design of few N and D, leaves many draws that determine nothing.)

    Raises:
      UserError: fewer than six different (N, D), or too little spread of N, of D or of either given the other.
    """
    points_P3 = np.asarray(points, float).reshape(-1, 3)
    _check(points_P3)
    log_N, log_D, log_L = np.log(points_P3).T
    fitted = _fit(log_N, log_D, log_L, _best_starts(log_N, log_D, log_L, 12))
    predicted = _log_law(fitted, log_N, log_D)
    residual = log_L - predicted
    scaled = (residual - residual.mean()) * math.sqrt(len(residual) / max(len(residual) - len(_NAMES), 1))
    generator = np.random.default_rng(0)
    drawn = [_fit(log_N, log_D, predicted + generator.choice(scaled, len(scaled)), [fitted])
             for _ in range(resamples)]
    named = [_named(values) for values in drawn]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {name: tuple(map(float, np.quantile([values[name] for values in named], tails)))
                 for name in (*_NAMES, "a_compute")} if resamples else {}
    at_bound = tuple(name for name, value, bound in zip(("E", "a", "b"), fitted[2:], _BOUNDS[2:])
                     if min(value - bound[0], bound[1] - value) < 1e-6)
    return ScalingFit(_named(fitted), intervals, float(np.sqrt(np.mean(residual**2))), at_bound, confidence, resamples)


def fit_of_cells(ablation: Ablation, workdir: str,
                 records: Mapping[str, CellRecord | None]) -> tuple[dict[str, Any] | None, list[str]]:
    """Table.fit of the table's finished cells, and what must be said of it; nothing where the table asks for no fit.

    N is each cell's parameters without embeddings, D the tokens it was trained on, the loss its first metric.

    Returns:
      ({"law", "parameters", "intervals", "confidence", "interval_method", "residual", "points"}, notes); points have
      row, seed, parameters, tokens, loss, predicted. None, and a note that says why, where there is no fit.
    """
    if ablation.fit == "none":
        return None, []
    metric = ablation.metrics[0].name
    points = []
    try:
        for key, record in records.items():
            if record is not None and record.state == "done" and metric in record.metrics:
                row, seed = key.rsplit("/", 1)
                size = size_of_run(pathlib.Path(workdir) / "runs" / key)
                points.append({"row": row, "seed": seed, **size, "loss": record.metrics[metric]})
        fit = fit_chinchilla([(point["parameters"], point["tokens"], point["loss"]) for point in points],
                             confidence=ablation.confidence)
    except UserError as error:
        return None, [str(error)]
    for point in points:
        point["predicted"] = fit.predict(point["parameters"], point["tokens"])
    notes = []
    if fit.at_bound:
        notes.append(f"fit: {', '.join(fit.at_bound)} ended at the end of what was searched: the points do not "
                     "determine it")
    return {"law": "loss = E + A / N^a + B / D^b", "parameters": dict(fit.parameters), "intervals": dict(fit.intervals),
            "confidence": fit.confidence,
            "interval_method": f"bootstrap over the points' residuals, {fit.resamples} resamples",
            "residual": fit.residual, "points": points}, notes


def size_of_run(folder: pathlib.Path) -> dict[str, int]:
    """{"parameters": without embeddings, "tokens": trained on} of a run, by its config.json.

    Tokens are windows times their length: padding counts, so that it is for tasks that train on whole windows.

    Raises:
      UserError: config.json is missing or damaged.
    """
    from purelm.config import load_json
    from purelm.models.counting import count_parameters
    from purelm.training.state import params_shapes

    config = load_json(folder / "config.json")
    return {"parameters": count_parameters(params_shapes(config), embeddings=False),
            "tokens": config.training.num_steps * config.training.batch_size * config.model.context_length}


def _check(points_P3: np.ndarray) -> None:
    if not np.all(np.isfinite(points_P3)) or np.any(points_P3 <= 0):
        raise UserError("no fit: parameters, tokens and losses must be positive numbers")
    designs = np.unique(points_P3[:, :2], axis=0)
    if len(designs) < _MIN_POINTS:
        raise UserError(f"no fit: {len(designs)} different pairs of parameters and tokens; 5 unknowns need at least "
                        f"{_MIN_POINTS}")
    for name, values in (("parameters", designs[:, 0]), ("tokens", designs[:, 1])):
        if len(np.unique(values)) < 3 or values.max() / values.min() < _MIN_SPREAD:
            raise UserError(f"no fit: {len(np.unique(values))} different numbers of {name}, from {values.min():.3g} to "
                            f"{values.max():.3g}; at least 3 that differ by {_MIN_SPREAD}x are needed")
    if abs(np.corrcoef(np.log(designs).T)[0, 1]) > 0.999:
        raise UserError("no fit: tokens grow in proportion to parameters, so that their parts cannot be told apart; "
                        "vary one with the other fixed")


def _log_law(values_5: np.ndarray, log_N: np.ndarray, log_D: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    return logsumexp(_terms(values_5, log_N, log_D), axis=0)


def _terms(values_5: np.ndarray, log_N: np.ndarray, log_D: np.ndarray) -> np.ndarray:
    log_A, log_B, log_E, a, b = values_5
    return np.stack([log_A - a * log_N, log_B - b * log_D, np.full_like(log_N, log_E)])


def _objective(values_5: np.ndarray, log_N: np.ndarray, log_D: np.ndarray,
               log_L: np.ndarray) -> tuple[float, np.ndarray]:
    """(sum of Huber losses over delta^2, its gradient)."""
    from scipy.special import huber, logsumexp

    terms_3P = _terms(values_5, log_N, log_D)
    law_P = logsumexp(terms_3P, axis=0)
    parts_3P = np.exp(terms_3P - law_P)
    error_P = law_P - log_L
    slope_P = np.clip(error_P, -_DELTA, _DELTA) / _DELTA**2
    gradient = [slope_P @ part for part in (*parts_3P, -log_N * parts_3P[0], -log_D * parts_3P[1])]
    return float(huber(_DELTA, error_P).sum()) / _DELTA**2, np.array(gradient)


def _best_starts(log_N: np.ndarray, log_D: np.ndarray, log_L: np.ndarray, count: int) -> list[np.ndarray]:
    """Of a grid of exponents and shares of the smallest loss, the best."""
    smallest = log_L.min()
    starts = []
    for a in (0.1, 0.3, 0.5, 0.8, 1.2):
        for b in (0.1, 0.3, 0.5, 0.8, 1.2):
            for share_E in (0.1, 0.4, 0.7, 0.95):
                for share_A in (0.2, 0.5, 0.8):
                    rest = (1 - share_E) * math.exp(smallest)
                    starts.append(np.array([math.log(rest * share_A) + a * log_N.mean(),
                                            math.log(rest * (1 - share_A)) + b * log_D.mean(),
                                            smallest + math.log(share_E), a, b]))
    starts.sort(key=lambda start: _objective(start, log_N, log_D, log_L)[0])
    return starts[:count]


def _fit(log_N: np.ndarray, log_D: np.ndarray, log_L: np.ndarray, starts: Sequence[np.ndarray]) -> np.ndarray:
    """log A, log B, log E, a, b of the least objective.

    Minimized about the middle of N and D, where the amplitudes hardly depend on the exponents.
    """
    from scipy import optimize

    middle_N, middle_D = log_N.mean(), log_D.mean()
    best = None
    for start in starts:
        centered = np.array(start)
        centered[:2] -= start[3] * middle_N, start[4] * middle_D
        found = optimize.minimize(_objective, centered, (log_N - middle_N, log_D - middle_D, log_L), "L-BFGS-B",
                                  jac=True, bounds=_BOUNDS, options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8})
        if best is None or found.fun < best.fun:
            best = found
    values = best.x.copy()
    values[:2] += values[3] * middle_N, values[4] * middle_D
    return values


def _named(values_5: np.ndarray) -> dict[str, float]:
    log_A, log_B, log_E, a, b = map(float, values_5)
    return {"E": math.exp(log_E), "A": math.exp(log_A), "a": a, "B": math.exp(log_B), "b": b,
            "a_compute": b / (a + b) if a + b > 0 else 0.5}
