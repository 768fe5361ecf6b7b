"""GET /v1/models and /v1/models/ID."""

from __future__ import annotations

import dataclasses
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from purelm.errors import did_you_mean
from purelm.serving.chat_format import describe_format
from purelm.serving.errors import ApiError
from purelm.serving.served import Served, abilities


async def list_models(request: Request) -> Response:
    """The one model, as a list."""
    return JSONResponse({"object": "list", "data": [describe(request.app.state.served)]})


async def one_model(request: Request) -> Response:
    """The model by its name."""
    served = request.app.state.served
    check_model(served, request.path_params["id"])
    return JSONResponse(describe(served))


def describe(served: Served) -> dict[str, Any]:
    """OpenAI's fields, and what clients of this server want to know under "purelm"."""
    from purelm.models.counting import count_parameters

    config = served.config
    return {"id": served.name, "object": "model", "created": served.created, "owned_by": "purelm", "purelm": {
        "task": config.task.name, "architecture": config.model.architecture,
        "context_length": config.model.context_length, "vocabulary_size": served.vocabulary_size,
        "parameters": int(count_parameters(served.params)), "can": abilities(config),
        "labels": None if served.run.labels is None else list(served.run.labels), "step": served.run.step,
        "chat_format": describe_format(config, served.run.tokenizer) if served.engine is not None else None,
        "limits": dataclasses.asdict(served.limits)}}


def check_model(served: Served, name: Any) -> None:
    """Raises ApiError 404 for a model that is not served."""
    if name != served.name:
        raise ApiError(404, f"model: there is no model {name!r}{did_you_mean(str(name), [served.name])}", param="model",
                       code="model_not_found")
