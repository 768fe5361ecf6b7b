"""What each token of a tokenizer.json adds to a text, from the rules of its decoder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from purelm.data.tokenizers.trained import byte_characters
from purelm.errors import UserError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# The spaces that the library's WordPiece decoder takes away, token by token.
_CLEANED_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
               (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))
Step = Callable[[str | bytes], str | bytes]


def token_bytes_of(decoder: Mapping[str, Any] | None, tokens: Sequence[str | None]) -> list[bytes]:
    """The bytes that each token adds in the middle of a text; b"" for ids without a token.

    decoder: the "decoder" of a tokenizer.json. Raises UserError for one that is none of the library's for text.
    """
    steps = [] if decoder is None else _steps(decoder)
    if decoder is None:
        steps = [_on_text(lambda token: " " + token)]
    return [b"" if token is None else _through(steps, token) for token in tokens]


def _through(steps: Sequence[Step], token: str | bytes) -> bytes:
    for step in steps:
        token = step(token)
    return token.encode("utf-8") if isinstance(token, str) else token


def _steps(decoder: Mapping[str, Any]) -> list[Step]:
    """The rules that change a token; what is done at the ends of a whole text is left out."""
    found, fused = [], False
    for one in decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]:
        kind = one["type"]
        if kind == "Sequence":
            found += _steps(one)
        elif kind == "Fuse":
            fused = True
        elif kind == "Strip":
            found += [] if fused else [_on_text(_stripping(one["content"], one["start"], one["stop"]))]
        elif kind in _RULES:
            found.append(_RULES[kind](one))
        else:
            raise UserError(f"tokenizer.json: a decoder of type {kind} is none for text; "
                            f"one of {', '.join([*_RULES, 'Fuse', 'Sequence', 'Strip'])}")
    return found


def _on_text(change: Callable[[str], str]) -> Step:
    """Leaves alone what has become bytes."""
    return lambda token: token if isinstance(token, bytes) else change(token)


def _stripping(content: str, start: int, stop: int) -> Callable[[str], str]:
    def strip(token: str) -> str:
        for _ in range(start):
            token = token.removeprefix(content)
        for _ in range(stop):
            token = token.removesuffix(content)
        return token

    return strip


def _byte_level(rule: Mapping[str, Any]) -> Step:
    """Each character stands for a byte; a token with any other character, an added one, for itself."""
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}

    def as_bytes(token: str | bytes) -> str | bytes:
        spelled = isinstance(token, str) and all(character in byte_of for character in token)
        return bytes(byte_of[character] for character in token) if spelled else token

    return as_bytes


def _byte_fallback(rule: Mapping[str, Any]) -> Step:
    def as_byte(token: str | bytes) -> str | bytes:
        match = _BYTE_TOKEN.fullmatch(token) if isinstance(token, str) else None
        return token if match is None else bytes([int(match[1], 16)])

    return as_byte


def _replace(rule: Mapping[str, Any]) -> Step:
    pattern, content = rule["pattern"], rule["content"]
    if "String" in pattern:
        return _on_text(lambda token: token.replace(pattern["String"], content))
    expression = re.compile(pattern["Regex"])
    return _on_text(lambda token: expression.sub(lambda match: content, token))


def _word_piece(rule: Mapping[str, Any]) -> Step:
    def change(token: str) -> str:
        prefix = rule["prefix"]
        token = token[len(prefix):] if token.startswith(prefix) else " " + token
        for before, after in _CLEANED_UP if rule["cleanup"] else ():
            token = token.replace(before, after)
        return token

    return _on_text(change)


_RULES: dict[str, Callable[[Mapping[str, Any]], Step]] = {
    "ByteLevel": _byte_level, "ByteFallback": _byte_fallback, "Replace": _replace, "WordPiece": _word_piece,
    "Metaspace": lambda rule: _on_text(lambda token: token.replace(rule["replacement"], " ")),
    "BPEDecoder": lambda rule: _on_text(lambda token: token.replace(rule["suffix"], " ")),
}
