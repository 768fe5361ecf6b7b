import dataclasses
import json

import pytest

from purelm.config import Config, DataConfig, DecodingConfig, ModelConfig, TrainingConfig, finalize
from purelm.errors import UserError
from purelm.training.run_folder import (
    RunFolder,
    check_same_data,
    check_same_run,
    check_workdir,
    held,
    open_run,
    read_labels,
    write_atomically,
    write_start,
)

CONFIG = finalize(Config(training=TrainingConfig(num_steps=100)), vocabulary_size=65, tokens_per_epoch=10**6)
DATA = {"source": "text", "splits": {"train": {"tokens": 5}}}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder, _ = check_workdir(str(tmp_path / "run"))
    write_start(folder, CONFIG, DATA, ["cpu:0"], begun=False)
    return folder


def test_a_start_is_recorded_and_the_next_one_added(folder):
    write_start(folder, CONFIG, DATA, ["cpu:0"], begun=True)
    record = json.loads(folder.record.read_text())
    assert len(record["starts"]) == 2 and record["data"] == DATA
    start = record["starts"][0]
    assert start["packages"]["jax"] and start["devices"] == ["cpu:0"] and start["command"]
    assert open_run(str(folder.path))[1] == CONFIG


def test_the_same_config_resumes_silently_and_what_may_change_is_said(folder):
    assert check_same_run(folder, CONFIG) == []
    longer = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, num_steps=200, log_every="7"))
    assert check_same_run(folder, longer) == ["config.training.num_steps: 100 -> 200",
                                              "config.training.log_every: 1 -> 7"]


def test_how_answers_are_found_is_no_other_experiment(folder):
    """Reddens when a run of sequence_to_sequence cannot go on for another way to evaluate it."""
    changed = dataclasses.replace(CONFIG, decoding=DecodingConfig(candidates="sentences"))
    assert check_same_run(folder, changed) == ["config.decoding.candidates: none -> sentences"]


@pytest.mark.parametrize("change, field", [
    ({"seed": 1}, "config.seed=0, not 1"),
    ({"model": dataclasses.replace(CONFIG.model, width=64)}, "config.model.width=128, not 64"),
    ({"data": DataConfig(packing="stream")}, "config.data.packing='documents', not 'stream'"),
])
def test_another_experiment_is_refused(folder, change, field):
    with pytest.raises(UserError, match=field):
        check_same_run(folder, dataclasses.replace(CONFIG, **change))


def test_other_data_is_refused_and_nothing_is_rewritten(folder):
    before = folder.record.read_bytes()
    with pytest.raises(UserError, match=r"other data \(splits.train.tokens: 5 -> 6\)"):
        check_same_data(folder, {"source": "text", "splits": {"train": {"tokens": 6}}})
    check_same_data(folder, DATA)
    assert folder.record.read_bytes() == before


def test_a_damaged_record_is_named(folder):
    folder.record.write_text("{")
    with pytest.raises(UserError, match="run.json: missing or damaged"):
        write_start(folder, CONFIG, DATA, [], begun=True)


def test_a_failed_write_leaves_the_old_file_and_no_other(folder, monkeypatch):
    before = folder.config.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UserError, match="No space left"):
        write_atomically(folder.config, "x" * 10)
    with monkeypatch.context() as read_only, pytest.raises(UserError, match="No space left"):
        read_only.setattr("pathlib.Path.unlink", full)  # On a read-only disk, what was not written cannot be removed.
        write_atomically(folder.config, "x" * 10)
    assert folder.config.read_bytes() == before
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json", "run.json"]


def test_model_config_of_a_run_is_finalized(folder):
    assert open_run(str(folder.path))[1].model == dataclasses.replace(
        ModelConfig(), vocabulary_size=65, num_kv_heads=4, head_size=32, feed_forward_width=512)


def test_a_folder_is_held_by_one_training_and_free_after_it(folder):
    pytest.importorskip("fcntl")
    before = sorted(folder.path.iterdir())
    for _ in range(2):
        with held(folder):
            with pytest.raises(UserError, match="another training is writing there"):
                with held(folder):
                    pass
    assert sorted(folder.path.iterdir()) == before


@pytest.mark.parametrize("written", [None, "[", "5", '["a"]', '["b", "a"]'])
def test_labels_that_are_not_the_runs_are_refused(folder, written):
    # Reddens where names in another order, or fewer of them, are given to the classes of the model.
    assert read_labels(folder) is None
    write_start(folder, CONFIG, DATA | {"labels": ["a", "b"]}, ["cpu:0"], begun=False)
    folder.labels.write_text('["a", "b"]')
    assert read_labels(folder) == ("a", "b")
    folder.labels.unlink() if written is None else folder.labels.write_text(written)
    with pytest.raises(UserError, match="labels.json"):
        read_labels(folder)


def test_a_run_opens_though_a_default_that_it_does_not_read_was_another(folder):
    # Reddens where a new default of config.adapter, say, closes the runs that recorded the old one.
    content = json.loads(folder.config.read_text())
    content["adapter"]["trained"] = "^another/"
    folder.config.write_text(json.dumps(content))
    assert open_run(str(folder.path))[1].adapter.trained == "^another/"
