"""A spec is checked before anything runs: each rule with an example that breaks it."""

import dataclasses
import subprocess
import sys

import pytest

from purelm.ablation.check import check
from purelm.ablation.spec import Ablation, Evaluation, Metric, Row, Stage
from purelm.config import Config, ModelConfig, TrainingConfig
from purelm.errors import UserError

LOSS = Metric("validation/loss", "loss", "lower")


def table(**changes) -> Ablation:
    base = Config(model=ModelConfig(width=32, num_heads=4), training=TrainingConfig(num_steps=10))
    fields = dict(title="a table", source="a paper", base=base, rows=(Row("heads2", {"model.num_heads": 2}),),
                  metrics=(LOSS,))
    return Ablation(**(fields | changes))


def rows(*parts: Row) -> dict:
    return {"rows": parts}


WIDE = Row("wide", {"model.width": 64})


@pytest.mark.parametrize("changes, said", [
    (rows(WIDE, Row("b", {"model.num_head": 2})), "row 'b': config.model.num_head does not exist; did you mean "
                                                  "'model.num_heads'?"),
    (rows(WIDE, Row("b", {"num_heads": 2})), "did you mean 'model.num_heads'?"),
    (rows(WIDE, Row("b", {"config.model.num_heads": 2})), "without 'config.', as 'model.num_heads'"),
    (rows(WIDE, Row("b", {"model.num_heads": "two"})), "row 'b': config.model.num_heads='two': wants a whole number"),
    (rows(WIDE, Row("b", {"model.num_heads": 3})), "row 'b': config.model"),
    (rows(WIDE, Row("b", {"model.positions": "rop"})), "row 'b': config.model.positions='rop' is not known; did you "
                                                       "mean 'rope'?"),
    (rows(WIDE, Row("b", {"model.width": 64})), "row 'b': is the same as row 'wide': model.width=64"),
    (rows(WIDE, Row("b", {"model.width": 32})), "row 'b': changes nothing of the base"),
    (rows(WIDE, Row("b", {})), "row 'b': changes nothing of the base: it has no changes"),
    (rows(WIDE, Row("b", {"model.head_size": 8})), "row 'b': changes nothing of the base"),  # 32 / 4, written out.
    (rows(WIDE, Row("Wide", {"model.width": 128})), "row 'Wide': another row is named 'wide'"),
    (rows(WIDE, Row("base", {"model.width": 128})), "row 'base': is the table's base already"),
    (rows(WIDE, Row("a/b", {"model.width": 128})), "row 'a/b': a name has letters"),
    (rows(), "no rows"),
    (rows(Row("b", {"seed": 1})), "row 'b': seed: is not a row's to change; give the table's seeds"),
    (rows(Row("b", {"model.width": 64}, published={"validation/los": 1.0})), "no metric 'validation/los'; did you"),
    (rows(Row("b", {"model.width": 64}, compare_to="bas")), "no other row 'bas'; did you mean 'base'?"),
    (rows(Row("b", {"model.width": 64}, compare_to="b")), "no other row 'b'"),
    (rows(Row("b", grid={"model.width": (64, 65)})), "row 'b,width=65': config.model"),
    (rows(Row("b", grid={"model.width": ()})), "row 'b': grid: model.width: wants a tuple of values"),
    (rows(Row("b", grid={"model.width": (64, 64)})), "a value is there twice"),
    (rows(Row("b", grid={"model.wide": (64,)})), "did you mean 'model.width'?"),
    (rows(Row("b", {"model.width": 64}, search={"optimizer.rate": (1e-3,)})), "config.optimizer.rate does not exist"),
    (rows(Row("b", {"model.width": 64}, search={"optimizer.learning_rate": (1e-3, -1.0)})),
     "search, optimizer.learning_rate=-1.0: config.optimizer.learning_rate=-1.0: must be above 0"),
    (rows(Row("b", {"model.width": 64}, search={"model.width": (64, 96)})), "is among the row's changes too"),
    (rows(Row("b", {"model.width": 64}, stage_changes={"tune": {}})), "no stage 'tune'"),
    ({"stages": (Stage("pretrain"), Stage("pretrain"))}, "stages: 'pretrain' is there twice"),
    ({"stages": (Stage("a"), Stage("b", {"init_from": "runs/a"}))}, "starts from the one before it"),
    ({"stages": (Stage("a"), Stage("b", {"training.steps": 1}))}, "stage 'b': config.training.steps does not exist"),
    ({"metrics": ()}, "no metrics"),
    ({"metrics": (Metric("test/loss", "loss", "lower"),)}, "metric 'test/loss': no evaluation 'test'"),
    ({"metrics": (Metric("loss", "loss", "lower"),)}, "wants EVALUATION/METRIC"),
    ({"metrics": (Metric("validation/loss", "loss", "lowest"),)}, "direction='lowest'; did you mean 'lower'?"),
    ({"metrics": (LOSS, LOSS)}, "metrics: 'validation/loss' is there twice"),
    ({"metrics": (dataclasses.replace(LOSS, tolerance=0.0),)}, "tolerance=0.0: must be above 0"),
    ({"evaluations": (Evaluation("validation", split="dev"),)}, "evaluation 'validation': split='dev'"),
    ({"evaluations": (Evaluation("validation", changes={"model.context": 512}),)}, "evaluation 'validation': config."),
    ({"evaluations": (Evaluation("validation", changes={"model.context_length": 256}),)}, "change nothing of the base"),
    ({"seeds": 0}, "seeds=0: wants how many"),
    ({"seeds": (0, 0)}, "seeds: '0' is there twice"),
    ({"seeds": (0, -1)}, "-1 is no seed"),
    ({"search_seeds": ()}, "search_seeds: there is none"),
    ({"expected_order": ("base", "heads3")}, "no row 'heads3'; did you mean 'heads2'?"),
    ({"test": "t"}, "test='t'; one of paired_t, dunnett"),
    ({"confidence": 95}, "confidence=95: must be at least 0.5"),
    ({"base": {}}, "base: wants a Config"),
    ({"rows": [WIDE]}, "rows: wants a tuple of Row"),
])
def test_what_is_wrong_is_named_before_anything_runs(changes, said):
    with pytest.raises(UserError) as error:
        check(table(**changes), "table.py")
    assert str(error.value).startswith("table.py: ") and said in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [
    {}, rows(Row("b", grid={"model.width": (64, 96), "model.num_layers": (2, 3)})),
    rows(Row("b", {"optimizer.name": "lion"}, search={"optimizer.learning_rate": (1e-4, 1e-3)})),
    {"seeds": (3, 1, 7), "evaluations": (Evaluation("validation"), Evaluation("x2", changes={
        "model.context_length": 512}))},
    {"stages": (Stage("pretrain"), Stage("tune", {"training.num_steps": 5})),
     "rows": (Row("b", stage_changes={"tune": {"model.residual_dropout": 0.1}}),)},
    # Rows equal but for what is searched are two rows.
    rows(Row("a", {"model.width": 64}, search={"optimizer.learning_rate": (1e-4, 1e-3)}),
         Row("b", {"model.width": 64}, search={"optimizer.weight_decay": (0.1, 0.2)})),
])
def test_what_is_right_passes(changes):
    check(table(**changes), "table.py")


def test_a_slip_in_row_17_is_found_and_jax_is_not_needed(tmp_path):
    # Reddens where planning imports jax, which is what a person would wait for.
    (tmp_path / "table.py").write_text(
        "from purelm.ablation.spec import *\nfrom purelm.config import *\n"
        "def get_ablation():\n"
        "    rows = [Row(f'r{i}', {'model.width': 4 * i}) for i in range(1, 17)] + [Row('r17', {'model.wdth': 4})]\n"
        "    return Ablation('t', 's', Config(training=TrainingConfig(num_steps=2)), tuple(rows),\n"
        "                    (Metric('validation/loss', 'loss', 'lower'),))\n")
    code = ("import sys\nfrom purelm.ablation import check, load, plan\nfrom purelm.errors import UserError\n"
            f"table = load.load_ablation({str(tmp_path / 'table.py')!r})\n"
            "try:\n    check.check(table, 'table.py')\nexcept UserError as error:\n    print(error)\n"
            "assert not {'jax', 'flax', 'scipy', 'matplotlib'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "table.py: row 'r17': config.model.wdth does not exist; did you mean 'model.width'?" in done.stdout
