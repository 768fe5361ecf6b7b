"""Tables made by hand, with everything that a report must be able to show."""

from __future__ import annotations

import dataclasses
import math

from purelm.ablation.spec import Metric
from purelm.ablation.table import Agreement, Costs, Noise, Result, Search, Table, TableRow

LOSS = Metric("validation/loss", "validation loss", "lower", digits=3)
BLEU = Metric("test/bleu", "BLEU", "higher", digits=1, tolerance=1.0)
NASTY = r"""50% & <b>"x"</b> | a_b $y^2$ {#~\} `z`, 'q'"""
NO_RESULT = Result({}, None, None, None, None, None, None, "missing", None, None, None)
NO_COSTS = Costs(None, None, None, None, None, None)


def result(values, base=None, p=None, published=None, published_base=None, metric=LOSS, reproduced=None) -> Result:
    """A row's numbers from its values; `base` are the base's, None for the base itself."""
    if not values:
        return dataclasses.replace(NO_RESULT, published=published, published_difference=(
            None if published is None or published_base is None else published - published_base))
    mean = sum(values) / len(values)
    spread = (sum((value - mean)**2 for value in values) / (len(values) - 1))**0.5 if len(values) > 1 else None
    difference = interval = adjusted = None
    verdict = "base"
    if base is not None:
        difference = mean - sum(base[:len(values)]) / len(values)
        verdict = "too few seeds"
        if len(values) > 1:
            half = 2.5 * spread
            interval = (difference - half, difference + half)
            adjusted = min(1.0, 10 * p)
            verdict = "within noise"
            if adjusted < 0.05:
                verdict = "better" if (difference < 0) == (metric.direction == "lower") else "worse"
    return Result({str(seed): value for seed, value in enumerate(values)}, mean, spread, difference, interval,
                  None if interval is None else p, adjusted, verdict, published,
                  None if published is None or published_base is None else published - published_base, reproduced)


def row(name, label, group, changes, losses, bleus, *, p=0.2, published=None, costs=NO_COSTS, cells=None, search=None,
        notes=()) -> TableRow:
    base = name == "base"
    published_loss, published_bleu = published or (None, None)
    results = {
        LOSS.name: result(losses, None if base else BASE_LOSSES, p, published_loss, None if base else 4.92),
        BLEU.name: result(bleus, None if base else BASE_BLEUS, p, published_bleu, None if base else 25.8, BLEU,
                          None if published_bleu is None or not bleus else abs(bleus[0] - published_bleu) < 1)}
    cells = {"0": "done", "1": "done", "2": "done"} if cells is None else cells
    runs = {seed: f"runs/{name}/{seed}" for seed, state in cells.items() if state != "missing"}
    return TableRow(name, label, group, changes, results, costs, cells, runs, search, tuple(notes))


BASE_LOSSES = (4.91, 4.93, 4.95)
BASE_BLEUS = (25.1, 25.4, 24.9)


def example_table() -> Table:
    """As Vaswani et al. 2017, table 3, with a row of every kind of trouble."""
    search = Search((({"optimizer.learning_rate": 1e-4}, 5.61), ({"optimizer.learning_rate": 3e-4}, 5.02),
                     ({"optimizer.learning_rate": 1e-3}, 4.88), ({"optimizer.learning_rate": 3e-3}, None)),
                    {"optimizer.learning_rate": 1e-3}, False, 0.29)
    edge = Search((({"optimizer.learning_rate": 1e-4}, 5.40), ({"optimizer.learning_rate": 3e-4}, 5.12),
                   ({"optimizer.learning_rate": 1e-3}, 5.01), ({"optimizer.learning_rate": 3e-3}, 4.97)),
                  {"optimizer.learning_rate": 3e-3}, True, 0.155)
    rows = (
        row("base", "base", "", {}, BASE_LOSSES, BASE_BLEUS, published=(4.92, 25.8),
            costs=Costs(1_950_000, 11_700_000, 0.0123, 310 * 2**20, 4096, 185.0)),
        row("A1", "h = 1, d_k = 512", "(A)", {"model.num_heads": 1, "model.head_size": 512}, (5.22, 5.24, 5.26),
            (24.0, 24.1, 23.7), p=0.001, published=(5.29, 24.9),
            costs=Costs(1_950_000, 11_700_000, 0.0118, 290 * 2**20, 4096, 180.0)),
        row("A2", "", "(A)", {"model.num_heads": 4}, (4.95, 4.92, 4.97), (25.0, 25.3, 24.7), published=(5.00, 25.5),
            costs=Costs(1_950_000, 11_700_000, 0.0121, 300 * 2**20, 4096, 184.0)),
        row("B1", "d_k = 16", "(B)", {"model.head_size": 16}, (5.02,), (24.6,), published=(5.16, 25.1),
            costs=Costs(1_710_000, 10_300_000, 0.0117, None, 1024, 171.0),
            cells={"0": "done", "1": "running", "2": "missing"}, notes=("stopped at step 300 of 500 (SIGTERM)",)),
        row("B2", "d_k = 32", "(B)", {"model.head_size": 32}, (), (), published=(5.01, 25.4),
            cells={"0": "failed", "1": "failed", "2": "failed"}, notes=("seed 0: loss is NaN at step 120",)),
        row("C1", NASTY, "(C) & co_", {"model.num_layers": 2, "model.note": "a|b"}, (4.70, 4.72, 4.71),
            (26.1, 26.2, 26.6), p=0.0002, published=(6.11, 23.7), search=search,
            costs=Costs(3_400_000, 20_400_000, 0.0203, 512 * 2**20, 8192, 302.0)),
        row("C2", "无位置编码", "(C) & co_", {"model.positions": "none", "optimizer.no_decay": ("bias", "norm")},
            (4.99, 4.90, 4.98), (24.9, 25.4, 25.2), p=0.3, search=edge,
            costs=Costs(1_900_000, 11_400_000, 0.0119, 301 * 2**20, 4096, 3720.0),
            notes=("the best learning rate is the largest searched",)),
        row("big", "big", "", {"model.width": 1024}, (4.41, 4.40, 4.44), (), p=0.0001, published=(4.33, 26.4),
            costs=Costs(21_300_000, 128_000_000, 0.131, 1900 * 2**20, 16384, 1999.0),
            notes=("test/bleu: not measured (answers were off)",)),
        row("E", "nothing yet", "", {"model.bias": False}, (), (), costs=NO_COSTS,
            cells={"0": "missing", "1": "missing", "2": "missing"}),
    )
    return Table(
        "Attention is all you need, table 3", "Vaswani et al. 2017, arXiv 1706.03762, table 3",
        "Multi30k, 3 M parameters, 5 epochs: the order of (A) can be compared, absolute BLEU cannot.",
        (LOSS, BLEU), rows, {LOSS.name: Noise(0.02, 3, 0.075, 0.8), BLEU.name: Noise(0.25, 3, 0.94, 0.8)},
        (Agreement(LOSS.name, "published", 6, 0.73, (0.47, 0.87), 0.06, (4, 5)),
         Agreement(BLEU.name, "expected order", 5, None, None, None, None)),
        None, "paired_t", "t", 0.95,
        {"date": "2026-11-22", "command": "python experiments/ablate.py --ablation=configs/ablations/x.py --workdir=w",
         "commits": ("9d34b06",), "versions": {"jax": "0.10.2", "numpy": "2.1.0"}, "devices": ("cpu (2 cores)",),
         "seconds": 7421.0},
        ("Shorter training than the paper's.",))


