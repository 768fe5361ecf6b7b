"""The update rules, all of Optax.

Every rule is read as a direction u, and the update is

    parameter -= multiplier * rate(step) * (u + weight_decay * factor * parameter)

with the multiplier of learning_rate_rules (times layer_decay's) and the factor of decay_rules: weight decay is
decoupled and multiplied by the learning rate, for every name (Loshchilov and Hutter 2019, as PyTorch's AdamW). Adam is
the exception: it is AdamW with no decay, and asking it for one is an error. The directions, after clipping by the
global norm:

- sgd: the gradient, or its heavy-ball (Nesterov) trace where `momentum` is not 0 (PyTorch's SGD without dampening);
- adam, adamw: Kingma and Ba 2015 (nesterov: Dozat 2016) by beta1, beta2, epsilon;
- adabelief: Zhuang et al. 2020; epsilon both inside the second moment and in the denominator, as in its algorithm 2;
- adafactor: Shazeer and Stern 2018, factored second moments, updates clipped at RMS 1 and scaled by the parameter's
  RMS; no momentum; its constants are the paper's;
- lion: Chen et al. 2023, by beta1, beta2;
- muon (Jordan et al. 2024): the matrices of the layers move by their orthogonalized momentum (`momentum`, `nesterov`,
  `muon_steps`), scaled by 0.2 sqrt(max(in, out)), so that an update has the size of Adam's and one rate serves both
  (Liu et al. 2025, "Muon is scalable", eq. 4); embeddings, the output layer, biases and norms go to Adam, at
  adam_learning_rate.

Layers are stacked [L, ...]: Muon and Adafactor treat each layer's matrix by itself. A parameter whose multiplier is 0
is frozen: it has no optimizer state and is not part of the gradient's norm.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from purelm.config import Config, OptimizerConfig
from purelm.config.numbers import is_zero, single
from purelm.errors import UserError
from purelm.training import rules
from purelm.training.schedules import make_schedule

MUON_RMS = 0.2
_STACKED = re.compile(r"^(adapters/)?(encoder/)?layers/")
_LAYER_MATRIX = re.compile(r"^(encoder/)?layers/.*kernel$")


def make_optimizer(config: Config, params_shapes: Any) -> optax.GradientTransformation:
    """The transformation of mean gradients into updates, for parameters of these shapes (arrays or abstract).

    Raises:
      UserError: a rule does not fit (`rules.first_match`), or adam is asked for weight decay.
    """
    optimizer = config.optimizer
    if optimizer.name == "adam" and not is_zero(optimizer.weight_decay):
        raise UserError("config.optimizer.weight_decay: adam has none; take "
                        "config.optimizer.name=adamw, or set it to 0")
    multipliers = learning_rate_multipliers(config, params_shapes)
    depths = layer_factors(config, params_shapes)
    groups = jax.tree_util.tree_map_with_path(
        lambda path, leaf, multiplier: _group(optimizer, rules.path_name(path), multiplier), params_shapes, multipliers)
    parts = [] if optimizer.clip_norm is None else [optax.clip_by_global_norm(optimizer.clip_norm)]
    directions = {group: _direction(optimizer, group) for group in sorted(set(jax.tree.leaves(groups)))}
    parts.append(optax.partition(directions, groups))
    if not is_zero(optimizer.weight_decay):
        factors = rules.match_rules(optimizer.decay_rules, params_shapes, "config.optimizer.decay_rules")
        parts.append(_add_decay(jax.tree.map(
            lambda factor, multiplier: (0.0 if is_zero(multiplier) or is_zero(factor) else
                                        optimizer.weight_decay * factor), factors, multipliers)))
    adam_rate = optimizer.learning_rate if optimizer.adam_learning_rate is None else optimizer.adam_learning_rate
    scales = jax.tree.map(
        lambda group, multiplier: multiplier * (adam_rate / optimizer.learning_rate if group == "adam" else 1.0),
        groups, multipliers) if optimizer.name == "muon" else multipliers
    parts += [_scale_leaves(scales), _scale_leaves(depths),
              optax.scale_by_learning_rate(make_schedule(config, optimizer.learning_rate))]
    return optax.chain(*parts)


def learning_rate_multipliers(config: Config, params_shapes: Any) -> Any:
    """The factor of learning_rate_rules for each parameter; 0 is frozen. Raises as `rules.first_match`.

    With adapters, everything but them and what config.adapter.trained names is frozen.
    """
    found = rules.match_rules(config.optimizer.learning_rate_rules, params_shapes,
                              "config.optimizer.learning_rate_rules")
    if config.adapter.rank is None:
        return found

    def trained(path: Any, multiplier: float) -> float:
        name = rules.path_name(path)
        return multiplier if name.startswith("adapters/") or re.search(config.adapter.trained, name) else 0.0

    return jax.tree_util.tree_map_with_path(trained, found)


def layer_factors(config: Config, params_shapes: Any) -> Any:
    """config.optimizer.layer_decay to the power of each parameter's distance from the output, 1 without it.

    Howard and Ruder 2018, arXiv 1801.06146, "discriminative fine-tuning". What comes after the layers has distance 0,
    layer l of L has L - l (from 0), embeddings L + 1; an encoder beside a decoder lies below all of the decoder.
    Stacked layers have a factor each, [L', 1, ...].
    """
    decay, model = config.optimizer.layer_decay, config.model

    def factor(path: Any, leaf: Any) -> float | np.ndarray:
        name = rules.path_name(path)
        if decay is None:
            return 1.0
        inside = re.match(r"(adapters/)?(encoder/)?(layers|recurrent_(\d+))/", name)
        below = model.num_layers if model.architecture.endswith("encoder_decoder") else 0
        encoder_layers = model.encoder_layers or model.num_layers
        if inside is None:
            lowest = re.search(r"(^|/)(embedding(_projection|_norm)?|positions|token_types|relative_bias)/", name)
            return decay ** ((below + encoder_layers if below else model.num_layers) + 1) if lowest else 1.0
        layers, offset = (encoder_layers, below) if inside[2] else (model.num_layers, 0)
        if inside[4] is not None:
            return decay ** (offset + layers - int(inside[4]))
        count = leaf.shape[0]
        distance = offset + layers - np.arange(count) * (layers // count)
        return (decay ** distance).astype(np.float32).reshape(-1, *(1,) * (len(leaf.shape) - 1))

    return jax.tree_util.tree_map_with_path(factor, params_shapes)


def _group(optimizer: OptimizerConfig, name: str, multiplier: float | jax.Array) -> str:
    if is_zero(multiplier):
        return "frozen"
    if optimizer.name == "muon":
        return "muon" if _LAYER_MATRIX.search(name) else "adam"
    if optimizer.name == "adafactor":
        return "adafactor_stacked" if _STACKED.search(name) else "adafactor"
    return optimizer.name


def _direction(optimizer: OptimizerConfig, group: str) -> optax.GradientTransformation:
    beta1, beta2, momentum = single(optimizer.beta1), single(optimizer.beta2), single(optimizer.momentum)
    epsilon = optimizer.epsilon
    if group == "frozen":
        return optax.set_to_zero()
    if group == "sgd":
        return optax.identity() if is_zero(optimizer.momentum) else optax.trace(momentum, optimizer.nesterov)
    if group in ("adam", "adamw"):
        nesterov = optimizer.nesterov and optimizer.name != "muon"
        return optax.scale_by_adam(beta1, beta2, epsilon, nesterov=nesterov)
    if group == "adabelief":
        return optax.scale_by_belief(beta1, beta2, epsilon, eps_root=epsilon, nesterov=optimizer.nesterov)
    if group == "lion":
        return optax.scale_by_lion(beta1, beta2)
    if group == "adafactor":
        return _adafactor()
    if group == "adafactor_stacked":
        return _each_layer(_adafactor())
    assert group == "muon"
    return optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=optimizer.muon_steps, beta=momentum, nesterov=optimizer.nesterov,
            weight_dimension_numbers=lambda updates: jax.tree.map(
                lambda _: optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2), updates)),
        optax.stateless_with_tree_map(lambda update, _: MUON_RMS * math.sqrt(max(update.shape[1:])) * update))


def _adafactor() -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms())


def _each_layer(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation applied to each slice along the leading (layer) axis of every parameter by itself."""
    return optax.GradientTransformation(
        jax.vmap(transformation.init), lambda updates, state, params=None: jax.vmap(transformation.update)(
            updates, state, params))


def _add_decay(factors: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: jax.tree.map(
        lambda update, parameter, factor: update if is_zero(factor) else update + factor * parameter,
        updates, params, factors))


def _scale_leaves(scales: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: jax.tree.map(
        lambda update, scale: update if isinstance(scale, float) and scale == 1 else scale * update, updates, scales))


def float32(tree: Any) -> Any:
    """The tree in float32: what optimizer state and gradients are kept in, whatever the parameters' type."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
