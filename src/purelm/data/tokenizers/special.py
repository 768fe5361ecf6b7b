"""The ids that stand around texts, by what they are for."""

from __future__ import annotations

import dataclasses


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
