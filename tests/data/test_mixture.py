from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_tasks import CLASSES, PAIRS, config, labeled, write_rows

from purelm.config import DataConfig
from purelm.data import prepare_examples
from purelm.data.mixture import draw_order, probabilities
from purelm.errors import UserError

MIXTURE = (("class: ", "labels", "classes", 1.0), ("to German: ", "pairs:english:german", "pairs", 3.0))


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path / "rows" / "classes" / "train.jsonl", labeled(30))
    write_rows(tmp_path / "rows" / "classes" / "test.jsonl", labeled(5, 100))
    for name, begin, count in (("train", 0, 10), ("validation", 10, 4)):
        write_rows(tmp_path / "rows" / "pairs" / f"{name}.jsonl",
                   [{"english": f"e{i}", "german": f"d{i}"} for i in range(begin, begin + count)])
    return tmp_path


def test_components_are_pairs_that_know_where_they_are_from(folder):
    prepared = prepare_examples(config(folder, mixture=MIXTURE, validation_fraction=0.2, context_length=256), PAIRS)
    examples = list(prepared.splits["train"].examples)
    pair = examples[-1]
    assert pair == {"where": "1 pairs: train.jsonl, line 10", "source": "to German: e9", "targets": ["d9"],
                    "component": "1 pairs"}
    assert examples[0]["source"].startswith("class: text ") and examples[0]["targets"][0] in "abc"
    assert {example["component"] for example in prepared.splits["test"].examples} == {"0 classes"}
    assert {example["component"] for example in prepared.splits["validation"].examples} == {"0 classes", "1 pairs"}
    assert "0 classes: no validation file" in prepared.describe() and "1 pairs: no" not in prepared.describe()
    assert {file["name"] for file in prepared.fingerprint["source"]["files"]} >= {"1 pairs/train.jsonl"}
    again = prepare_examples(config(folder, mixture=MIXTURE, validation_fraction=0.2, context_length=256), PAIRS)
    assert again.fingerprint == prepared.fingerprint


def shares(prepared, chosen, steps):
    tokens = [batch["tokens"] for batch in itertools.islice(prepared.training_batches(chosen, start_step=0), steps)]
    decoded = [bytes(int(value) for value in row if 0 < value < 256) for batch in tokens for row in batch]
    return np.mean([text.startswith(b"to German") for text in decoded])


def test_training_draws_by_weight_or_by_size(folder):
    chosen = config(folder, mixture=MIXTURE)
    assert 0.68 < shares(prepare_examples(chosen, PAIRS), chosen, 100) < 0.82
    weighed = config(folder, mixture=MIXTURE, mixture_temperature=1.0)
    assert 0.2 < shares(prepare_examples(weighed, PAIRS), weighed, 100) < 0.33
    assert prepare_examples(weighed, PAIRS).fingerprint["key"] == prepare_examples(chosen, PAIRS).fingerprint["key"]


def test_the_same_batches_at_any_step_and_for_any_process(folder):
    chosen = config(folder, mixture=MIXTURE)
    prepared = prepare_examples(chosen, PAIRS)
    whole = list(itertools.islice(prepared.training_batches(chosen, start_step=0), 12))
    half = list(itertools.islice(prepared.training_batches(chosen, start_step=5, process_index=1, process_count=2), 7))
    for one, other in zip(whole[5:], half, strict=True):
        np.testing.assert_array_equal(one["tokens"][1::2], other["tokens"])


def test_rates():
    np.testing.assert_allclose(probabilities(DataConfig(mixture=MIXTURE), [100, 5]), [0.25, 0.75])
    by_size = DataConfig(mixture=MIXTURE, mixture_temperature=2.0)
    np.testing.assert_allclose(probabilities(by_size, [100, 25]), [2 / 3, 1 / 3])
    np.testing.assert_allclose(probabilities(DataConfig(mixture=MIXTURE), [100, 0]), [1, 0])


def test_a_component_comes_once_before_it_comes_again():
    component_of = np.repeat([0, 1], [90, 10])
    order = draw_order(np.random.default_rng(0), component_of, np.array([0.5, 0.5]))
    counts = np.bincount(order, minlength=100)
    assert len(order) == 100 and counts[:90].max() == 1 and counts[90:].max() - counts[90:].min() <= 1


@pytest.mark.parametrize("component,parts", [
    (("", "pair:a:b", "pairs", 1.0), ["config.data.mixture[0]", "'pair'", "did you mean 'pairs'"]),
    (("", "tags", "pairs", 1.0), ["'tags'"]), (("", "pairs:a", "pairs", 1.0), ["names 1 fields", "source_field"]),
    (("", "pairs", "pairs", 0.0), ["must be above 0"]), (("", "pairs", "none", 1.0), ["none", "no such file"])])
def test_bad_components_are_named(folder, component, parts):
    with pytest.raises(UserError) as caught:
        prepare_examples(config(folder, mixture=(component,)), PAIRS)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_mixture_is_for_text_to_text(folder):
    with pytest.raises(UserError, match="config.data.mixture: the task .* text to text.*sequence_to_sequence"):
        prepare_examples(config(folder, mixture=MIXTURE), CLASSES)
