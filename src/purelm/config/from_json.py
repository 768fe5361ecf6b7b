"""Lets `--config=RUN/config.json` be given where a Python config file is."""

from purelm.config.serialization import as_flag, load_json


def get_config(path: str):
    """The config in the JSON file at `path`."""
    return as_flag(load_json(path))
