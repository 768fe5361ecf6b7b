"""Trains the tiny run under several engines and writes what came out; started by test_parallel.py.

usage: parallel_worker.py OUT.npz ENGINES [COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

from __future__ import annotations

import gc
import sys

import jax
import numpy as np
from tiny import make_batch, make_config

STEPS = 20
ENGINES = {
    "single": None,
    "pmap": {"engine": "auto"},
    "mesh data": {"engine": "mesh"},
    "mesh fsdp": {"fsdp": 4},
    "mesh tensor": {"tensor": 4},
    "mesh all": {"fsdp": 2, "tensor": 2},
}


def config_for(name: str):
    # Two micro-batches, and an average, so that every part of the state and of the step is in play.
    return make_config(parallel=ENGINES[name], training={"accumulation_steps": 2, "ema_decay": 0.9})


def train(name: str) -> dict[str, np.ndarray]:
    """Losses of each step, the gathered state, evaluations, and how often anything was compiled after step one."""
    from purelm.training.parallel import make_engine

    engine = make_engine(config_for(name), jax.devices()[:1] if name == "single" else None)
    assert name.startswith(engine.name), engine.name
    index, count = engine.data_shard
    batches = [{key: leaf[index::count] for key, leaf in make_batch(number % 2).items()} for number in range(STEPS)]
    assert len(batches[0]["tokens"]) == engine.batch_rows
    state, history, events = engine.init(0), [], []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
    for number, batch in enumerate(batches):
        state, sums = engine.train_step(state, batch)
        history.append(sums)
        if number == 0:
            state = engine.place(engine.gather(state))
            jax.block_until_ready(state)
            events.clear()
    compiled = [event for event in events if "compile" in event or "trace" in event]
    evaluated = engine.evaluate_step(state, batches[0])
    host = engine.gather(state)
    again = engine.gather(engine.place(host))
    shapes = jax.tree.map(lambda leaf, abstract: leaf.shape == abstract.shape and leaf.dtype == abstract.dtype, host,
                          engine.shapes())
    result = {f"sums/{key}": np.array([sums[key] for sums in jax.device_get(history)]) for key in history[0]}
    result |= {f"evaluated/{key}": np.asarray(value) for key, value in evaluated.items()}
    result |= {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(host)}
    result["compiled"] = np.array(len(compiled))
    result["round trip"] = np.array(all(jax.tree.leaves(jax.tree.map(np.array_equal, host, again))))
    result["shapes"] = np.array(all(jax.tree.leaves(shapes)))
    result["split"] = np.array(max(len({str(shard.index) for shard in leaf.addressable_shards})
                                   for leaf in jax.tree.leaves(state.params)))
    return result


def dropout_keys() -> np.ndarray:
    """The dropout key of each device under pmap."""
    from purelm.training import step
    from purelm.training.parallel.pmap import AXIS

    config = make_config(model={"residual_dropout": 0.1})
    draw = jax.pmap(lambda number: jax.random.key_data(step._dropout_key(config, number, AXIS)), axis_name=AXIS)
    return np.asarray(draw(np.zeros(jax.local_device_count(), np.int32)))


def main() -> None:
    gc.disable()  # Tracing makes many objects and little garbage.
    out, names, *distributed = sys.argv[1:]
    if distributed:
        coordinator, count, number = distributed[0], int(distributed[1]), int(distributed[2])
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, count, number, heartbeat_timeout_seconds=20, initialization_timeout=60)
    results = {f"{name}|{key}": value for name in names.split(",") for key, value in train(name).items()}
    if not distributed:
        results["keys"] = dropout_keys()
    np.savez(out, **results)


if __name__ == "__main__":
    main()
