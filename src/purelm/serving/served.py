"""What a server serves: one run, what it can do, and within which limits."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Protocol

from purelm.config import Config
from purelm.serving.metrics import Metrics
from purelm.training.load import LoadedRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from purelm.inference.engine.request import Event, Request
    from purelm.serving.automata import Automata

# Tasks whose decoder gives an answer, not a continuation of any text.
ANSWERING = ("classification", "tagging", "sequence_to_sequence", "dialogue")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request may take.

    body_bytes: of a request. prompt_tokens: of each prompt. new_tokens: of each answer. choices: answers of a request,
    prompts times n. rows: of /v1/predict. seconds: a request may take, waiting included. buffered_tokens: written and
    not yet read by a streaming client, before its request is ended. waiting: requests that may wait.
    """

    body_bytes: int
    prompt_tokens: int
    new_tokens: int
    seconds: float
    waiting: int
    choices: int = 32
    rows: int = 1024
    buffered_tokens: int = 4096


class EngineLike(Protocol):
    """What the server asks of inference.engine's EngineThread."""

    def start(self) -> None: ...
    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Any: ...
    def cancel(self, ticket: Any) -> None: ...
    def stop(self, drain_seconds: float) -> None: ...
    def stats(self) -> Any: ...


@dataclasses.dataclass
class Served:
    """A run that is being served.

    name: of the model. engine: what writes, started; None where the run does not write token by token. params: on the
    device, shared with the engine. vocabulary_size: ids that may be drawn or given. automata: of stop strings and
    constraints. metrics: what is counted. working, compiling: held by what computes with the model beside the engine,
    and by what makes constraints, one at a time of each, for which `waiting` requests wait. stopping: set once, when
    the server begins to stop; ending: when the time is over that it gives to what runs.
    """

    name: str
    run: LoadedRun
    params: Any
    engine: EngineLike | None
    vocabulary_size: int
    automata: Automata
    metrics: Metrics
    limits: Limits
    drain_seconds: float
    api_key: str | None = None
    cors_origin: str | None = None
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))
    working: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    compiling: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    waiting: int = 0
    stopping: bool = False
    ending: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @property
    def config(self) -> Config:
        return self.run.config

    @property
    def fingerprint(self) -> str:
        """Changes with what answers depend on besides the request."""
        return f"purelm-{self.run.step}-{self.run.tokenizer.fingerprint[:8]}"

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What ends an answer."""
        return self.run.tokenizer.special.stop


def writes(config: Config) -> bool:
    """Whether the run's model goes on from a text, token by token, or answers turns of a dialogue."""
    return (config.model.architecture in ("decoder", "recurrent") and not config.model.prefix_attention
            and config.task.name != "word_vectors"
            and (config.task.name == "dialogue" or config.task.name not in ANSWERING))


def abilities(config: Config) -> list[str]:
    """Of "completions", "chat", "predict" and "attention", what a run can be asked for."""
    from purelm.evaluation import evaluator_of

    found = []
    if writes(config):
        found += ["chat"] if config.task.name == "dialogue" else ["completions", "chat"]
    if hasattr(evaluator_of(config), "predict"):
        found.append("predict")
    if config.model.architecture in ("decoder", "encoder") and config.task.name != "word_vectors":
        found.append("attention")
    return found


def served_vocabulary(run: LoadedRun) -> int:
    """The tokenizer's ids, and of a dialogue the marks of who speaks."""
    from purelm.tasks.dialogue import ROLES

    return run.tokenizer.vocabulary_size + (len(ROLES) if run.config.task.name == "dialogue" else 0)
