import json

import pytest

from purelm.config import Config, ModelConfig, TaskConfig
from purelm.errors import UserError
from purelm.training.evaluation import metrics_of, sum_batches
from purelm.training.hardware import model_flops_utilization, peak_flops
from purelm.training.loop import weighs_every_token
from purelm.training.metrics import MetricsWriter, read_rows
from purelm.training.plots import draw_curves


def test_rows_come_back_and_those_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, resume_step=0)
    for step in (1, 2, 3):
        writer.write(step, "train", {"loss": float(step)})
    writer.write(3, "validation", {"loss": float("nan")})
    writer.close()
    with path.open("a") as file:
        file.write('{"step": 4, "spl')  # kill -9 in the middle of a row
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 3]
    assert read_rows(path)[-1]["loss"] is None
    writer = MetricsWriter(path, resume_step=2)
    writer.write(3, "train", {"loss": 5.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in map(json.loads, path.read_text().splitlines())] == [
        (1, 1.0), (2, 2.0), (3, 5.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_damaged_row_in_the_middle_is_named_with_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train"}\n{"st\n{"step": 2, "split": "train"}\n')
    with pytest.raises(UserError, match="metrics.jsonl:2"):
        read_rows(path)


def test_sums_of_batches_are_divided_once():
    batches = [{"cross_entropy": 2.0, "weight": 1.0, "correct": 1.0},
               {"cross_entropy": 9.0, "weight": 9.0, "correct": 0.0}]
    totals = sum_batches(lambda batch: batch, batches)
    metrics = metrics_of(totals, unit="tokens", num_bytes=10)
    assert "perplexity" not in metrics_of(totals, unit="examples", num_bytes=None)
    assert metrics["loss"] == pytest.approx(1.1)  # a mean of means would be 1.5
    assert metrics["accuracy"] == pytest.approx(0.1)
    assert metrics["bits_per_byte"] == pytest.approx(11 / 10 / 0.6931471805599453)
    assert metrics["perplexity"] == pytest.approx(2.718281828**1.1)


@pytest.mark.parametrize("totals", [{}, {"cross_entropy": 0.0, "weight": 0.0}])
def test_a_split_where_nothing_counts_is_refused(totals):
    """Reddens when a split without records, or without labels, ends in a traceback."""
    with pytest.raises(UserError, match="no words to measure a loss on"):
        metrics_of(totals, unit="words", num_bytes=None)


def test_curves_are_a_picture_and_no_rows_make_none(tmp_path):
    draw_curves([], tmp_path / "none.png", "empty")
    assert not (tmp_path / "none.png").exists()
    rows = [{"step": 1, "split": "train", "loss": 2.0, "learning_rate": 0.1},
            {"step": 2, "split": "train", "loss": None, "learning_rate": 0.1},
            {"step": 2, "split": "validation", "loss": 1.0}]
    draw_curves(rows, tmp_path / "curves.png", "a run")
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_peaks_are_looked_up_by_the_longest_name():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v5p") == peak_flops("TPU v5") == 459e12
    assert (peak_flops("NVIDIA L4"), peak_flops("NVIDIA L40S"), peak_flops("NVIDIA L400")) == (121e12, 362e12, None)
    assert peak_flops("cpu") is None
    assert model_flops_utilization(1e6, 1e9, "NVIDIA A100-SXM4-80GB", 8) == pytest.approx(1e15 / (8 * 312e12))
    assert model_flops_utilization(1e6, 1e9, "cpu", 8) is None


@pytest.mark.parametrize("task, model, every", [
    ("language_modeling", {}, True), ("language_modeling", {"prefix_attention": True}, False),
    ("code_generation", {}, True), ("masked_language_modeling", {"architecture": "encoder"}, False),
    ("dialogue", {}, False),
])
def test_utilization_is_of_tasks_that_weigh_every_token(task, model, every):
    """Reddens when the rate of a few weighed tokens is taken for the rate of all."""
    assert weighs_every_token(Config(task=TaskConfig(name=task), model=ModelConfig(**model))) is every
