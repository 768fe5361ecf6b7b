"""Two steps of other tasks and networks under each engine; started by test_task_engines.py on eight devices."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from test_configs import ROOT, a_batch, load, small

from purelm.config import AdapterConfig, OptimizerConfig, ParallelConfig
from purelm.training.parallel import make_engine

SPLIT = {"fsdp": 2, "tensor": 2}
CASES = {
    "translation/transformer": ({}, SPLIT), "classification/bilstm_attention": ({}, {"engine": "mesh"}),
    "classification/transformer": ({"adapter": AdapterConfig(rank=2)}, SPLIT), "qa/extractive": ({}, SPLIT),
}


def config_for(name: str, parallel: dict):
    """SGD: Adam would hide a gradient of the wrong size. No dropout, which differs from device to device."""
    config = small(load(ROOT / "configs" / f"{name}.py", None))
    # A vocabulary that two devices can share.
    names = [field.name for field in dataclasses.fields(config.model)]
    silent = {"vocabulary_size": 12} | {name: 0.0 for name in names if name.endswith("_dropout")}
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, **silent), parallel=ParallelConfig(**parallel),
        optimizer=dataclasses.replace(OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.0, warmup="0")),
        training=dataclasses.replace(config.training, batch_size=8, accumulation_steps=1), **CASES[name][0])


def losses(name: str, parallel: dict, devices: list[jax.Device]) -> np.ndarray:
    config = config_for(name, parallel)
    engine = make_engine(config, devices)
    state, found = engine.init(0), []
    batch = {key: np.concatenate([leaf, leaf[::-1]]) for key, leaf in a_batch(config).items()}
    for _ in range(2):
        state, sums = engine.train_step(state, batch)
        found.append(float(sums["loss"]) / float(sums["weight"]))
    found.append(float(engine.evaluate_step(state, batch)["loss"]) / float(sums["weight"]))
    return np.array(found)


if __name__ == "__main__":
    for name, (_, mesh) in CASES.items():
        expected = losses(name, {}, jax.devices()[:1])
        assert expected[2] < expected[0], f"{name} learned nothing: {expected}"
        for parallel in ({"engine": "pmap"}, mesh):
            np.testing.assert_allclose(losses(name, parallel, jax.devices()), expected, rtol=1e-5,
                                       err_msg=f"{name} {parallel}")
    print("agreed")
