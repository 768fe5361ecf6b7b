"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from purelm.serving import body as fields
from purelm.serving.answering import answer
from purelm.serving.asked import NO_OPS, check_prompt, shared_checks, understand
from purelm.serving.body import naming, read_fields, read_object
from purelm.serving.chat_format import prompt_of, read_messages, stops_of
from purelm.serving.completions import require
from purelm.serving.errors import wrong
from purelm.serving.served import Served
from purelm.serving.token_text import chat_log_probabilities
from purelm.serving.writer import Shown

# Of models that were not trained on replies; those that were have a length of their own.
_DEFAULT_TOKENS = 256
_TOOLS = "tools are not served; leave it out"
_NO_OPS = {**NO_OPS, "modalities": (["text"],), "tools": ([],), "functions": ([],)}
_REFUSED = {"tools": _TOOLS, "functions": _TOOLS, "tool_choice": _TOOLS, "parallel_tool_calls": _TOOLS,
            "function_call": _TOOLS, "audio": "only text is served; leave it out",
            "prediction": "is not served; leave it out",
            "web_search_options": "is not served; leave it out", "reasoning_effort": "is not served; leave it out",
            "verbosity": "is not served; leave it out"}


async def chat(request: Request) -> Response:
    """Answers the last turn of a conversation."""
    served: Served = request.app.state.served
    require(served, "chat")
    body = await read_object(request, served.limits)
    most = fields.integer(1, served.limits.new_tokens)
    found = read_fields(body, {
        **shared_checks(served), "messages": functools.partial(read_messages, served), "logprobs": fields.boolean,
        "top_logprobs": fields.integer(0, 20), "max_completion_tokens": most, "response_format": _response_format},
        refused=_REFUSED, accepted=_NO_OPS)
    if "messages" not in found:
        raise wrong("messages", "is missing", code="missing_field")
    asked = await understand(request, _renamed(found), alternatives=_alternatives(found),
                             default_tokens=_default_tokens(served), own_stops=stops_of(served))
    ids = await asyncio.to_thread(naming, "messages", lambda: prompt_of(served, found["messages"],
                                                                       asked.max_new_tokens))
    return await answer(request, asked, [check_prompt(served, ids, "messages")], _ChatForm(served))


class _ChatForm:
    prefix, whole_object, part_object, strip = "chatcmpl-", "chat.completion", "chat.completion.chunk", True

    def __init__(self, served: Served):
        self._token_bytes = served.automata.token_bytes

    def opening(self, index: int) -> dict[str, Any] | None:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def whole(self, index: int, text: str, shown: Sequence[Shown] | None, reason: str) -> dict[str, Any]:
        return {"index": index, "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": self._log_probabilities(shown), "finish_reason": reason}

    def part(self, index: int, text: str, shown: Sequence[Shown] | None, reason: str | None) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text} if text else {}, "logprobs": self._log_probabilities(shown),
                "finish_reason": reason}

    def _log_probabilities(self, shown: Sequence[Shown] | None) -> dict[str, Any] | None:
        return None if shown is None else chat_log_probabilities(self._token_bytes, shown)


def _default_tokens(served: Served) -> int:
    return served.config.decoding.max_new_tokens if served.config.task.name == "dialogue" else _DEFAULT_TOKENS


def _alternatives(found: dict[str, Any]) -> int | None:
    wanted = found.get("logprobs", False)
    if "top_logprobs" in found and not wanted:
        raise wrong("top_logprobs", "is only for logprobs=true", code="invalid_value")
    if not wanted:
        return None
    return found.get("top_logprobs", 0)


def _renamed(found: dict[str, Any]) -> dict[str, Any]:
    """With max_completion_tokens and response_format under the names that both routes share."""
    found = dict(found)
    if "max_completion_tokens" in found:
        longest = found.pop("max_completion_tokens")
        if "max_tokens" in found and found["max_tokens"] != longest:
            raise wrong("max_tokens", "and max_completion_tokens differ; give one", code="invalid_value")
        found["max_tokens"] = longest
    schema = found.pop("response_format", None)
    if schema is not None:
        if "regex" in found or "json_schema" in found:
            raise wrong("response_format", "and regex or json_schema are both given; give one", code="invalid_value")
        found["json_schema"] = schema
    return found


def _response_format(value: Any, name: str) -> str | None:
    """The JSON schema as text; None for plain text."""
    found = fields.read_fields(fields.mapping(value, name), {"type": fields.string, "json_schema": fields.mapping},
                               refused={}, accepted={}, where=f"{name}.")
    kind = found.get("type")
    if kind == "text":
        return None
    if kind != "json_schema":
        raise wrong(f"{name}.type", f"is {fields.shown(kind)}; one of text, json_schema", code="unsupported_value")
    if "json_schema" not in found or not isinstance(found["json_schema"].get("schema"), dict):
        raise wrong(f"{name}.json_schema.schema", "must be an object, the schema", code="missing_field")
    return json.dumps(found["json_schema"]["schema"])
