"""A spec is checked before anything runs: each rule with an example that breaks it."""

import dataclasses
import subprocess
import sys

import pytest

from purelm.ablation.check import check
from purelm.ablation.metrics import metrics_given
from purelm.ablation.spec import Ablation, Evaluation, Metric, Row, Stage
from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
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
    (rows(WIDE, Row("b", {"model.width": 64})),
     "row 'b': is the same as row 'wide' (its changes: config.model.width=64)"),
    (rows(WIDE, Row("b", {"model.width": 32})), "row 'b': changes nothing of the base"),
    (rows(WIDE, Row("b", {})), "row 'b': changes nothing of the base (its changes: none)"),
    (rows(WIDE, Row("b", {"model.head_size": 8})), "row 'b': changes nothing of the base"),  # 32 / 4, written out.
    (rows(WIDE, Row("Wide", {"model.width": 128})), "two rows are named 'wide' and 'Wide', one folder on some systems"),
    (rows(WIDE, Row("base", {"model.width": 128})), "row 'base': that is the name of the table's base"),
    (rows(WIDE, Row("a/b", {"model.width": 128})), "row 'a/b': a name is of letters, digits and ._+-"),
    (rows(), "has no rows beside the base; give at least one"),
    (rows(Row("b", {"seed": 1})), "row 'b': config.seed: every row has the table's seeds"),
    (rows(Row("b", {"model.width": 64}, published={"validation/los": 1.0})), "no metric 'validation/los'; did you"),
    (rows(Row("b", {"model.width": 64}, compare_to="bas")), "compare_to: there is no row 'bas'; did you mean 'base'?"),
    (rows(Row("b", {"model.width": 64}, compare_to="b")), "compare_to is the row itself"),
    (rows(Row("b", grid={"model.width": (64, 65)})), "row 'b,width=65': config.model"),
    (rows(Row("b", grid={"model.width": ()})), "row 'b': grid: config.model.width has no values"),
    (rows(Row("b", grid={"model.width": (64, 64)})), "row 'b': grid: config.model.width has the value 64 twice"),
    (rows(Row("b", grid={"model.wide": (64,)})), "did you mean 'model.width'?"),
    (rows(Row("b", {"model.width": 64}, search={"optimizer.rate": (1e-3,)})), "config.optimizer.rate does not exist"),
    (rows(Row("b", {"model.width": 64}, search={"optimizer.learning_rate": (1e-3, -1.0)})),
     "row 'b@learning_rate=-1': config.optimizer.learning_rate=-1.0: must be above 0"),
    (rows(Row("b", {"model.width": 64}, search={"model.width": (64, 96)})),
     "config.model.width is both changed and searched"),
    (rows(Row("b", {"model.width": 64}, stage_changes={"tune": {}})), "stage_changes: the table has no stage 'tune'"),
    ({"stages": (Stage("pretrain"), Stage("pretrain"))}, "two stages are named 'pretrain'"),
    ({"stages": (Stage("a"), Stage("b", {"init_from": "runs/a"}))},
     "stage 'b': config.init_from: give it in the first stage's changes"),
    ({"stages": (Stage("a"), Stage("b", {"training.steps": 1}))}, "stage 'b': config.training.steps does not exist"),
    ({"metrics": ()}, "has no metrics; give at least one"),
    ({"metrics": (Metric("test/loss", "loss", "lower"),)}, "metric 'test/loss': there is no evaluation 'test'"),
    ({"metrics": (Metric("loss", "loss", "lower"),)},
     "metric 'loss': a metric is named EVALUATION/METRIC, such as 'validation/loss'"),
    ({"metrics": (Metric("validation/loss", "loss", "lowest"),)},
     "direction='lowest' is not known; did you mean 'lower'?"),
    ({"metrics": (LOSS, LOSS)}, "two metrics are named 'validation/loss'"),
    ({"metrics": (dataclasses.replace(LOSS, tolerance=0.0),)}, "tolerance=0.0: give a number above 0, or None"),
    ({"evaluations": (Evaluation("validation", split="dev"),)}, "evaluation 'validation': split='dev'"),
    ({"evaluations": (Evaluation("validation", changes={"model.context": 512}),)}, "evaluation 'validation': config."),
    ({"evaluations": (Evaluation("validation", changes={"model.context_length": 256}),)}, "its changes have no effect"),
    ({"seeds": 0}, "seeds=0: give at least 1"),
    ({"seeds": (0, 0)}, "seeds=(0, 0): one is there twice"),
    ({"seeds": (0, -1)}, "-1 is no seed"),
    ({"search_seeds": ()}, "search_seeds: give at least one"),
    ({"expected_order": ("base", "heads3")}, "no row 'heads3'; did you mean 'heads2'?"),
    ({"test": "t"}, "test='t' is not known; one of paired_t, dunnett"),
    ({"confidence": 95}, "confidence=95: must be at least 0.5"),
    ({"base": {}}, "base={}: wants Config(...)"),
    ({"rows": [WIDE]}, "rows: wants a tuple of Row"),
    ({"rows": ("wide",)}, "rows[0]: wants Row(...), not 'wide'"),
    (rows(Row("b", ["model.width"])), "row 'b': changes=['model.width']: wants a mapping such as {'model.width': 64}"),
    (rows(Row("b", {"model.width": 64}, search={"optimizer.learning_rate": 1e-3})),
     "row 'b': search={'optimizer.learning_rate': 0.001}: wants a mapping to tuples"),
    (rows(Row("b", {"model.width": 64}, published={"validation/loss": "2.5"})), "wants a mapping such as {'test/loss'"),
    (rows(Row("b", {"model.width": 64}, published={"validation/loss": float("nan")})), "published={'validation/loss'"),
    ({"seeds": [0, 1]}, "seeds=[0, 1]: wants a whole number or a tuple"),
    ({"seeds": True}, "seeds=True: wants a whole number or a tuple"),
    (rows(Row(".b", {"model.width": 64})), "row '.b': a name is of letters"),
    (rows(Row("b.", {"model.width": 64})), "row 'b.': a name is of letters"),
    (rows(Row("b" * 250, {"model.width": 64})), "its name is too long for a folder"),
    (rows(Row("b", {"data.cache_dir": "x"})), "row 'b': config.data.cache_dir is of this machine"),
    (rows(Row("b", {"model.width": 64}, grid={"model.width": (64, 96)})), "config.model.width is both changed and in"),
    (rows(Row("b", grid={"model.width": (64, 96)}, published={"validation/loss": 1.0})), "published numbers beside a"),
    (rows(Row("b", grid={"optimizer.warmup": ("5%", "5")})), "two rows (of a grid) are named 'b,warmup=5'"),
    (rows(Row("b", {"model.width": 64}, search={"optimizer.learning_rate": (1e-3,)})), "its search has a single point"),
    (rows(Row("b", {"optimizer.learning_rate": 1e-4}), Row("c", {"model.width": 64}, search={}))
     | {"search": {"optimizer.learning_rate": (1e-3, 1e-2)}}, "row 'b': config.optimizer.learning_rate is both changed "
                                                              "and searched; leave one out"),
    ({"search": {"optimizer.learning_rate": (1, 1.0)}},
     "table.py: search: config.optimizer.learning_rate has the value"),
    ({"search": {"model.head_size": (None, 16)}}, "row 'heads2': its search has two points that are the same"),
    ({"search": {"optimizer.learning_rate": (1e-3, 1e-2)}, "search_seeds": (1,)}, "search_seeds: 1 is among the rows'"),
    ({"stages": (Stage("a"), Stage("b", {"model.num_heads": 3}))},
     "base, stage 'b': config.model.num_heads=3 does not"),
    ({"stages": (Stage("a"),), "rows": (Row("b", {"init_from": "runs/x"}),)}, "row 'b': config.init_from: give it in"),
    (rows(Row("b", {"model.width": 64}, compare_to="base"), Row("c", {"model.width": 96}, compare_to="b"))
     | {"test": "dunnett"}, "row 'c': compare_to='b': Dunnett's test compares all rows with the base"),
    ({"metrics": (Metric("validation/los", "loss", "lower"),)}, "gives no 'los'; did you mean 'loss'?"),
    ({"metrics": (Metric("validation/bleu", "BLEU", "higher"),)}, "an evaluation of language_modeling gives no 'bleu'"),
    ({"metrics": (dataclasses.replace(LOSS, digits=-1),)}, "digits=-1: give at least 0"),
    ({"evaluations": (Evaluation("validation", checkpoint="best"),),
      "rows": (Row("b", {"training.keep_best": False}),)}, "row 'b': evaluation 'validation': checkpoint='best' needs"),
    ({"evaluations": (Evaluation("validation", changes={"model.width": 64}),)},
     "config.model.width is of the training"),
    ({"evaluations": (Evaluation("validation", changes={"decoding.beam_size": 4}),)},
     "base: evaluation 'validation': config.decoding.beam_size=4 has no effect with config.task.name"),
    ({"evaluations": (Evaluation("validation", answers=False, num_examples=5),)}, "num_examples=5: it has no effect"),
    ({"evaluations": (Evaluation("validation", num_examples=0),)}, "num_examples=0: give at least 1"),
    ({"evaluations": (Evaluation("a/b"), Evaluation("validation"))}, "evaluation 'a/b': a name is of letters"),
    ({"expected_order": ("base",)}, "expected_order: one row has no order"),
    ({"expected_order": ("base", "base")}, "expected_order: two are named 'base'"),
    ({"base": Config()}, "table.py: base: config.training: no length is set"),
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
    rows(Row("tuned", search={"optimizer.learning_rate": (1e-4, 1e-3)})),  # A search alone is a difference.
    # Rows equal but for what is searched are two rows.
    rows(Row("a", {"model.width": 64}, search={"optimizer.learning_rate": (1e-4, 1e-3)}),
         Row("b", {"model.width": 64}, search={"optimizer.weight_decay": (0.1, 0.2)})),
])
def test_what_is_right_passes(changes):
    check(table(**changes), "table.py")