def example_curves(table: Table | None = None, steps: int = 10) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Falling losses for each seed that has a result."""
    table = example_table() if table is None else table
    metric = table.metrics[0].name
    return {row.name: {seed: [(50 * (step + 1), value + 3 * math.exp(-0.5 * step) + 0.03 * math.sin(9 * value + step))
                              for step in range(steps)] for seed, value in row.results[metric].values.items()}
            for row in table.rows if row.results[metric].values}


def fit_table() -> Table:
    """The example with a fitted law of loss over parameters and tokens."""
    law = {"E": 1.7, "A": 90.0, "a": 0.34, "B": 410.0, "b": 0.36, "a_compute": 0.51}
    points = []
    for size in (1e5, 4e5, 1.6e6, 6.4e6):
        for tokens in (1e6, 4e6, 1.6e7):
            for seed in range(2):
                predicted = law["E"] + law["A"] / size ** law["a"] + law["B"] / tokens ** law["b"]
                points.append({"row": f"N{size:g}D{tokens:g}", "seed": str(seed), "parameters": int(size),
                               "tokens": int(tokens), "loss": predicted * (1 + 0.01 * math.sin(size + tokens + seed)),
                               "predicted": predicted})
    intervals = {name: (0.9 * value, 1.1 * value) for name, value in law.items()}
    return dataclasses.replace(example_table(), fit={
        "law": "loss = E + A / N^a + B / D^b", "parameters": law, "intervals": intervals, "confidence": 0.95,
        "interval_method": "bootstrap over the points' residuals, 200 resamples", "residual": 0.0071,
        "points": tuple(points)})


def large_table(num_rows: int = 30) -> Table:
    """As wide a table as a paper has: five groups, long labels."""
    rows = [row("base", "base (2 layers, width 128)", "", {}, BASE_LOSSES, BASE_BLEUS, published=(4.92, 25.8))]
    for index in range(1, num_rows):
        shift = 0.9 * math.sin(2.3 * index)**3
        losses = tuple(value + shift + 0.03 * math.sin(7 * index * (seed + 1))
                       for seed, value in enumerate(BASE_LOSSES))
        published = (4.92 + 0.8 * shift + 0.05 * math.cos(index), 25.8 - 3 * shift) if index % 3 else None
        rows.append(row(f"R{index}", f"layers {index % 7}, width {64 * index}, {'learned' if index % 2 else 'rotary'} "
                        "positions", f"({'ABCDE'[5 * (index - 1) // (num_rows - 1)]})",
                        {"model.width": 64 * index, "model.num_layers": index % 7}, losses,
                        tuple(value - 4 * shift for value in BASE_BLEUS), p=0.001 if abs(shift) > 0.1 else 0.3,
                        published=published,
                        costs=Costs(1_000_000 + 90_000 * index, 6_000_000, 0.01, 2**28, 2048, 100.0)))
    return dataclasses.replace(example_table(), title="A large table", rows=tuple(rows))
