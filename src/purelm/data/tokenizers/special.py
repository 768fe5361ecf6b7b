"""The ids that stand around texts, by what they are for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purelm.data.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """How a tokenizer's models have their texts framed; () and None where there is nothing of the kind.

    Attributes:
        start: before a text: prompts and documents of a language model, rows of an encoder.
        between: between two texts of a row.
        end: after the last text of an encoder's row. Where it is () a paragraph that answers are read from still ends
            with `between`.
        source_start: before a source that is to be answered with a target.
        source_end: after it.
        target_start: what a decoder reads before the target that it writes. All but the first are ids that a target
            always begins with, so that they are given when it is written, and learned.
        stop: ids that end what is written; the first closes a target.
        mask: stands for a hidden token; None: tasks have an id of their own, after the tokenizer's.
        pair_type: token type of a second text; 0 where a model has one type for all.
        pair_type_from_between: whether `between` has the type of the second text, not of the first.
        sentinels: each stands for a span that was cut out, in their order; (): as for `mask`.
    """

    start: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    source_start: tuple[int, ...] = ()
    source_end: tuple[int, ...] = ()
    target_start: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    mask: int | None = None
    pair_type: int = 1
    pair_type_from_between: bool = False
    sentinels: tuple[int, ...] = ()

    @property
    def paragraph_end(self) -> tuple[int, ...]:
        """After the paragraph of a question."""
        return self.end or self.between

    @property
    def every_id(self) -> frozenset[int]:
        """All of them, whatever they are for."""
        lists = (self.start, self.between, self.end, self.source_start, self.source_end, self.target_start, self.stop,
                 self.sentinels)
        return frozenset(number for ids in lists for number in ids) | ({self.mask} - {None})


def around(end_of_text_id: int | None) -> SpecialIds:
    """Those of a tokenizer with one such token, or none: it stands wherever one text ends and another begins."""
    mark = () if end_of_text_id is None else (end_of_text_id,)
    return SpecialIds(start=mark, between=mark, source_end=mark, target_start=mark, stop=mark,
                      pair_type_from_between=True)


def text_start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What an empty text of a language model is begun with: `start`, or where there is none, the end of the text
    before it."""
    if tokenizer.special.start or tokenizer.end_of_text_id is None:
        return tokenizer.special.start
    return (tokenizer.end_of_text_id,)


def document_marks(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands (before, after) each document in a stream of them.

    That is `start` and `end`; and the end of text, where that is neither of them: after a document that has a start
    of its own, else before it.
    """
    before, after, mark = tokenizer.special.start, tokenizer.special.end, tokenizer.end_of_text_id
    if mark is None or mark in (*before, *after):
        return before, after
    return (before, (*after, mark)) if before else ((mark,), after)