def translation(metric: str, *, answers: bool = True) -> Ablation:
    base = Config(model=ModelConfig(architecture="encoder_decoder", width=32), data=DataConfig(format="pairs"),
                  task=TaskConfig("sequence_to_sequence", metrics=("bleu",)), training=TrainingConfig(num_steps=10))
    return table(base=base, metrics=(Metric(f"test/{metric}", "x", "higher"),),
                 evaluations=(Evaluation("test", "test", answers=answers),))


def test_metrics_are_those_of_the_task_and_need_its_answers():
    check(translation("bleu"), "t")
    check(translation("perplexity", answers=False), "t")
    with pytest.raises(UserError, match="gives no 'blue'; did you mean 'bleu'"):
        check(translation("blue"), "t")
    with pytest.raises(UserError, match="gives no 'rouge1'"):  # task.metrics has bleu alone.
        check(translation("rouge1"), "t")
    with pytest.raises(UserError, match="'test/bleu' is one of answers: set answers=True"):
        check(translation("bleu", answers=False), "t")


def test_the_metrics_known_are_what_the_evaluators_give():
    # Reddens where an evaluator gets a metric, or loses one, that check would then refuse or let through.
    from purelm.evaluation import code_generation, dialogue, squad_metrics, tagging, text_metrics

    def known(task: str, **fields) -> set[str]:
        return set(metrics_given(Config(task=TaskConfig(task, **fields)), answers=True))

    def numbers(found: dict) -> set[str]:
        return {name for name, value in found.items() if isinstance(value, (float, dict))}

    texts, references = ["a b c d e"], [["a b c d f"]]
    for name in ("bleu", "chrf", "rouge", "squad"):
        options = {"tokenizer": "13a"} if name == "bleu" else {}
        given = numbers(getattr(text_metrics, name)(texts, references, **options))
        assert given and given == known("sequence_to_sequence", metrics=(name,)) - known("language_modeling") - {
            "seconds_to_answer"}
    assert numbers(dialogue.reply_scores(texts, references[0], "13a")) <= known("dialogue")
    assert numbers(squad_metrics.measure(texts, references, "squad")) <= known("extractive_qa")
    assert numbers(tagging.entity_scores([["B-x"]], [["B-x"]])) <= known("tagging")
    assert {f"pass_at_{k}" for k in code_generation._KS} <= known("code_generation")


