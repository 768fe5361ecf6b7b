"""From a run's folder to what can be served."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.serving.served import EngineLike, Limits, Served, abilities, served_vocabulary, writes
from purelm.training.load import LoadedRun, load_run

_PAGE_SIZE = 32
_CHUNK = 128


def open_served(workdir: str | None, *, limits: Limits, checkpoint: str = "latest", quantize: str | None = None,
                name: str | None = None, slots: int, cache_mib: float | None, int8_cache: bool = False,
                drain_seconds: float, api_key: str | None = None, cors_origin: str | None = None,
                progress: Callable[[str], None]) -> Served:
    """Loads a run, and where it writes, starts its engine, warmed up.

    Args:
      workdir, checkpoint, quantize: of the run, as of `load_run`.
      limits: of requests.
      name: of the model; None is the folder's.
      slots: requests that run at once.
      cache_mib: memory for keys and values; None is twice what `slots` whole contexts need. int8_cache: in 8 bits.
      drain_seconds: given to what runs when the server stops.
      progress: called with a line at the start of each long part.

    Raises UserError as `load_run`, and for sizes that hold no request.
    """
    from purelm.runtime import start_jax

    progress(f"loading {workdir}")
    start_jax()
    import jax

    from purelm.models import unstack_layers
    from purelm.serving.automata import Automata
    from purelm.serving.metrics import Metrics

    run = load_run(workdir, checkpoint, quantize=quantize)
    if not abilities(run.config):
        raise UserError(f"--workdir={workdir}: a run of task {run.config.task.name} has nothing to be asked for")
    params = jax.device_put(run.params)
    engine = None
    if writes(run.config):
        progress("warm-up")
        params = unstack_layers(params)  # Once for all that reads them.
        engine = start_engine(run, params, limits=limits, slots=slots, cache_mib=cache_mib, int8_cache=int8_cache)
    run = dataclasses.replace(run, params=params)
    return Served(name=name or os.path.basename(os.path.abspath(run.folder.path)), run=run, params=params,
                  engine=engine, vocabulary_size=served_vocabulary(run),
                  automata=Automata(run.tokenizer, served_vocabulary(run)), metrics=Metrics(engine), limits=limits,
                  drain_seconds=drain_seconds, api_key=api_key, cors_origin=cors_origin)


def start_engine(run: LoadedRun, params: Any, *, limits: Limits, slots: int, cache_mib: float | None,
                 int8_cache: bool) -> EngineLike:
    """The engine of a run that writes, compiled and running in a thread of its own."""
    from purelm.inference.engine.engine import Engine
    from purelm.inference.engine.thread import EngineThread

    model = run.config.model
    if model.architecture == "recurrent" and (int8_cache or cache_mib is not None):
        raise UserError("a recurrent network has a state, and no keys and values: leave --cache and --cache_mib out")
    page_size = min(_PAGE_SIZE, model.context_length)
    engine = Engine(model, params, vocabulary_size=served_vocabulary(run), slots=slots, page_size=page_size,
                    num_pages=_num_pages(model, page_size, slots, cache_mib, int8_cache),
                    chunk=_chunk(model, page_size), max_waiting=limits.waiting,
                    max_tokens=limits.prompt_tokens + limits.new_tokens, int8=int8_cache)
    engine.warm_up()
    thread = EngineThread(engine)
    thread.start()
    return thread


def _chunk(model: ModelConfig, page_size: int) -> int:
    """Tokens of a prefill between decode steps: whole pages, a power of two of them."""
    chunk = page_size
    while 2 * chunk <= min(_CHUNK, model.context_length):
        chunk *= 2
    return chunk


def _num_pages(model: ModelConfig, page_size: int, slots: int, cache_mib: float | None, int8: bool) -> int:
    """Pages that fit `cache_mib`, or `slots` whole contexts and as much again to keep; and the scratch page."""
    context = -(-model.context_length // page_size)
    from purelm.models import cache_bytes

    if cache_mib is None:
        return 2 * slots * context + 1
    num_bytes = cache_bytes(model, 1, page_size, int8=int8)
    pages = int(cache_mib * 2**20) // num_bytes
    if pages < context + 1:
        raise UserError(f"--cache_mib={cache_mib}: holds {max(pages, 0)} pages of {page_size} tokens; a whole context "
                        f"needs {(context + 1) * num_bytes / 2**20:.1f} MiB")
    return pages
