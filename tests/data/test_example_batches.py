from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest
from small_tasks import CLASSES, collate, config, labeled, write_rows

from purelm.data import prepare_examples
from purelm.data.example_batches import epoch_batches, padded_length, padded_lengths

# Every record's number stands in its label, so that batches tell what they are made of.
NUMBERED = dataclasses.replace(
    CLASSES, labels=None, encode=lambda config, tokenizer, labels, examples, counts: [
        [{"tokens": tokenizer.encode(example["text"])[:config.model.context_length],
          "label": int(example["text"].split()[1])}] for example in examples])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    write_rows(folder / "rows" / "train.jsonl", labeled(53))
    write_rows(folder / "rows" / "validation.jsonl", labeled(21, 100))
    return folder


@pytest.fixture(scope="module")
def prepared(folder):
    return prepare_examples(config(folder, context_length=128), NUMBERED)


def batches(prepared, chosen, count, start=0, **processes):
    return list(itertools.islice(prepared.training_batches(chosen, start_step=start, **processes), count))


@pytest.mark.parametrize("bucketing", [True, False])
def test_an_epoch_has_each_record_once_and_wraps_to_its_start(folder, prepared, bucketing):
    chosen = config(folder, context_length=128, bucketing=bucketing)
    first, second = batches(prepared, chosen, 7), batches(prepared, chosen, 7, start=7)
    for epoch in (first, second):
        labels = np.concatenate([batch["labels"] for batch in epoch])
        counts = np.bincount(labels, minlength=53)
        assert len(labels) == 56 and counts.min() == 1 and counts.max() <= 2 and (counts == 2).sum() == 3
    assert [list(batch["labels"]) for batch in first] != [list(batch["labels"]) for batch in second]
    other = batches(prepared, dataclasses.replace(chosen, seed=1), 7)
    assert [list(batch["labels"]) for batch in first] != [list(batch["labels"]) for batch in other]
    assert prepared.tokens_per_epoch(chosen) == 7 * 8 * 128


def test_fewer_records_than_a_batch_still_fill_it():  # reddens if the order wraps only once
    order = epoch_batches(np.array([3, 4, 5]), seed=0, epoch=0, batch_size=8, bucketing=True)
    assert order.shape == (1, 8) and set(np.bincount(order[0])) == {2, 3}


@pytest.mark.parametrize("augmentation", [(), ("word_deletion:0.3",), ("word_duplication:0.3",)])
@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_processes_sees_the_same_batches(folder, prepared, count, augmentation):
    chosen = config(folder, context_length=128, augmentation=augmentation)
    whole = batches(prepared, chosen, 10)
    parts = [batches(prepared, chosen, 10, process_index=i, process_count=count) for i in range(count)]
    for step, batch in enumerate(whole):
        for name, value in batch.items():
            for index in range(count):
                np.testing.assert_array_equal(parts[index][step][name], value[index::count])
    with pytest.raises(ValueError, match="no multiple"):
        batches(prepared, chosen, 1, process_index=0, process_count=3)


def test_a_run_may_go_on_at_any_step(folder, prepared):
    chosen = config(folder, context_length=128, augmentation=("word_swap",))
    whole = batches(prepared, chosen, 20)
    for start in (1, 6, 7, 13, 19):
        np.testing.assert_array_equal(batches(prepared, chosen, 1, start=start)[0]["tokens"], whole[start]["tokens"])


def test_lengths_are_few_and_hold_the_longest(folder, prepared):
    assert padded_lengths(512) == [64, 128, 256, 384, 512] and padded_lengths(100) == [16, 32, 56, 80, 100]
    assert padded_lengths(4) == [4] and padded_lengths(8) == [8]
    assert [padded_length(n, 100, True) for n in (0, 1, 16, 17, 81, 100)] == [16, 16, 16, 32, 100, 100]
    assert padded_length(1, 100, False) == 100
    chosen = config(folder, context_length=128)
    seen = batches(prepared, chosen, 40) + list(prepared.evaluation_batches("validation", chosen, batch_size=4))
    assert {batch["tokens"].shape[1] for batch in seen} <= set(padded_lengths(128))
    for batch in seen:  # nothing is cut, nothing is longer than it must be
        longest = max(np.count_nonzero(row) for row in batch["tokens"])
        assert batch["tokens"].shape[1] == padded_length(longest, 128, True)