def test_a_slip_in_row_17_is_found_and_jax_is_not_needed(tmp_path):
    # Reddens where planning imports jax, which is what a person would wait for.
    (tmp_path / "table.py").write_text(
        "from purelm.ablation.spec import *\nfrom purelm.config import *\n"
        "def get_ablation():\n"
        "    rows = [Row(f'r{i}', {'model.width': 4 * i}) for i in range(1, 17)] + [Row('r17', {'model.wdth': 4})]\n"
        "    return Ablation('t', 's', Config(training=TrainingConfig(num_steps=2)), tuple(rows),\n"
        "                    (Metric('validation/loss', 'loss', 'lower'),))\n")
    code = ("import dataclasses, sys\nfrom purelm.ablation import check, load, plan\n"
            "from purelm.errors import UserError\n"
            f"table = load.load_ablation({str(tmp_path / 'table.py')!r})\n"
            "try:\n    check.check(table, 'table.py')\nexcept UserError as error:\n    print(error)\n"
            "right = dataclasses.replace(table, rows=table.rows[:16])\n"
            "check.check(right, 'table.py')\nassert len(plan.plan_cells(right)) == 17 * 3\n"
            "assert not {'jax', 'flax', 'scipy', 'matplotlib'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "table.py: row 'r17': config.model.wdth does not exist; did you mean 'model.width'?" in done.stdout
