"""A chat as a prompt, by the template that a published checkpoint's tokenizer came with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from purelm.config import Config

if TYPE_CHECKING:
    from purelm.data import Tokenizer

Messages = Sequence[Mapping[str, str]]


def has_template(config: Config, tokenizer: Tokenizer) -> bool:
    """Whether chats with the run go by its tokenizer's template: a model of dialogue has its own."""
    return config.task.name == "language_modeling" and tokenizer.chat_template is not None


def chat_prompt(tokenizer: Tokenizer, messages: Messages, room: int) -> np.ndarray:
    """int32 [T]: the messages in the template, up to where the assistant is to speak.

    Where that is more than `room` ids, the earliest messages that are no system message are left out, two at a time,
    so that turns still take turns; the last message stays.

    messages: each with "role" and "content". Raises UserError for what the template refuses.
    """
    from purelm.data.chat_templates import render_chat

    system = [message for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    shown = messages
    while True:
        ids = np.asarray(tokenizer.encode_with_specials(render_chat(tokenizer, shown)), np.int32)
        if len(ids) <= room or len(turns) < 3:
            return ids
        turns = turns[2:]
        shown = [*system, *turns]
