from __future__ import annotations

import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig
from purelm.data.packing import TokenSplit, epoch_offset, gather_windows, window_start
from purelm.data.pipeline import batch_starts, evaluation_batches, training_batches
from purelm.errors import UserError

T = 8


def make_split(num_tokens=203, seed=0, longest=15):
    """Tokens that are their own index, so that a window tells where it is from."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, num_tokens)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return TokenSplit("train", np.arange(num_tokens, dtype=np.uint16), starts[starts < num_tokens], num_tokens, 1)


def make_config(seed=0, packing="documents", window_offset="random"):
    return Config(seed=seed, model=ModelConfig(context_length=T),
                  data=DataConfig(packing=packing, window_offset=window_offset))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def batches(split, config, count, batch_size=4, start_step=0, index=0, processes=1):
    return take(training_batches(split, config=config, batch_size=batch_size, start_step=start_step,
                                 process_index=index, process_count=processes), count)


def assert_equal(a, b):
    assert a.keys() == b.keys() == {"tokens", "targets", "weights", "segments", "positions"}
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        assert a[key].dtype == b[key].dtype


def naive_segments(split, start, length):
    documents = np.searchsorted(split.document_starts, np.arange(start, start + length), side="right")
    segments = documents - documents[0] + 1
    positions = [int(np.sum(segments[:i] == segments[i])) for i in range(length)]
    return segments, positions


@pytest.mark.parametrize("longest", [2, 3, 15, 100])
def test_windows_match_a_naive_walk(longest):  # reddens on any off-by-one at a document that begins at a window's edge
    split = make_split(longest=longest)
    starts = np.arange(0, 203 - T - 1)
    batch = gather_windows(split, starts, T, "documents")
    for row, start in enumerate(starts):
        segments, positions = naive_segments(split, start, T)
        np.testing.assert_array_equal(batch["segments"][row], segments)
        np.testing.assert_array_equal(batch["positions"][row], positions)
    np.testing.assert_array_equal(batch["targets"], batch["tokens"] + 1)
    assert batch["weights"].min() == 1 and all(value.shape == (len(starts), T) for value in batch.values())
    stream = gather_windows(split, starts, T, "stream")
    assert (stream["segments"] == 1).all() and (stream["positions"] == np.arange(T)).all()


@pytest.mark.parametrize("num_tokens", [1, 2, T, T + 1, T + 2, 2 * T, 2 * T + 1, 203])
@pytest.mark.parametrize("batch_size,processes", [(1, 1), (4, 1), (4, 2), (8, 4)])
def test_evaluation_scores_every_target_exactly_once(num_tokens, batch_size, processes):
    split = make_split(num_tokens)
    seen = []
    counts = set()
    for index in range(processes):
        found = list(evaluation_batches(split, context_length=T, packing="documents", batch_size=batch_size,
                                        process_index=index, process_count=processes))
        counts.add(len(found))
        for batch in found:
            assert all(value.shape == (batch_size // processes, T) for value in batch.values())
            real = batch["weights"] > 0
            seen += batch["targets"][real].tolist()
            assert (batch["targets"][real] == batch["tokens"][real] + 1).all()
            assert (batch["segments"][real] > 0).all() and all((batch[key][~real] == 0).all() for key in batch)
    assert sorted(seen) == list(range(1, num_tokens)) and len(counts) == 1


def test_evaluation_limit_and_one_process_order():
    split = make_split()
    found = list(evaluation_batches(split, context_length=T, packing="stream", batch_size=4, limit=3))
    assert len(found) == 3
    np.testing.assert_array_equal(np.concatenate([batch["tokens"] for batch in found]).reshape(-1), np.arange(96))


@pytest.mark.parametrize("packing", ["documents", "stream"])
@pytest.mark.parametrize("step", [0, 1, 5, 6, 7, 13])  # 25 windows, 4 a batch: step 6 crosses the epoch
def test_resume_gives_what_the_uninterrupted_run_gives(packing, step):
    split, config = make_split(), make_config(packing=packing)
    for a, b in zip(batches(split, config, 16)[step:], batches(split, config, 16 - step, start_step=step)):
        assert_equal(a, b)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_interleaved_shards_are_the_global_batch(processes):
    split, config = make_split(), make_config()
    whole = batches(split, config, 14)
    shards = [batches(split, config, 14, index=index, processes=processes) for index in range(processes)]
    for step, batch in enumerate(whole):
        for index in range(processes):
            assert_equal(shards[index][step], {key: value[index::processes] for key, value in batch.items()})
    resumed = batches(split, config, 4, start_step=10, index=processes - 1, processes=processes)
    assert_equal(resumed[0], shards[-1][10])


def test_an_epoch_has_each_window_once_and_epochs_and_seeds_differ():
    split, config = make_split(), make_config(window_offset="fixed")
    num_windows = split.num_windows(T)
    assert num_windows == 25
    starts = [int(batch["tokens"][0, 0]) for batch in batches(split, config, 3 * num_windows, batch_size=1)]
    epochs = [starts[i * num_windows:(i + 1) * num_windows] for i in range(3)]
    assert all(sorted(epoch) == [w * T for w in range(num_windows)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != sorted(epochs[0])
    other = [int(b["tokens"][0, 0]) for b in batches(split, make_config(1, window_offset="fixed"), 25, batch_size=1)]
    assert other != epochs[0]


def test_random_offsets_differ_by_epoch_and_seed_and_stay_inside():
    split, config = make_split(), make_config()
    starts = np.array([b["tokens"][0, 0] for b in batches(split, config, 25 * 6, batch_size=1)]).reshape(6, 25)
    assert len({int(epoch.min()) for epoch in starts}) > 2 and starts.min() >= 0 and starts.max() + T <= 202
    offsets = [epoch_offset(seed, epoch, 1000, "random") for seed in range(3) for epoch in range(3)]
    assert len(set(offsets)) == 9 and all(0 <= offset < 1000 for offset in offsets)
    assert epoch_offset(5, 7, 1000, "fixed") == 0


@pytest.mark.parametrize("num_tokens", [T + 1, T + 2, 2 * T, 2 * T + 1, 2 * T + 2])
def test_any_offset_fits_the_shortest_splits(num_tokens):
    split = make_split(num_tokens)
    for window in range(split.num_windows(T)):
        for offset in range(T):
            start = window_start(split, T, window, offset)
            assert start >= 0 and start + T + 1 <= num_tokens
    batches(split, make_config(), 20)


@pytest.mark.parametrize("window_offset", ["fixed", "random"])
def test_batch_starts_are_where_the_batch_was_cut(window_offset):
    split, config = make_split(), make_config(window_offset=window_offset)
    for step, batch in enumerate(batches(split, config, 14)):
        assert split.tokens[batch_starts(split, config, 4, step)].tolist() == batch["tokens"][:, 0].tolist()


def test_mistakes_are_named():
    with pytest.raises(UserError, match="fewer than one window"):
        batches(make_split(T), make_config(), 1)
    with pytest.raises(ValueError, match="multiple"):
        batches(make_split(), make_config(), 1, processes=3)
