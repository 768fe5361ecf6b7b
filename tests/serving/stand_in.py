"""One request at a time by `generate`, in the place of the engine."""

from __future__ import annotations

import queue
import threading


class OneByOne:
    def __init__(self, run, vocabulary_size):
        self._run, self._vocabulary_size, self._queue = run, vocabulary_size, queue.Queue()
        self._gone = set()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, request, on_event):
        ticket = object()
        self._queue.put((ticket, request, on_event))
        return ticket

    def cancel(self, ticket):
        self._gone.add(ticket)

    alive = True

    def stats(self):
        from purelm.inference.engine.statistics import Statistics

        return Statistics(*[0] * 12, 0.0, {})

    def start(self):
        pass

    def stop(self, drain_seconds):
        self._queue.put(None)

    def _work(self):
        import jax
        import numpy as np

        from purelm.inference import generate
        from purelm.inference.engine.request import Finished, Token, Tokens

        while (item := self._queue.get()) is not None:
            ticket, request, on_event = item
            key = jax.random.fold_in(jax.random.key(request.seed), request.index)
            found = generate(self._run.config.model, self._run.params, np.array([request.prompt_ids]),
                             stop=request.stop,
                             constraint=request.constraint, max_new_tokens=request.max_new_tokens, sampler=request.sampler, key=key[None],
                             stop_id=request.stop_id, vocabulary_size=self._vocabulary_size)
            for token in found.ids_BT[0, :found.lengths_B[0]].tolist():
                if ticket in self._gone:
                    break
                alternatives = tuple((i, -1.0 - i) for i in range(request.alternatives or 0))
                on_event(Tokens((Token(token, None if request.alternatives is None else -0.5, alternatives),)))
                threading.Event().wait(0.01)
            on_event(Finished("cancelled" if ticket in self._gone else "stop" if found.stopped_B[0] else "length"))
