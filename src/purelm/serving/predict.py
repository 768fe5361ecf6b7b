"""POST /v1/predict: a class, tags, a translation, an answer, a reply, of one row or many."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from purelm.evaluation.answers import answer_rows, examples_of
from purelm.serving import body as fields
from purelm.serving.beside import compute
from purelm.serving.body import naming, read_fields, read_object
from purelm.serving.completions import require
from purelm.serving.errors import wrong
from purelm.serving.models_route import check_model
from purelm.serving.served import Served


async def predict(request: Request) -> Response:
    """The answer to each row, as predict.py prints it."""
    served: Served = request.app.state.served
    require(served, "predict")
    body = await read_object(request, served.limits)
    found = read_fields(body, {"model": fields.string, "input": _rows}, refused={}, accepted={"user": None})
    if "model" in found:
        check_model(served, found["model"])
    if "input" not in found:
        raise wrong("input", "is missing; give a text, a list of texts, or a list of rows", code="missing_field")
    rows = found["input"]
    if len(rows) > served.limits.rows:
        raise wrong("input", f"has {len(rows)} rows; {served.limits.rows} at most", code="invalid_value")
    examples = naming("input", lambda: examples_of(served.config, rows))
    found = await compute(request, lambda: naming("input", lambda: (answer_rows(served.run, examples),
                                                                    _count_tokens(served, rows))), turn=served.working)
    if found is None:
        return Response(status_code=499)
    answers, tokens = found
    served.metrics.predicted.inc(len(rows))
    return JSONResponse({"object": "list", "model": served.name,
                         "data": [{"index": index, **answer} for index, answer in enumerate(answers)],
                         "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})


def _rows(value: Any, name: str) -> list[Any]:
    """A text, a list of texts, or a list of rows (objects)."""
    if isinstance(value, str | dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise wrong(name, f"is {fields.kind_of(value)}; it must be a text, or a list of texts or rows, not empty",
                    code="invalid_type")
    for number, row in enumerate(value):
        if isinstance(row, str):
            fields.string(row, f"{name}[{number}]")
        elif not isinstance(row, dict):
            raise wrong(f"{name}[{number}]", f"is {fields.kind_of(row)}; a row is a text or an object",
                        code="invalid_type")
    return value


def _count_tokens(served: Served, rows: list[Any]) -> int:
    texts = [text for row in rows for text in ([row] if isinstance(row, str) else row.values())
             if isinstance(text, str)]
    return sum(map(len, served.run.tokenizer.encode_batch(texts)))
