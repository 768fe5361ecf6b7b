"""The training step: one pure function, whatever it runs on.

With batches b spread over micro-batches, devices and processes, the gradient is that of

    sum_b loss(b) / sum_b weight(b)

Each part adds up sums, and one division follows the last reduction. A mean of means would weight a token by the
company it keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from purelm.config import Config, ModelConfig
from purelm.config.numbers import is_zero, single
from purelm.models.adapters import merge_adapters
from purelm.tasks import task_of
from purelm.training.optimizer import float32, learning_rate_multipliers
from purelm.training.state import Purpose, TrainState, random_key

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]
Prepare = Callable[[Any], Any]


def train_step(config: Config, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch, *,
               axis_name: str | None = None, prepare: Prepare = lambda params: params) -> tuple[TrainState, Sums]:
    """One update. Where the loss or the gradient is not finite, the state comes back as it was.

    Args:
      config: a finalized config.
      optimizer: `make_optimizer(config, ...)`.
      state: before the update.
      batch: this device's rows (with `axis_name`), or all of them.
      axis_name: the axis of `jax.pmap` over which sums are added up, or None.
      prepare: what the parameters go through, inside the differentiated function, before the model reads them.

    Returns:
      The state after the update, and float32 scalars: the task's sums over the whole batch (`loss`, `cross_entropy`,
      `weight`, perhaps `correct`), `gradient_norm` (global norm of the mean gradient, before clipping) and `finite` (1,
      or 0 where the update was skipped).
    """
    gradients, sums = gradient_sums(config, state.params, batch, _dropout_key(config, state.step, axis_name),
                                    prepare)
    if axis_name is not None:
        gradients, sums = jax.lax.psum((gradients, sums), axis_name)
    scale = 1 / jnp.where(sums["weight"] > 0, sums["weight"], 1)
    gradients = jax.tree.map(lambda gradient: gradient * scale, gradients)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(sums["loss"]) & jnp.isfinite(norm)
    after = _update(config, optimizer, state, gradients)
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
    return state, sums | {"gradient_norm": norm, "finite": finite.astype(jnp.float32)}


def evaluate_step(config: Config, params: Any, batch: Batch, *, axis_name: str | None = None) -> Sums:
    """The task's sums of a batch without dropout."""
    sums = task_of(config).loss_sums(config, merge_adapters(config.adapter, params), batch, None)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def gradient_sums(config: Config, params: Any, batch: Batch, key: jax.Array | None,
                  prepare: Prepare = lambda params: params) -> tuple[Any, Sums]:
    """The gradient of the summed loss, in float32, and the sums, over `accumulation_steps` micro-batches in turn."""
    loss_sums = task_of(config).loss_sums
    trainable = jax.tree.map(lambda multiplier: not is_zero(multiplier), learning_rate_multipliers(config, params))

    def loss_fn(params, batch, key):
        params = jax.tree.map(lambda leaf, train: leaf if train else jax.lax.stop_gradient(leaf), params, trainable)
        sums = loss_sums(config, merge_adapters(config.adapter, prepare(params)), batch, key)
        return sums["loss"], sums

    def one(batch, key):
        gradients, sums = jax.grad(loss_fn, has_aux=True)(params, batch, key)
        return float32(gradients), sums

    count = config.training.accumulation_steps
    if count == 1:
        return one(batch, key)

    def add(total, numbered):
        number, batch = numbered
        part = one(batch, None if key is None else jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, part), None

    parts = jax.tree.map(lambda leaf: _micro_batches(leaf, count), dict(batch))
    shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], parts), key)
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(count), parts))
    return total


def _micro_batches(leaf_BT: jax.Array, count: int) -> jax.Array:
    """[count, B / count, T]: every count-th row, so that rows split over devices stay where they are."""
    return leaf_BT.reshape(leaf_BT.shape[0] // count, count, *leaf_BT.shape[1:]).swapaxes(0, 1)


def _update(config: Config, optimizer: optax.GradientTransformation, state: TrainState, gradients: Any) -> TrainState:
    old = float32(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, old)
    new = optax.apply_updates(old, updates)
    ema, decay = state.ema, single(config.training.ema_decay)
    if decay is not None:
        ema = jax.tree.map(lambda average, leaf: decay * average + (1 - decay) * leaf, ema, new)
    params = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), new, state.params)
    return TrainState(state.step + 1, params, opt_state, ema)


def _dropout_key(config: Config, step: jax.Array, axis_name: str | None) -> jax.Array | None:
    if not has_dropout(config.model):
        return None
    key = random_key(config.seed, Purpose.DROPOUT, step)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def has_dropout(model: ModelConfig) -> bool:
    """Whether anything of the model is random in training."""
    return not all(is_zero(getattr(model, field.name)) for field in dataclasses.fields(model)
                   if field.name.endswith("_dropout"))
