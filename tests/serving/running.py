"""Tiny runs of random parameters, and servers of them on free ports, for the tests of serving and of its page."""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.serving.opening import open_served
from purelm.serving.served import Limits, Served
from purelm.serving.server import Server, address, listen
from purelm.training.launch import launch

TEXT = "".join(f"User: what is {number}?\nAssistant: {number} is {number + 1} less one, é — 数字{number}。🙂\n\n"
               for number in range(120))
LIMITS = Limits(body_bytes=64 * 1024, prompt_tokens=256, new_tokens=200, seconds=60.0, waiting=32)


class Running(NamedTuple):
    """url: such as http://127.0.0.1:1234. served: what the server serves, in this process."""

    url: str
    served: Served


def train_tiny(folder: pathlib.Path, *, task: str = "language_modeling", rows: list[dict[str, Any]] | None = None,
               steps: int = 2, data: dict[str, Any] | None = None, model: dict[str, Any] | None = None) -> str:
    """The folder of a run of a 2-layer model, made in `folder`/run; `rows` None is a language model of TEXT."""
    path = folder / ("rows.jsonl" if rows is not None else "text.txt")
    path.write_text(TEXT if rows is None else "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = Config(
        task=TaskConfig(name=task),
        model=ModelConfig(**{"context_length": 64, "num_layers": 2, "width": 32, "num_heads": 2, **(model or {})}),
        data=DataConfig(**{"path": str(path), "tokenizer": "bytes", "end_of_text": True, "validation_fraction": 0.1,
                           "test_fraction": 0.0, "cache_dir": str(folder / "cache"), **(data or {})}),
        training=TrainingConfig(num_steps=steps, batch_size=8))
    launch(config, str(folder / "run"), quiet=True)
    return str(folder / "run")


@contextlib.contextmanager
def running(workdir: str, *, limits: Limits = LIMITS, slots: int = 4, name: str = "tiny", drain_seconds: float = 5.0,
            **options: Any) -> Iterator[Running]:
    """A server of a run in a thread of this process, stopped at the end."""
    served = open_served(workdir, limits=limits, slots=slots, cache_mib=None, name=name, drain_seconds=drain_seconds,
                         progress=lambda line: None, **options)
    listening = listen("127.0.0.1", 0)
    url, server = address(listening), Server(served)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Running(url, served)
    finally:
        server.should_exit = True
        thread.join()
