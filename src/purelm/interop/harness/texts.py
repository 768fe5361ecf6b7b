"""From the harness's texts to ids, as its `hf` backend has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from purelm.data.tokenizers.imported import ImportedTokenizer, special_splitter
from purelm.data.tokenizers.special import text_start
from purelm.errors import UserError
from purelm.interop.harness.scoring import Window

Ids = tuple[int, ...]


class Texts:
    """The ids of texts.

    prefix: the id that a text without a context is read after: that of the beginning of a text, else of its end; None
    where the tokenizer has neither.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._imported = isinstance(tokenizer, ImportedTokenizer)
        special = tokenizer.settings.special_tokens if self._imported else {}
        self._splitter = special_splitter(special)
        named = [tokenizer.named_tokens.get(name) for name in ("bos_token", "eos_token")]
        ids = [special[text] for text in named if text in special]
        self.prefix: int | None = next(iter((*ids, *text_start(tokenizer), *tokenizer.special.stop)), None)
        self._prefix_text = next((text for text in named if text in special), None)
        self.end_text: str | None = named[1]

    def encode(self, texts: Iterable[str], *, start: bool = True) -> dict[str, Ids]:
        """The ids of each text; `start`: after what the tokenizer puts before one, unless the text begins so.

        Raises UserError for a character that the tokenizer never saw.
        """
        texts = list(dict.fromkeys(texts))
        plain = [text for text in texts if not self._splitter.search(text)]
        found = dict(zip(plain, self._tokenizer.encode_batch(plain)))
        found |= {text: self._tokenizer.encode_with_specials(text) for text in texts if text not in found}
        before = self._tokenizer.special.start if start else ()
        return {text: (*(() if self._begins(text) else before), *found[text].tolist()) for text in texts}

    def _begins(self, text: str) -> bool:
        return self._prefix_text is not None and text.startswith(self._prefix_text)

    def windows(self, pairs: Sequence[tuple[str, str]], context_length: int) -> list[list[Window]]:
        """For each (context, continuation) what is to be scored: one window, and where the continuation is longer than
        the model's context, several, one after the other.

        Spaces at the end of a context are taken for the continuation's beginning, and the two are divided where the
        context's own ids end.

        Raises UserError for an empty continuation, or an empty context where there is no `prefix`.
        """
        moved = [_without_spaces(*pair) for pair in pairs]
        alone = self.encode((continuation for context, continuation in moved if not context), start=False)
        whole = self.encode(text for context, continuation in moved if context
                            for text in (context, context + continuation))
        found = []
        for context, continuation in moved:
            if context:
                window = Window(whole[context], whole[context + continuation][len(whole[context]):])
            else:
                window = self._after_prefix(alone[continuation])
            if not window.context or not window.continuation:
                raise UserError(f"the continuation {continuation[:40]!r} of the context {context[-40:]!r} has no token "
                                "of its own, so nothing can be scored; change the task")
            found.append(_rolled(window, context_length))
        return found

    def _after_prefix(self, ids: Ids) -> Window:
        self.need_prefix()
        if ids[:1] == (self.prefix,):
            return Window(ids[:1], ids[1:])
        return Window((self.prefix,), ids)

    def need_prefix(self) -> None:
        """Raises UserError where there is none."""
        if self.prefix is None:
            raise UserError("the task has texts without a context, and the run's tokenizer has no token that a text "
                            "begins or ends with; train with config.data.end_of_text=True")

    def rolling(self, texts: Sequence[str], context_length: int) -> list[list[Window]]:
        """For each text the windows that predict each of its tokens once."""
        self.need_prefix()
        ids = self.encode(texts)
        return [rolling_windows(self.prefix, ids[text], context_length) for text in texts]


def rolling_windows(prefix: int, ids: Ids, context_length: int) -> list[Window]:
    """`ids` in windows of context_length: the first after `prefix`, the last with as much context as there is room."""
    windows = []
    for start in range(0, len(ids), context_length):
        part = ids[start:start + context_length]
        context = ids[max(start + len(part) - context_length - 1, 0):start] if start else (prefix,)
        windows.append(Window(context, part))
    return windows


def _without_spaces(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped):] + continuation


def _rolled(window: Window, context_length: int) -> list[Window]:
    if len(window.continuation) <= context_length:
        return [window]
    return rolling_windows(window.context[-1], window.continuation, context_length)
