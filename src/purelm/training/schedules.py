"""The learning rate as a function of the step.

Update number s (from 0) of N, with W steps of warm-up and peak rate r, uses

- warm-up, s < W: r (s + 1) / W, so that the first update already moves and update W - 1 has the peak rate;
- constant: r;
- linear, cosine: from r at s = W towards final_fraction r, which they reach after the last update, at s = N (as
  optax's schedules and nanoGPT's do: no update is spent at the rate zero);
- wsd (warm-up, stable, decay; Hu et al. 2024): r, then linear in the last `decay` steps, as above;
- inverse_sqrt (Vaswani et al. 2017, section 5.3): r sqrt(max(W, 1) / (s + 1)), never below final_fraction r.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from purelm.config import Config, steps_of


def make_schedule(config: Config, peak: float) -> optax.Schedule:
    """step -> learning rate, for a finalized config."""
    optimizer, num_steps = config.optimizer, config.training.num_steps
    warmup = steps_of(optimizer.warmup)
    after = _after_warmup(config, peak, warmup, max(num_steps - warmup, 1))
    if warmup == 0:
        return after
    rise = optax.linear_schedule(peak / warmup, peak, warmup - 1) if warmup > 1 else optax.constant_schedule(peak)
    return optax.join_schedules([rise, after], [warmup])


def _after_warmup(config: Config, peak: float, warmup: int, steps: int) -> optax.Schedule:
    """The schedule of the `steps` updates after the warm-up, counted from its end."""
    optimizer = config.optimizer
    final = peak * optimizer.final_fraction
    if optimizer.schedule == "constant":
        return optax.constant_schedule(peak)
    if optimizer.schedule == "linear":
        return optax.linear_schedule(peak, final, steps)
    if optimizer.schedule == "cosine":
        return optax.cosine_decay_schedule(peak, steps, alpha=optimizer.final_fraction)
    if optimizer.schedule == "wsd":
        decay = min(steps_of(optimizer.decay), steps)  # a short run keeps its warm-up and decays in what is left
        if decay == 0:
            return optax.constant_schedule(peak)
        return optax.linear_schedule(peak, final, decay, transition_begin=steps - decay)
    assert optimizer.schedule == "inverse_sqrt"
    scale = max(warmup, 1)
    # Counted from the end of the warm-up, update s of the run is s - warmup.
    return lambda count: jnp.maximum(peak * jnp.sqrt(scale / (count + warmup + 1.0)), final)


def learning_rate_at(config: Config, step: int | jax.Array) -> jax.Array:
    """The rate of update number `step` (from 0), before any learning_rate_rules; float32 scalar."""
    return jnp.asarray(make_schedule(config, config.optimizer.learning_rate)(step), jnp.float32)
