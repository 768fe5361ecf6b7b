import dataclasses
import json

import pytest

from purelm.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    as_flag,
    finalize,
    from_dict,
    from_flag,
    load_json,
    to_json,
)
from purelm.errors import UserError

CONFIG = Config(
    seed=3, model=ModelConfig(num_kv_heads=2, attention_window=5), data=DataConfig(cleaning=(), path="a b/*.txt"),
    optimizer=OptimizerConfig(learning_rate_rules=((".*embedding", 0.5), (".*", 1.0))),
    training=TrainingConfig(num_epochs=1.5, log_every="2 epochs"))


@pytest.mark.parametrize("config", [CONFIG, finalize(CONFIG, vocabulary_size=9, tokens_per_epoch=10**6)])
def test_json_and_flag_round_trips_are_exact(config, tmp_path):
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    assert load_json(tmp_path / "config.json") == config
    assert from_flag(as_flag(config)) == config
    assert hash(from_dict(json.loads(to_json(config)))) == hash(config)  # frozen: a static argument of jit


def test_a_field_that_does_not_exist_is_named():
    values = dataclasses.asdict(CONFIG)
    values["model"]["num_layer"] = 3
    with pytest.raises(UserError, match="config.model.num_layer does not exist; did you mean 'num_layers'"):
        from_dict(values)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_a_file_that_is_no_config_is_named(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="config.json: not a JSON config"):
        load_json(path)
    with pytest.raises(UserError, match="no such config file"):
        load_json(tmp_path / "other.json")
