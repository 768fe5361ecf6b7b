"""Every table of configs/ablations: says what it is, passes the check, its models can be made, its rows train."""

import dataclasses
import functools
import json
import pathlib
import random
import re

import pytest

from purelm.ablation.check import check
from purelm.ablation.load import load_ablation
from purelm.ablation.plan import resolved_rows
from purelm.ablation.spec import BASE, Ablation
from purelm.config import Config, ModelConfig, finalize
from purelm.models.counting import count_parameters, parameter_shapes

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs" / "ablations").glob("*.py"))
NAMES = [path.stem for path in FILES]
PROMISED = {"attention_is_all_you_need", "glu_variants", "positions", "norms", "attention_heads", "optimizers",
            "t5_objectives", "lstm_vs_transformer", "small_scale_proxies", "scaling"}
STEPS = "training.num_steps"
WORDS = ("the", "king", "film", "good", "bad", "man", "sees", "ein", "mann", "dog", "speaks", "und", "hund", "night")


@functools.cache
def table(name: str) -> Ablation:
    return load_ablation(str(ROOT / "configs" / "ablations" / f"{name}.py"))


def finalized(config: Config) -> Config:
    return finalize(config, vocabulary_size=65, tokens_per_epoch=100_000, num_classes=2)


@functools.cache
def num_parameters(model: ModelConfig) -> int:
    """By shapes alone: jax.eval_shape computes nothing."""
    return count_parameters(parameter_shapes(model))


def sizes(name: str) -> dict[str, list[int]]:
    """row -> parameters of each stage's model."""
    # Of what decides no shape, one value: most rows then have the model of another.
    same = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0, "initialization_stddev": 0.02}
    return {row.name: [num_parameters(dataclasses.replace(finalized(config).model, **same))
                       for _, config in row.stage_configs] for row in resolved_rows(table(name))}


def test_every_table_that_was_promised_is_there():
    assert set(NAMES) >= PROMISED


