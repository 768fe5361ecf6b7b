"""Tokens in answers: their text, and their log-probabilities in the two forms that OpenAI's API has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from purelm.inference.engine.request import Token
from purelm.serving.writer import Shown

# JSON has no infinity; what OpenAI's API says for a token that is impossible.
_IMPOSSIBLE = -9999.0


def text_of(content: bytes) -> str:
    """A token's text; of bytes that are no whole characters, their values, as OpenAI writes them."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def completion_log_probabilities(token_bytes: Sequence[bytes], shown: Sequence[Shown]) -> dict[str, Any]:
    """The "logprobs" of a completion: lists, an entry a token."""
    return {"tokens": [text_of(token_bytes[token.id]) for token, _ in shown],
            "token_logprobs": [_finite(token.log_probability) for token, _ in shown],
            "top_logprobs": [_top(token_bytes, token) for token, _ in shown],
            "text_offset": [offset for _, offset in shown]}


def chat_log_probabilities(token_bytes: Sequence[bytes], shown: Sequence[Shown]) -> dict[str, Any]:
    """The "logprobs" of a chat's message."""
    def entry(token_id: int, value: float | None) -> dict[str, Any]:
        content = token_bytes[token_id]
        return {"token": text_of(content), "logprob": _finite(value), "bytes": list(content)}

    return {"content": [{**entry(token.id, token.log_probability),
                         "top_logprobs": [entry(*alternative) for alternative in token.alternatives]}
                        for token, _ in shown], "refusal": None}


def _top(token_bytes: Sequence[bytes], token: Token) -> dict[str, float]:
    """The likeliest tokens and the drawn one; of two tokens with one text the likelier."""
    found: dict[str, float] = {}
    for token_id, value in (*token.alternatives, (token.id, token.log_probability)):
        found.setdefault(text_of(token_bytes[token_id]), _finite(value))
    return found


def _finite(value: float | None) -> float:
    return _IMPOSSIBLE if value is None else max(value, _IMPOSSIBLE)
