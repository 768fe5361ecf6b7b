"""Messages of a chat as a prompt: a dialogue run's own template, that of a published checkpoint's tokenizer, or a plain
transcript for any other language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from purelm.config import Config
from purelm.data import Tokenizer
from purelm.evaluation.dialogue import reply_room
from purelm.inference import encode_prompt
from purelm.inference.chat_prompts import chat_prompt, has_template
from purelm.serving import body as fields
from purelm.serving.errors import wrong
from purelm.serving.served import Served

_NAMES = {"user": "User", "assistant": "Assistant"}
# What a model writes where it goes on with the other side's turn.
STOPS = ("\nUser:", "\nAssistant:")
_SYSTEM = ("system", "developer")


class Message(NamedTuple):
    """role: "system", "user" or "assistant", or where the tokenizer has a template, whatever that takes."""

    role: str
    text: str


def describe_format(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """What /v1/models says of it; of a tokenizer's template, its Jinja source and the tokens that end an answer."""
    if config.task.name == "dialogue":
        return {"template": "dialogue", "stop": []}
    if has_template(config, tokenizer):
        return {"template": "tokenizer", "source": tokenizer.chat_template,
                "stop": [tokenizer.decode([number]) for number in tokenizer.special.stop]}
    return {"template": "{system}\n\nUser: {user}\nAssistant: {assistant}\nUser: {user}\nAssistant:",
            "stop": list(STOPS)}


def read_messages(served: Served, value: Any, name: str) -> list[Message]:
    """The messages of a chat; raises ApiError for other roles and for content that is no text."""
    any_role = has_template(served.config, served.run.tokenizer)
    if not isinstance(value, list) or not value:
        raise wrong(name, "must be a list of messages, one at least", code="invalid_type")
    return [_message(fields.mapping(message, f"{name}[{number}]"), f"{name}[{number}]", any_role)
            for number, message in enumerate(value)]


def prompt_of(served: Served, messages: Sequence[Message], max_new_tokens: int) -> np.ndarray:
    """int32 [T]; raises ApiError for a message that the format has no place for, UserError as `encode_prompt`
    and for what a template refuses."""
    tokenizer = served.run.tokenizer
    if served.config.task.name == "dialogue":
        return _dialogue(served, messages, max_new_tokens)
    if has_template(served.config, tokenizer):
        room = reply_room(served.config.model.context_length, max_new_tokens)
        return chat_prompt(tokenizer, [{"role": message.role, "content": message.text} for message in messages], room)
    return encode_prompt(tokenizer, transcript(messages))


def stops_of(served: Served) -> tuple[str, ...]:
    """The stop strings that go with the format."""
    own = served.config.task.name == "dialogue" or has_template(served.config, served.run.tokenizer)
    return () if own else STOPS


def transcript(messages: Sequence[Message]) -> str:
    """Turns under their names, one after the other, up to where the assistant is to speak."""
    lines = [f"{message.text}\n" if message.role == "system" else f"{_NAMES[message.role]}: {message.text}"
             for message in messages]
    return "\n".join([*lines, "Assistant:"])


def _dialogue(served: Served, messages: Sequence[Message], max_new_tokens: int) -> np.ndarray:
    from purelm.tasks.dialogue import prompt_ids

    for number, message in enumerate(messages):
        if message.role == "system":
            raise wrong(f"messages[{number}].role", "system: this run's dialogues have users and assistants alone; "
                        "leave it out", code="unsupported_value")
    turns = [{"speaker": message.role, "text": message.text} for message in messages]
    return prompt_ids(served.run.tokenizer, turns, reply_room(served.config.model.context_length, max_new_tokens))


def _message(message: dict[str, Any], name: str, any_role: bool) -> Message:
    found = fields.read_fields(
        message, {"role": fields.string, "content": _content}, accepted={"name": None, "refusal": ()}, where=f"{name}.",
        refused={field: "tools are not served; leave it out" for field in ("tool_calls", "function_call",
                                                                          "tool_call_id")})
    for field in ("role", "content"):
        if field not in found:
            raise wrong(f"{name}.{field}", "is missing", code="missing_field")
    role = "system" if found["role"] in _SYSTEM else found["role"]
    if not any_role and role not in ("system", *_NAMES):
        raise wrong(f"{name}.role", f"is {fields.shown(role)}; one of system, user, assistant", code="invalid_value")
    return Message(role, found["content"])


def _content(value: Any, name: str) -> str:
    """A string, or parts of it."""
    if not isinstance(value, list):
        return fields.string(value, name)
    texts = []
    for number, part in enumerate(value):
        where = f"{name}[{number}]"
        found = fields.read_fields(fields.mapping(part, where), {"type": fields.string, "text": fields.string},
                                   accepted={}, where=f"{where}.", refused={
                                       kind: "only text is served" for kind in ("image_url", "input_audio", "file")})
        if found.get("type") != "text" or "text" not in found:
            raise wrong(where, 'must be {"type": "text", "text": ...}; only text is served', code="unsupported_value")
        texts.append(found["text"])
    return "".join(texts)
