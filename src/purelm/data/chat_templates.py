"""Chat templates of published checkpoints: Jinja programs that make one prompt of a chat's messages.

A template comes from whoever published the checkpoint. So it runs in jinja2's sandbox, where it reaches no attribute
that begins with an underscore and changes nothing that it was given; and, as the sandbox bounds neither time nor
memory, in a process of its own (template_worker.py) that is kept for the next prompt and ended when a template takes
too long.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import pathlib
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.data.tokenizers.base import Tokenizer, check_encodable
from purelm.errors import UserError

_WORKER = pathlib.Path(__file__).with_name("template_worker.py")
_MAX_BYTES, _MAX_CHARACTERS, _MAX_SECONDS = 1 << 29, 4_000_000, 5.0
_MAX_SHOWN = 300


def render_chat(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, *,
                variables: Mapping[str, Any] | None = None) -> str:
    """The prompt that the tokenizer's template makes of `messages`: transformers' apply_chat_template(tokenize=False).

    Args:
      tokenizer: its chat_template and named_tokens are used; special tokens come back as text, for
        `Tokenizer.encode_with_specials`.
      messages: each with "role" and "content", and what else the template knows; all of it JSON.
      add_generation_prompt: whether the prompt ends where the assistant is to speak.
      variables: more that the template may read, such as "tools".

    Raises UserError without a template or messages, for a template with an error in it, for messages that it refuses
    (raise_exception: roles out of turn, say), and for one that tries to leave its sandbox or takes more than 5 seconds,
    512 MiB or 4 million characters.
    """
    if tokenizer.chat_template is None:
        raise UserError("the tokenizer has no chat_template; give a prompt instead of messages")
    if not messages:
        raise UserError("the chat has no messages; give at least one")
    if importlib.util.find_spec("jinja2") is None:
        raise UserError("a chat template needs jinja2: pip install -e '.[interop]'")
    messages = [{name: value for name, value in message.items() if value is not None} for message in messages]
    content = {"tools": None, "documents": None, **tokenizer.named_tokens, **(variables or {}), "messages": messages,
               "add_generation_prompt": add_generation_prompt}
    try:
        line = json.dumps({"template": tokenizer.chat_template, "variables": content})
    except (TypeError, ValueError) as error:
        raise UserError(f"messages of a chat must be JSON: {error}") from error
    answer = _worker(os.getpid()).ask(line)
    if "error" in answer:
        raise UserError(f"the chat template {' '.join(answer['error'].split())[:_MAX_SHOWN]}")
    check_encodable(answer["text"])
    return answer["text"]


class _Worker:
    """The process, started with the first question and again where it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, line: str) -> dict[str, str]:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", str(_WORKER), str(_MAX_BYTES), str(_MAX_CHARACTERS)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
            try:
                self._process.stdin.write(line.encode("ascii") + b"\n")
                return json.loads(self._read_line(self._process, time.monotonic() + _MAX_SECONDS))
            except TimeoutError:
                self.end()
                return {"error": f"was stopped: it takes more than {_MAX_SECONDS:.0f} seconds"}
            except (OSError, ValueError):
                self.end()
                return {"error": "was stopped: it takes too much memory"}

    @staticmethod
    def _read_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """TimeoutError after the deadline; what there is where the process ended."""
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            part = process.stdout.read(1 << 16)
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def end(self) -> None:
        """Ends the process, where there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


@functools.cache
def _worker(process_id: int) -> _Worker:
    """A forked process must not share the pipes of the one before it."""
    worker = _Worker()
    atexit.register(worker.end)
    return worker
