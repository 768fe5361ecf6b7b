"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from purelm.inference import encode_prompt
from purelm.inference.prompts import text_begins
from purelm.serving import body as fields
from purelm.serving.answering import answer
from purelm.serving.asked import NO_OPS, check_prompt, shared_checks, understand
from purelm.serving.body import naming, read_fields, read_object
from purelm.serving.errors import ApiError, wrong
from purelm.serving.served import Served, abilities
from purelm.serving.token_text import completion_log_probabilities
from purelm.serving.writer import Shown

# OpenAI's default of max_tokens.
_DEFAULT_TOKENS = 16
_REFUSED = {"suffix": "the model writes on from a prompt, not into a gap; leave it out"}


async def completions(request: Request) -> Response:
    """Goes on from one prompt or several."""
    served: Served = request.app.state.served
    require(served, "completions")
    body = await read_object(request, served.limits)
    found = read_fields(body, {
        **shared_checks(served), "prompt": _prompts, "logprobs": fields.integer(0, 20), "echo": fields.boolean,
        "best_of": fields.integer(1, served.limits.choices)}, refused=_REFUSED, accepted=NO_OPS)
    if "prompt" not in found:
        raise wrong("prompt", "is missing", code="missing_field")
    asked = await understand(request, found, alternatives=found.get("logprobs"),
                             default_tokens=_DEFAULT_TOKENS)
    if found.get("best_of", asked.n) != asked.n:
        raise wrong("best_of", f"is {found['best_of']}; only n ({asked.n}) is served", code="unsupported_value")
    echo = found.get("echo", False)
    if echo and asked.alternatives is not None:
        raise wrong("logprobs", "with echo is not served, as a prompt's tokens are not scored; leave one out",
                    code="unsupported_value")
    if len(found["prompt"]) * asked.n > served.limits.choices:
        raise wrong("n", f"{len(found['prompt'])} prompts times {asked.n} answers; {served.limits.choices} at most",
                    code="invalid_value")
    prompts = await asyncio.to_thread(_encode, served, found["prompt"])
    return await answer(request, asked, prompts, _CompletionForm(served, prompts, asked.n, echo))


def require(served: Served, ability: str) -> None:
    """Raises ApiError where the run cannot do what a route is for."""
    can = abilities(served.config)
    if ability not in can:
        raise ApiError(400, f"{served.name} is a run of task {served.config.task.name}, which cannot be asked for "
                       f"{ability}; it can be asked for {', '.join(can) or 'nothing'}", param="model",
                       code="unsupported_model")


class _CompletionForm:
    prefix, whole_object, part_object, strip = "cmpl-", "text_completion", "text_completion", False

    def __init__(self, served: Served, prompts: Sequence[tuple[int, ...]], n: int, echo: bool):
        self._token_bytes = served.automata.token_bytes
        self._echoed = [_decode(served, prompt) for prompt in prompts for _ in range(n)] if echo else None

    def opening(self, index: int) -> dict[str, Any] | None:
        return None if self._echoed is None else _choice(index, self._echoed[index], None, None)

    def whole(self, index: int, text: str, shown: Sequence[Shown] | None, reason: str) -> dict[str, Any]:
        echoed = "" if self._echoed is None else self._echoed[index]
        return _choice(index, echoed + text, self._log_probabilities(shown), reason)

    def part(self, index: int, text: str, shown: Sequence[Shown] | None, reason: str | None) -> dict[str, Any]:
        return _choice(index, text, self._log_probabilities(shown), reason)

    def _log_probabilities(self, shown: Sequence[Shown] | None) -> dict[str, Any] | None:
        return None if shown is None else completion_log_probabilities(self._token_bytes, shown)


def _choice(index: int, text: str, log_probabilities: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": log_probabilities, "finish_reason": reason}


def _prompts(value: Any, name: str) -> list[str | list[int]]:
    """A string, a list of strings, ids, or a list of lists of ids."""
    if isinstance(value, str):
        return [fields.string(value, name)]
    if not isinstance(value, list) or not value:
        raise wrong(name, f"is {fields.kind_of(value)}; it must be a string, token ids, or a list of either, not empty",
                    code="invalid_type")
    if all(isinstance(item, int) for item in value):
        return [read_ids(value, name)]
    return [fields.string(item, f"{name}[{number}]") if isinstance(item, str) else read_ids(item, f"{name}[{number}]")
            for number, item in enumerate(value)]


def read_ids(value: Any, name: str) -> list[int]:
    """A list of whole numbers, not empty."""
    if not isinstance(value, list) or not value:
        raise wrong(name, "must be a string, or a list of token ids that is not empty", code="invalid_type")
    for number, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int):
            raise wrong(f"{name}[{number}]", f"is {fields.shown(item)}; token ids are whole numbers",
                        code="invalid_type")
    return value


def _encode(served: Served, prompts: Sequence[str | list[int]]) -> list[tuple[int, ...]]:
    found = []
    for number, prompt in enumerate(prompts):
        name = "prompt" if len(prompts) == 1 else f"prompt[{number}]"
        if isinstance(prompt, str):
            ids = naming(name, lambda prompt=prompt: encode_prompt(served.run.tokenizer, prompt).tolist())
        else:
            ids = prompt
            outside = [i for i in ids if not 0 <= i < served.vocabulary_size]
            if outside:
                raise wrong(name, f"has the id {fields.shown(outside[0])}; ids are 0 to {served.vocabulary_size - 1}",
                            code="invalid_value")
        found.append(check_prompt(served, ids, name))
    return found


def _decode(served: Served, prompt: tuple[int, ...]) -> str:
    """A prompt's text, without what the tokenizer puts before one, and as it stands before an answer."""
    tokenizer = served.run.tokenizer
    text = tokenizer.decode(prompt[text_begins(tokenizer, prompt):])
    return text + tokenizer.separator.decode() if text else text
