"""The config: typed dataclasses (schema), what they may say (validate), published shapes, and how they are written."""

from purelm.config import presets
from purelm.config.schema import (
    AdapterConfig,
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    TaskConfig,
    TrainingConfig,
    WordVectorsConfig,
)
from purelm.config.serialization import as_flag, from_dict, from_flag, load_json, to_json
from purelm.config.validate import finalize, resolve_model, validate
from purelm.errors import UserError, did_you_mean

__all__ = [
    "AdapterConfig", "Config", "DataConfig", "DecodingConfig", "ModelConfig", "OptimizerConfig", "ParallelConfig",
    "TaskConfig", "TrainingConfig", "WordVectorsConfig", "as_flag",
    "choose", "finalize", "from_dict", "from_flag", "load_json", "presets", "resolve_model", "steps_of", "to_json",
    "validate",
]


def steps_of(duration: str) -> int:
    """A finalized duration as a number of steps."""
    return int(duration)


def choose(recipes: dict[str, object], name: str) -> object:
    """The recipe of that name, for a config file's argument.

    Raises:
      UserError: there is none ("did you mean").
    """
    if name not in recipes:
        raise UserError(f"--config=...:{name}: no such recipe{did_you_mean(name, recipes)}")
    return recipes[name]
