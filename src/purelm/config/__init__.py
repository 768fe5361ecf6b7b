"""The config: typed dataclasses (schema), what they may say (validate), and how they are written and read."""

from purelm.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
)
from purelm.config.serialization import as_flag, from_dict, from_flag, load_json, to_json
from purelm.config.validate import GATED, finalize, resolve_model, validate

__all__ = [
    "GATED", "Config", "DataConfig", "ModelConfig", "OptimizerConfig", "ParallelConfig", "TrainingConfig", "as_flag",
    "finalize", "from_dict", "from_flag", "load_json", "resolve_model", "steps_of", "to_json", "validate",
]


def steps_of(duration: str) -> int:
    """A finalized duration as a number of steps."""
    return int(duration)