@pytest.mark.parametrize("name", NAMES)
def test_a_table_says_what_it_is(name):
    # Reddens where the paper, the command, the scale's limits or what is expected is left out.
    text, ablation = (ROOT / "configs" / "ablations" / f"{name}.py").read_text(encoding="utf-8"), table(name)
    docstring = re.match(r'r?"""(.*?)"""', text, re.DOTALL)[1]
    command = " ".join(docstring.partition("Command:")[2].replace("\\", " ").split())
    assert command.startswith(f"python experiments/ablate.py --ablation=configs/ablations/{name}.py --workdir=runs/")
    assert f"--config.data.path={ablation.base.data.path}" in command or ablation.base.data.path is None
    assert re.search(r"arXiv \d{4}\.\d{5}", docstring)
    for part in ("Here: ", "Takes: "):
        assert f"\n{part}" in docstring, part
    assert ablation.title and ablation.source and ablation.compute
    assert ablation.expected_order or ablation.base_published or any(row.published for row in ablation.rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_passes_the_check(name):
    check(table(name), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_of_every_row_can_be_made(name):
    # Reddens where a width is no multiple of the heads, or a stage's model has none of the parameters before it.
    for row, counts in sizes(name).items():
        assert all(count > 0 for count in counts), row


def test_heads_that_are_shared_give_their_parameters_to_the_feed_forward():
    # Reddens where the saving is miscounted: a row that is also smaller says nothing of heads.
    counts = {row: count for row, (count,) in sizes("attention_heads").items()}
    assert all(count == counts[BASE] for row, count in counts.items() if row.endswith("_wide"))
    assert counts["mqa"] < counts["gqa2"] < counts["gqa4"] < counts[BASE]


def test_recurrent_networks_have_the_transformers_parameters():
    # Reddens where a hidden size is changed alone.
    counts = {row: count for row, (count,) in sizes("lstm_vs_transformer").items()}
    assert all(abs(count / counts[BASE] - 1) < 0.005 for count in counts.values()), counts


def test_the_scaling_grid_varies_parameters_and_tokens_apart():
    # Reddens where a size lacks a budget: the fit would take the one for the other.
    rows = resolved_rows(table("scaling"))
    cells = {(config.model.width, config.training.num_steps) for row in rows for _, config in row.stage_configs}
    assert len(cells) == len(rows) == len({width for width, _ in cells}) * len({steps for _, steps in cells})
    assert len({steps for _, steps in cells}) >= 3 and len({width for width, _ in cells}) >= 4


def shrunk(ablation: Ablation, path: pathlib.Path) -> Ablation:
    """The table on a tiny text, a few steps of a small batch, one seed, no search; its models are as they are."""
    rows = resolved_rows(ablation)
    found = sorted({config.training.num_steps for row in rows for _, config in row.stage_configs})
    few = {steps: number for number, steps in enumerate(found, 1)}  # What differs in steps alone still differs.

    def short(changes):
        return {field: few[value] if field == STEPS else value for field, value in changes.items()}

    base = ablation.base
    base = dataclasses.replace(
        base, data=dataclasses.replace(base.data, path=str(path), tokenizer_vocabulary_size=300,
                                       validation_fraction=0.2),
        optimizer=dataclasses.replace(base.optimizer, warmup="1"),
        training=dataclasses.replace(base.training, num_steps=few[base.training.num_steps], batch_size=2,
                                     accumulation_steps=1, evaluate_batches=1))
    return dataclasses.replace(
        ablation, base=base, seeds=1, search={}, fit="none", expected_order=(),
        stages=tuple(dataclasses.replace(stage, changes=short(stage.changes)) for stage in ablation.stages),
        evaluations=tuple(dataclasses.replace(evaluation, num_examples=4 if evaluation.answers else None)
                          for evaluation in ablation.evaluations),
        rows=tuple(dataclasses.replace(
            row, changes=short(row.changes), search={} if row.search else row.search,
            grid={field: tuple(few[value] for value in values) if field == STEPS else values
                  for field, values in row.grid.items()},
            stage_changes={stage: short(changes) for stage, changes in row.stage_changes.items()})
            for row in ablation.rows))


def write_data(folder: pathlib.Path, ablation: Ablation) -> pathlib.Path:
    """A text of characters, or JSON lines with every field that the tables read."""
    generator = random.Random(0)

    def sentence(length: int) -> str:
        return " ".join(generator.choice(WORDS) for _ in range(length))

    if ablation.base.data.tokenizer == "characters":
        path = folder / "input.txt"
        path.write_text("\n".join(sentence(12) for _ in range(400)), encoding="utf-8")
        return path
    path = folder / "data"
    path.mkdir()
    for split, count in (("train", 60), ("validation", 12), ("test", 12)):
        lines = [{"text": sentence(80), "label": generator.choice(("pos", "neg")), "en": sentence(8),
                  "de": sentence(8)} for _ in range(count)]
        (path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_row_trains_and_is_measured(name, tmp_path):
    # Reddens where a row is refused by its data, its task or its evaluation, which no check without data sees.
    from purelm.ablation import runner
    from purelm.ablation.launchers.here import HereLauncher

    ablation = shrunk(table(name), write_data(tmp_path, table(name)))
    summary = runner.run(ablation, str(tmp_path / "work"), launcher=HereLauncher(), quiet=True)
    assert summary.failed == ()
    assert summary.done == summary.cells == len(resolved_rows(ablation))
    for row in resolved_rows(ablation):
        cell = json.loads((tmp_path / "work" / "runs" / row.name / "0" / "cell.json").read_text(encoding="utf-8"))
        left_out = [metric.name for metric in ablation.metrics if metric.name not in cell["metrics"]]
        assert all(metric.split("/")[0] in cell["unavailable"] for metric in left_out), (row.name, left_out)
