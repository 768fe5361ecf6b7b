"""What a run carries from step to step, and where its randomness comes from."""

from __future__ import annotations

import enum
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from purelm.config import Config
from purelm.models.adapters import add_adapters
from purelm.tasks import task_of
from purelm.training.optimizer import float32


@flax.struct.dataclass
class TrainState:
    """Attributes:

    step: int32 scalar, the updates made.
    params: the parameters, in config.model.param_dtype.
    opt_state: the optimizer's, in float32.
    ema: the running average of the parameters in float32, or None.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any


class Purpose(enum.IntEnum):
    """What a random number is for: no two purposes share a key."""

    INITIALIZATION = 0
    DROPOUT = 1


def random_key(seed: int | jax.Array, purpose: Purpose, step: int | jax.Array = 0) -> jax.Array:
    """The key of (seed, purpose, step). It is never stored, so a resumed run draws what it would have drawn."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), int(purpose)), step)


def initial_params(config: Config, key: jax.Array) -> Any:
    """The task's initial parameters, with adapters where config.adapter asks for them."""
    return add_adapters(config.adapter, task_of(config).initialize(config, key), key)


def params_shapes(config: Config) -> Any:
    """The shapes and types of `initial_params`, without computing any."""
    return jax.eval_shape(lambda: initial_params(config, jax.random.key(0)))


def initial_state(config: Config, optimizer: optax.GradientTransformation, seed: int | jax.Array) -> TrainState:
    """The state before the first update."""
    params = initial_params(config, random_key(seed, Purpose.INITIALIZATION))
    ema = None if config.training.ema_decay is None else float32(params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(float32(params)), ema)


def evaluated_params(state_or_params: TrainState | Any) -> Any:
    """What is evaluated: the running average where there is one, else the parameters; parameters as they are."""
    if not isinstance(state_or_params, TrainState):
        return state_or_params
    return state_or_params.params if state_or_params.ema is None else state_or_params.ema
