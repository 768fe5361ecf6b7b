"""From a stream of tokens to a stream of text: whole characters only, cut exactly at stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from purelm.inference.automata import cut_at_stop, held_back


class TextStream:
    """Bytes go in as tokens come, text comes out as soon as nothing later can change it.

    What was given out, put together, is the text of all the bytes up to the first stop string, with U+FFFD where they
    are no UTF-8, and with `strip` without white space at its ends. It does not depend on how the bytes were divided.

    stops: none of them is ever given out, nor a part of one that is then found. `released` counts the bytes whose
    text is decided; `cut` is the number of bytes before the stop string, once one was found.
    """

    def __init__(self, stops: Sequence[str] = (), *, strip: bool = False):
        self._stops = tuple(stop.encode("utf-8") for stop in stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._kept = b""
        self._strip, self._begun, self._space = strip, not strip, ""
        self.released, self.cut = 0, None

    def push(self, new: bytes) -> str:
        """The text that is certain with these bytes; nothing more after a stop string was found."""
        if self.cut is not None:
            return ""
        self._kept += new
        before, stop = cut_at_stop(self._kept, self._stops)
        if stop is not None:
            self.cut = self.released + len(before)
            text = self._give(len(before), final=True)
            self._space = ""
            return text
        return self._give(len(self._kept) - held_back(self._kept, self._stops), final=False)

    def finish(self) -> str:
        """What was held back; a broken last character is U+FFFD."""
        if self.cut is not None:
            return ""
        text = self._give(len(self._kept), final=True)
        self._space = ""
        return text

    def _give(self, count: int, *, final: bool) -> str:
        ready, self._kept = self._kept[:count], self._kept[count:]
        self.released += count
        return self._stripped(self._decoder.decode(ready, final))

    def _stripped(self, text: str) -> str:
        """Without white space before the text; that at its end waits for what follows."""
        if not self._strip:
            return text
        text = self._space + text
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        kept = text.rstrip()
        self._space = text[len(kept):]
        return kept
