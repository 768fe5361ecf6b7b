"""Cells over devices, by pmap and on a mesh, beside each cell's own run; test_together.py starts it on 4 devices."""

from __future__ import annotations

import dataclasses
import gc

import jax
import numpy as np
from tiny import make_batch, make_config

from purelm.training.parallel import make_engine
from purelm.training.parallel.together import make_together_engine

STEPS = 10
# (config.parallel, devices together, devices alone, cells)
CASES = {"cells over devices": ({}, 4, 1, 5), "pmap of cells": ({"engine": "pmap"}, 4, 4, 2),
         "mesh of cells": ({"fsdp": 2, "tensor": 2}, 4, 4, 2)}


def batch_of(cell: int, number: int) -> dict[str, np.ndarray]:
    return make_batch(10 * cell + number % 2)


def main() -> None:
    gc.disable()  # Tracing makes many objects and little garbage.
    for name, (parallel, together, alone, count) in CASES.items():
        config = make_config(parallel=parallel, training={"accumulation_steps": 2, "ema_decay": 0.9})
        configs = [dataclasses.replace(config, seed=seed, optimizer=dataclasses.replace(
            config.optimizer, learning_rate=0.1 * (1 + seed))) for seed in range(count)]
        engine = make_together_engine(configs, jax.devices()[:together])
        assert engine.name == name and engine.memory_bytes() > 0, engine.name
        states, history = engine.init(), []
        for number in range(STEPS):
            states, sums = engine.train_step(states, [batch_of(cell, number) for cell in range(count)])
            history.append(sums)
            if number == 1:
                states = engine.place(engine.gather(states))
        shared = jax.device_get(engine.evaluate_step(states, batch_of(0, 0)))
        own = jax.device_get(engine.evaluate_step(states, [batch_of(cell, 0) for cell in range(count)]))
        history, states = jax.device_get(history), engine.gather(states)
        for cell in (0, count - 1):
            one, state = make_engine(configs[cell], jax.devices()[:alone]), None
            state = one.init(cell)
            for number in range(STEPS):
                state, sums = one.train_step(state, batch_of(cell, number))
                np.testing.assert_allclose(history[number]["loss"][cell], sums["loss"], rtol=1e-5, err_msg=name)
            for found, batch in ((shared, batch_of(0, 0)), (own, batch_of(cell, 0))):
                np.testing.assert_allclose(found["loss"][cell], one.evaluate_step(state, batch)["loss"], rtol=1e-5)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                         states[cell], one.gather(state))
    print("agreed")


if __name__ == "__main__":
    main()
