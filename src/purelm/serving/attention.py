"""POST /v1/attention: what each token of a text reads of the others, by layer and head."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from purelm.config import ModelConfig
from purelm.inference import encode_prompt
from purelm.serving import body as fields
from purelm.serving.beside import compute
from purelm.serving.body import naming, read_fields, read_object
from purelm.serving.completions import read_ids, require
from purelm.serving.errors import wrong
from purelm.serving.models_route import check_model
from purelm.serving.served import Served
from purelm.serving.token_text import text_of

_MOST_TOKENS = 512
_DIGITS = 4


async def attention(request: Request) -> Response:
    """{"tokens", "layers", "heads", "weights"}: weights[t][s] is what token t reads of token s."""
    served: Served = request.app.state.served
    require(served, "attention")
    body = await read_object(request, served.limits)
    model = served.config.model
    found = read_fields(body, {
        "model": fields.string, "ids": read_ids, "text": fields.string,
        "layer": fields.integer(0, model.num_layers - 1), "head": functools.partial(_head, model)},
        refused={}, accepted={})
    if "model" in found:
        check_model(served, found["model"])
    ids = _ids(served, found)
    layer = found.get("layer", model.num_layers - 1)
    head = found.get("head", "mean")
    weights_NTT = await compute(request, lambda: layer_weights(model, served.params, ids, layer),
                                turn=served.working)
    if weights_NTT is None:
        return Response(status_code=499)
    weights_TT = weights_NTT.mean(0) if head == "mean" else weights_NTT[head]
    return JSONResponse({
        "tokens": [text_of(served.automata.token_bytes[i]) for i in ids], "layers": model.num_layers,
        "heads": model.num_heads, "layer": layer, "head": head,
        "weights": [[round(value, _DIGITS) for value in row] for row in weights_TT.astype(np.float64).tolist()]})


def layer_weights(config: ModelConfig, params: Any, ids: list[int], layer: int) -> np.ndarray:
    """float32 [N, T, T] of one layer: rows are the tokens that read."""
    size = min(max(16, 1 << (len(ids) - 1).bit_length()), config.context_length)
    tokens_1T, segments_1T = np.zeros((2, 1, size), np.int32)
    tokens_1T[0, :len(ids)], segments_1T[0, :len(ids)] = ids, 1
    found = _program(config)(params, tokens_1T, segments_1T, np.int32(layer))
    return np.asarray(found)[:, :len(ids), :len(ids)]


@functools.lru_cache(maxsize=2)
def _program(config: ModelConfig) -> Any:
    import jax
    import jax.numpy as jnp

    from purelm.models import Transformer

    model = Transformer(config)

    @jax.jit
    def compute_weights(params, tokens_BT, segments_BT, layer):
        types_BT = jnp.zeros_like(tokens_BT) if config.token_types else None
        output = model.apply({"params": params}, tokens_BT, segments_BT=segments_BT, token_types_BT=types_BT,
                             collect=True, method="features")
        return output.intermediates["attention_weights_LBNTS"][layer, 0]

    return compute_weights


def _ids(served: Served, found: dict[str, Any]) -> list[int]:
    if ("ids" in found) == ("text" in found):
        raise wrong("ids" if "ids" in found else "text", "give one of ids and text", code="missing_field")
    name = "ids" if "ids" in found else "text"
    tokenizer = served.run.tokenizer
    ids = found["ids"] if "ids" in found else naming("text", lambda: encode_prompt(tokenizer, found["text"]).tolist())
    if "text" in found and served.config.model.architecture == "encoder":
        ids = [*ids, *tokenizer.special.end]
    outside = [i for i in ids if not 0 <= i < served.vocabulary_size]
    if outside:
        raise wrong(name, f"has the id {fields.shown(outside[0])}; ids are 0 to {served.vocabulary_size - 1}",
                    code="invalid_value")
    most = min(_MOST_TOKENS, served.config.model.context_length)
    if len(ids) > most:
        raise wrong(name, f"has {len(ids)} tokens; {most} at most", code="context_length_exceeded")
    return ids


def _head(model: ModelConfig, value: Any, name: str) -> int | str:
    if value == "mean":
        return "mean"
    if isinstance(value, str):
        raise wrong(name, f'is {fields.shown(value)}; it must be "mean" or a number from 0 to {model.num_heads - 1}',
                    code="invalid_value")
    return fields.integer(0, model.num_heads - 1)(value, name)
