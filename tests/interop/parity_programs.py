"""Our side of parity: one compiled program a shape, which gives logits, every layer's output and every gradient."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import ModelConfig
from purelm.models import Encoded, Transformer
from purelm.models.classifier import Classifier, TokenClassifier

PADDED = -1e30  # Logits of start and end on padding.


@functools.cache
def run(config: ModelConfig, task: str) -> Any:
    """The one program of a shape: (params, tokens_BT, inputs, labels) -> ({"logits", "layers"}, gradients)."""
    model = Transformer(config)

    def loss(params: Any, tokens_BT: Any, inputs: dict[str, Any], labels: Any) -> tuple[jax.Array, dict[str, Any]]:
        apply = functools.partial(model.apply, {"params": params})
        output = apply(tokens_BT, **inputs, collect=True, method="hidden")
        x_BTD, seen = output.logits_BTV, output.intermediates
        if task == "classification":
            logits, _ = Classifier(config).apply({"params": params["classifier"]}, x_BTD, inputs["segments_BT"])
        elif task == "tagging":
            logits = TokenClassifier(config).apply({"params": params["classifier"]}, x_BTD)
        elif task == "extractive_qa":
            logits_B2T = jnp.moveaxis(x_BTD @ params["span"]["kernel"] + params["span"]["bias"], -1, 1)
            logits = jnp.where(inputs["segments_BT"][:, None] > 0, logits_B2T, PADDED)
        else:
            logits = apply(x_BTD, method="logits")
        return _our_loss(logits, labels), {"logits": logits, "layers": _layers(seen)}

    def both(*arguments: Any) -> tuple[dict[str, Any], Any]:
        (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(*arguments)
        return found, gradients

    return jax.jit(both)


@functools.cache
def run_two_stacks(config: ModelConfig) -> Any:
    def forward(model: Transformer, source_BS: Any, source: Any, target_BT: Any, inputs: Any) -> dict[str, Any]:
        table = model.embedding if config.shared_embeddings else None
        read = model.encoder.features(source_BS, **source, collect=True, embedding=table)
        encoded = Encoded(read.logits_BTV, source["segments_BT"])
        output = model(target_BT, **inputs, encoded=encoded, collect=True)
        return {"logits": output.logits_BTV, "layers": _layers(output.intermediates),
                "encoder_layers": _layers(read.intermediates)}

    def loss(params: Any, *arguments: Any) -> tuple[jax.Array, dict[str, Any]]:
        *arguments, labels = arguments
        found = Transformer(config).apply({"params": params}, *arguments, method=forward)
        return _our_loss(found["logits"], labels), found

    def both(*arguments: Any) -> tuple[dict[str, Any], Any]:
        (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(*arguments)
        return found, gradients

    return jax.jit(both)


def _layers(seen: dict[str, jax.Array]) -> jax.Array:
    """[1 + L, B, T, D]: what enters the first layer, and what each gives."""
    return jnp.concatenate([seen["embedding_BTD"][None], seen["residual_LBTD"]])


def _our_loss(logits: jax.Array, labels: tuple[jax.Array, jax.Array]) -> jax.Array:
    targets, weights = labels
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(chosen * weights)
