"""Programs that test_checkpoints.py starts, to kill them, to give them eight devices, or to run two of them."""

from __future__ import annotations

import os
import sys
from typing import Any

if sys.argv[1:2] == ["devices"]:
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class TrainState:
    step: Any
    params: Any
    opt_state: Any
    ema: Any


def state_at(step: int, *, optimizer: optax.GradientTransformation | None = None, ema: bool = False,
             width: int = 16) -> TrainState:
    """Values that follow from the step alone, no two arrays alike, so that any mix-up shows."""
    random = np.random.default_rng(step)
    params = {"embedding": {"embedding": random.normal(size=(32, width)).astype(np.float32)},
              "layers": {"up": {"kernel": random.normal(size=(2, width, 8)).astype(np.float32),
                                "bias": random.normal(size=(2, 8)).astype(jnp.bfloat16)}}}
    params = jax.tree.map(jnp.asarray, params)
    opt_state = (optimizer or optax.adam(1e-3)).init(params)
    opt_state = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) * 9).astype(leaf.dtype), opt_state)
    average = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) / 3, params) if ema else None
    return TrainState(jnp.asarray(step, jnp.int32), params, opt_state, average)


def assert_same(found: Any, expected: Any) -> None:
    """Same structure, dtypes, shapes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def shardings(state: TrainState, devices: Any) -> TrainState:
    """Every array split along its last axis where that divides by the devices, else replicated."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("fsdp",))

    def sharding(leaf):
        split = leaf.ndim > 0 and leaf.shape[-1] % len(devices) == 0
        spec = jax.sharding.PartitionSpec(*[None] * (leaf.ndim - 1), "fsdp") if split else jax.sharding.PartitionSpec()
        return jax.sharding.NamedSharding(mesh, spec)

    return jax.tree.map(sharding, state)


def abstract(state: TrainState, devices: Any) -> TrainState:
    return jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                        state, shardings(state, devices))


def save_in_a_loop(folder: str) -> None:
    """Until killed; says which steps are finished."""
    from purelm.training.checkpoints import Checkpoints

    with Checkpoints(folder, keep_last=2, keep_best=False) as checkpoints:
        restored = checkpoints.restore_latest(state_at(0))
        for step in range(0 if restored is None else restored.step + 1, 1000):
            checkpoints.save(step, state_at(step))
            print("started", step, flush=True)
            if step % 3:  # sometimes the next save does the waiting
                checkpoints.wait()
                print("finished", step, flush=True)


def use_eight_devices(folder: str) -> None:
    """Restores step 1, which one device saved, and saves step 2 from arrays split over eight."""
    from purelm.training.checkpoints import Checkpoints

    assert jax.device_count() == 8
    with Checkpoints(folder, keep_last=2, keep_best=False) as checkpoints:
        restored = checkpoints.restore_latest(abstract(state_at(1), jax.devices()))
        assert_same(restored.state, state_at(1))
        kernel = restored.state.params["layers"]["up"]["kernel"]
        assert kernel.addressable_shards[3].data.shape == (2, 16, 1)
        checkpoints.save(2, jax.device_put(state_at(2), shardings(state_at(2), jax.devices())))


def one_of_two_processes(folder: str, address: str, index: str) -> None:
    """Saves two steps split over both processes, damages the second, and restores the first in both."""
    jax.distributed.initialize(address, 2, int(index), heartbeat_timeout_seconds=10)
    from jax.experimental import multihost_utils

    from purelm.training.checkpoints import Checkpoints

    with Checkpoints(folder, keep_last=2, keep_best=True) as checkpoints:
        assert checkpoints.restore_latest(abstract(state_at(0), jax.devices())) is None
        for step in (1, 2, 3):
            whole = state_at(step)
            state = jax.tree.map(
                lambda leaf, sharding: jax.make_array_from_callback(leaf.shape, sharding, np.asarray(leaf).__getitem__),
                whole, shardings(whole, jax.devices()))
            checkpoints.save(step, state, metrics={"loss": float(step)})
        checkpoints.wait()
        multihost_utils.sync_global_devices("saved")
        assert checkpoints.all_steps() == [1, 2, 3], checkpoints.all_steps()
        multihost_utils.sync_global_devices("seen")
        if index == "0":
            os.truncate(os.path.join(folder, "3", "params", "manifest.ocdbt"), 9)
        multihost_utils.sync_global_devices("damaged")
        restored = checkpoints.restore_latest(abstract(state_at(0), jax.devices()))
        assert restored.step == 2
        for found, expected in zip(jax.tree.leaves(restored.state), jax.tree.leaves(state_at(2))):
            for shard in found.addressable_shards:
                assert np.asarray(shard.data).tobytes() == np.asarray(expected[shard.index]).tobytes()
        assert not checkpoints.reached_preemption(2)
        host = jax.tree.map(np.asarray, state_at(4))  # as pmap gives it: whole, on every host
        checkpoints.save(4, host)
    print("done", flush=True)


if __name__ == "__main__":
    {"loop": save_in_a_loop, "devices": use_eight_devices, "two": one_of_two_processes}[sys.argv[1]](*sys.argv[2:])
