"""What stands between the harness and a model: windows, rows and programs; and the task files that come with us."""

import ast
import dataclasses
import importlib.util
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import Config, ModelConfig
from purelm.errors import UserError
from purelm.inference import Sampler
from purelm.interop.harness import scoring
from purelm.interop.harness.scoring import Window, make_rows, padded, score_windows
from purelm.interop.harness.texts import rolling_windows
from purelm.interop.harness.writing import cut_before, parse_arguments, wanted
from purelm.models import make_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = {
    "decoder": ModelConfig(vocabulary_size=50, context_length=24, num_layers=2, width=16, num_heads=2),
    "prefix": ModelConfig(vocabulary_size=50, context_length=24, num_layers=1, width=16, num_heads=2,
                          prefix_attention=True),
    "recurrent": ModelConfig(architecture="recurrent", vocabulary_size=50, context_length=24, num_layers=1, width=16),
}


def windows_of(seed=0):
    """Of many lengths, some longer than the context, some twice, and some that differ in the last id alone."""
    random = np.random.default_rng(seed)
    found = [Window(tuple(random.integers(0, 50, random.integers(1, 30)).tolist()),
                    tuple(random.integers(0, 50, random.integers(1, 8)).tolist())) for _ in range(9)]
    context = found[0].context
    return [*found, found[3], Window(context, (1, 2, 3)), Window(context, (1, 2, 4)), Window((*context, 1), (2, 4)),
            Window((*context, 1, 2), (5,))]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_each_window_alone(name, monkeypatch):
    """Reddens where padding is seen, a place is off, rows are shared that differ, or chunks of V are lost."""
    config = dataclasses.replace(Config(), model=MODELS[name])
    model = make_model(config.model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 24), jnp.int32))["params"]
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: 0.3 * random.standard_normal(leaf.shape, np.float32), shapes)
    windows = windows_of()
    if name == "recurrent":  # A small chunk, so that the vocabulary is taken in several.
        monkeypatch.setattr(scoring, "_LOGIT_BYTES", 0)
        monkeypatch.setattr(scoring, "_CHUNK", 16)
    found = {score.number: score for score in score_windows(config, params, windows, batch_size=4)}
    assert sorted(found) == list(range(len(windows)))

    @jax.jit
    def log_probabilities(tokens_1T, prefix):
        inputs = {"prefix_BT": jnp.arange(24)[None] < prefix} if name == "prefix" else {}
        return jax.nn.log_softmax(model.apply({"params": params}, tokens_1T, **inputs).logits_BTV[0])

    for number, (context, continuation) in enumerate(windows):
        inputs = (*context, *continuation)[-25:][:-1]
        start = len(inputs) - len(continuation)
        logits_TV = np.asarray(log_probabilities(np.array([inputs + (0,) * (24 - len(inputs))]), start + 1))
        places = np.arange(start, len(inputs))
        assert found[number].log_probability == pytest.approx(logits_TV[places, continuation].sum(), abs=2e-4)
        assert found[number].greedy == (logits_TV[places].argmax(-1) == continuation).all()


def test_windows_that_differ_in_the_last_id_share_a_row():
    """Reddens where nothing is shared, as of questions whose answers are A, B, C and D."""
    rows = make_rows(windows_of(), 24)
    assert len(rows) == 10 and sum(len(row.numbers) for row in rows) == 14
    assert len(make_rows(windows_of(), 24, share=False)) == 12
    assert [padded(length, 512) for length in (3, 17, 25, 33, 200, 385)] == [16, 24, 32, 48, 256, 512]
    assert padded(500, 500) == 500


def test_rolling_windows_are_the_harnesss_own():
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    for length in (1, 23, 24, 25, 48, 49, 70):
        ids = list(range(100, 100 + length))
        theirs = [make_disjoint_window(pair) for pair in get_rolling_token_windows(ids, 7, 24, 1)]
        assert [(list(window.context), list(window.continuation)) for window in rolling_windows(7, tuple(ids), 24)] == [
            (list(context), list(continuation)) for context, continuation in theirs]


def test_weights_that_are_no_numbers_are_told():
    config = dataclasses.replace(Config(), model=MODELS["decoder"])
    shapes = jax.eval_shape(make_model(config.model).init, jax.random.key(0), jnp.zeros((1, 24), jnp.int32))["params"]
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, math.nan, np.float32), shapes)
    with pytest.raises(UserError, match="logits are not finite"):
        list(score_windows(config, params, windows_of()[:1], batch_size=4))


def test_what_tasks_ask_of_texts():
    assert wanted({"until": "\n"}) == (("\n",), 256, Sampler(temperature=0.0), False)
    assert wanted({"temperature": 0.5, "max_new_tokens": 3, "top_k": 4}) == (
        (), 3, Sampler(temperature=0.5, top_k=4), True)
    assert not wanted({"do_sample": False, "temperature": 0.5}).drawn
    assert parse_arguments(["max_gen_toks=3", "until=a", "do_sample=true"]) == {
        "max_gen_toks": 3, "until": "a", "do_sample": True}
    assert cut_before("one two", ("n", "w")) == "o"
    with pytest.raises(UserError, match="is no NAME=VALUE"):
        parse_arguments(["max_gen_toks"])


@pytest.mark.parametrize("name", ["piqa", "arc_easy", "arc_challenge", "winogrande"])
def test_local_tasks_ask_as_the_harnesss_own(name):
    """Reddens where a prompt, a choice or a metric is not the same."""
    from lm_eval.tasks._yaml_loader import load_yaml

    harness = pathlib.Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks"
    folder = {"arc_easy": "arc", "arc_challenge": "arc"}.get(name, name)
    theirs = load_yaml(harness / folder / ("default.yaml" if name == "winogrande" else f"{name}.yaml"))
    ours = load_yaml(ROOT / "configs" / "lm_eval" / f"{name}.yaml")
    for field in ("task", "output_type", "doc_to_text", "doc_to_target", "doc_to_choice", "metric_list"):
        mine, other = ours[field], theirs[field]
        assert (mine.__code__.co_code == other.__code__.co_code) if callable(mine) else mine == other


def test_the_harness_is_imported_in_its_room_alone():
    """It brings torch and transformers along. Reddens with an import of it, or of them, elsewhere."""
    room = ROOT / "src" / "purelm" / "interop" / "harness"
    for path in set((ROOT / "src" / "purelm").rglob("*.py")) - set(room.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        assert not {name.split(".")[0] for name in names} & {"lm_eval", "datasets"}, path
    code = ("import sys, purelm.interop.harness.running, purelm.interop.harness.scoring; "
            "sys.exit(any(name in sys.modules for name in ('lm_eval', 'torch', 'transformers', 'tensorflow')))")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
