"""How one step is spread over devices: plain jit, pmap of replicas, or a mesh. All make the same update."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from purelm.config import Config
from purelm.errors import UserError
from purelm.models.choice import choose_implementation
from purelm.training.parallel.engine import Engine
from purelm.training.parallel.mesh import MeshEngine
from purelm.training.parallel.pmap import PmapEngine
from purelm.training.parallel.single import SingleEngine

__all__ = ["Engine", "make_engine"]


def make_engine(config: Config, devices: Sequence[jax.Device] | None = None) -> Engine:
    """The engine that config.parallel asks for.

    Args:
      config: finalized.
      devices: of all processes; none is all there are.

    Raises:
      UserError: the axes do not multiply to the number of devices, the batch does not divide over them, or a size of
        the model does not divide over the axis that splits it; or the form of attention asked for cannot run here.
    """
    devices = list(jax.devices() if devices is None else devices)
    parallel = config.parallel
    split = parallel.fsdp * parallel.tensor
    if split < 1 or len(devices) % split or parallel.data not in (-1, len(devices) // split):
        data = "all" if parallel.data == -1 else parallel.data
        raise UserError(
            f"config.parallel: data={data} x fsdp={parallel.fsdp} x tensor={parallel.tensor} does not make "
            f"{len(devices)}, the number of devices there are; their product must (data=-1 takes all that are left)")
    if parallel.engine == "pmap" and split > 1:
        raise UserError("config.parallel.engine='pmap' keeps parameters whole on each device, so fsdp and tensor must "
                        "be 1; use engine 'mesh' to split them")
    _check_batch(config, len(devices) // parallel.tensor)
    # Refuses, before anything is written, a form of attention that this device cannot compute.
    choose_implementation(config.model, num_tokens=config.model.context_length, cached=False, collect=False,
                          training=True)
    if parallel.engine == "mesh" or split > 1:
        return MeshEngine(config, devices)
    if parallel.engine == "pmap" or len(devices) > 1:
        return PmapEngine(config, devices)
    return SingleEngine(config, devices)


def _check_batch(config: Config, batch_devices: int) -> None:
    training = config.training
    parts = batch_devices * training.accumulation_steps
    if training.batch_size % parts:
        near = max(round(training.batch_size / parts), 1) * parts
        raise UserError(
            f"config.training.batch_size={training.batch_size} does not divide over {batch_devices} devices x "
            f"{training.accumulation_steps} accumulation_steps; it must be a multiple of {parts}, such as {near}")
