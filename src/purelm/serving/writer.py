"""What one answer says, piece by piece: text, the tokens that it is made of, and how it ends."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import NamedTuple

from purelm.inference.engine.request import Event, Finished, Token
from purelm.inference.stops import StopIds, stop_tuple
from purelm.serving.text_stream import TextStream


class Shown(NamedTuple):
    """A token of the answer, and the number of characters of the answer before it."""

    token: Token
    offset: int


class Piece(NamedTuple):
    """The next part of an answer.

    text: may be empty. shown: the tokens whose text is decided, without the end of text and what a stop string cut
    off. reason: of the engine, in the last piece alone.
    """

    text: str
    shown: tuple[Shown, ...]
    reason: str | None


class Writer:
    """Turns one request's events into pieces. All pieces together do not depend on how events divided the tokens.

    token_bytes: what each id stands for. separator: put between tokens. stop_id: shows as nothing; of several, in
    a tuple, each does. stops: see TextStream. `ids` are all tokens that were drawn, `cached_tokens` the engine's, at
    the end.
    """

    def __init__(self, token_bytes: Sequence[bytes], *, separator: bytes, stop_id: StopIds,
                 stops: Sequence[str] = (), strip: bool = False):
        self._token_bytes, self._separator, self._stop_ids = token_bytes, separator, stop_tuple(stop_id)
        self._stream = TextStream(stops, strip=strip)
        self._counter = TextStream()  # Characters before a token, white space at the ends included.
        self._characters, self._written, self._first = 0, 0, True
        # (token, its first byte, the byte after its last, characters before it)
        self._waiting: collections.deque[tuple[Token, int, int, int]] = collections.deque()
        self.ids: list[int] = []
        self.cached_tokens = 0

    def take(self, event: Event) -> Piece:
        """The piece that an event adds."""
        if isinstance(event, Finished):
            self.cached_tokens = event.cached_tokens
            return Piece(self._stream.finish(), self._released(last=True), event.reason)
        text = ""
        for token in event.tokens:
            self.ids.append(token.id)
            if token.id in self._stop_ids:
                continue
            content = self._token_bytes[token.id]
            if self._first:
                self._first = False
            else:
                content = self._separator + content
            self._waiting.append((token, self._written, self._written + len(content), self._characters))
            self._written += len(content)
            self._characters += len(self._counter.push(content))
            text += self._stream.push(content)
        return Piece(text, self._released(last=False), None)

    def _released(self, *, last: bool) -> tuple[Shown, ...]:
        released, cut, found = self._stream.released, self._stream.cut, []
        while self._waiting:
            token, first, end, offset = self._waiting[0]
            if cut is not None and first >= cut or not last and end > released and cut is None:
                break
            self._waiting.popleft()
            found.append(Shown(token, offset))
        return tuple(found)