def test_buckets_hold_like_lengths():  # reddens without the sort: the padding is then about half
    lengths = np.random.default_rng(0).integers(1, 512, 5000)
    sorted_, plain = (sum(lengths[rows].max() for rows in epoch_batches(
        lengths, seed=0, epoch=0, batch_size=32, bucketing=bucketing)) for bucketing in (True, False))
    assert sorted_ < 0.6 * plain
    firsts = [lengths[epoch_batches(lengths, seed=0, epoch=epoch, batch_size=32, bucketing=True)[0]].mean()
              for epoch in range(8)]
    assert max(firsts) - min(firsts) > 100  # short batches do not all come first


@pytest.mark.parametrize("batch_size,count", [(4, 1), (4, 2), (4, 4), (21, 1), (64, 1), (64, 4)])
def test_evaluation_has_each_record_once_and_pads_with_weight_0(folder, prepared, batch_size, count):
    chosen = config(folder, context_length=128)
    parts = [list(prepared.evaluation_batches("validation", chosen, batch_size=batch_size, process_index=i,
                                              process_count=count)) for i in range(count)]
    assert len({len(part) for part in parts}) == 1
    assert all(batch["weights"].shape == (batch_size // count,) for part in parts for batch in part)
    shapes = [[batch["tokens"].shape for batch in part] for part in parts]
    assert all(found == shapes[0] for found in shapes)
    real = sorted(int(label) for part in parts for batch in part for label in batch["labels"][batch["weights"] > 0])
    assert real == list(range(100, 121))
    padding = [batch["tokens"][batch["weights"] == 0] for part in parts for batch in part]
    assert not any(rows.any() for rows in padding)


def test_a_part_of_an_evaluation_is_spread_over_lengths(folder, prepared):
    chosen = config(folder, context_length=128)
    whole = list(prepared.evaluation_batches("validation", chosen, batch_size=2))
    part = list(prepared.evaluation_batches("validation", chosen, batch_size=2, limit=3))
    where = [next(i for i, batch in enumerate(whole) if np.array_equal(batch["labels"], found["labels"]))
             for found in part]
    assert where == [1, 5, 9]  # of 11: reddens if the first, which are the shortest, are taken
    assert len(list(prepared.evaluation_batches("validation", chosen, batch_size=2, limit=99))) == 11


def test_padding_rows_come_as_none_and_never_first(folder, prepared):
    def watched(config, records, length):
        assert records[0] is not None
        return collate(config, records, length)
    watching = dataclasses.replace(prepared, recipe=dataclasses.replace(prepared.recipe, collate=watched))
    chosen = config(folder, context_length=128)
    for index in range(4):
        assert len(list(watching.evaluation_batches("validation", chosen, batch_size=8, process_index=index,
                                                    process_count=4))) == 3


def test_locate_names_the_examples_of_a_step(folder, prepared):
    chosen = config(folder, context_length=128, batch_size=3)
    for step in (0, 30):
        (batch,) = batches(prepared, chosen, 1, start=step)
        expected = "; ".join(f"train.jsonl, line {label + 1}" for label in batch["labels"])
        assert prepared.locate(chosen, step) == f"the examples of {expected}"
    assert prepared.locate(config(folder, context_length=128, batch_size=10), 0).endswith(" and 2 more")


@pytest.mark.parametrize("augmentation", [(), ("word_dropout", "word_swap")])
def test_a_batch_is_assembled_in_little_time(tmp_path, augmentation):
    rows = [{"text": f"t {i} " + "some words " * 20, "label": "a"} for i in range(2000)]
    write_rows(tmp_path / "rows" / "train.jsonl", rows)
    chosen = config(tmp_path, context_length=256, batch_size=32, augmentation=augmentation, cleaning=())
    found = prepare_examples(chosen, CLASSES).training_batches(chosen, start_step=0)
    next(found)
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        next(found)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < (0.008 if augmentation else 0.002)
