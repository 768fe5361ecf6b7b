"""Which tokens a request reads in which calls: decided by its text alone."""

from __future__ import annotations

from typing import NamedTuple

from purelm.inference.decode_loop import window_start

_SMALLEST = 16


class Piece(NamedTuple):
    """One call of the prefill program: `count` tokens, padded to `size`."""

    count: int
    size: int


def next_piece(done: int, length: int, chunk: int) -> Piece:
    """The next call for a window of `length` tokens, `done` of which are read.

    Whole chunks while more than one is left. The rest goes in powers of two, in as few calls as can be had without
    padding more than a quarter.
    """
    left = length - done
    if left > chunk:
        return Piece(chunk, chunk)
    size = min(power_of_two(left), chunk)
    below = power_of_two(size) // 2
    if size <= _SMALLEST or 4 * left >= 3 * size or left <= below:
        return Piece(left, size)
    return Piece(below, below)


def sizes(chunk: int) -> list[int]:
    """Every size that a piece can have."""
    return sorted({min(_SMALLEST << power, chunk) for power in range(chunk.bit_length())})


def power_of_two(tokens: int) -> int:
    """`tokens` rounded up, at least to the smallest size."""
    return max(_SMALLEST, 1 << max(tokens - 1, 0).bit_length())


def tokens_held(prompt_length: int, max_new_tokens: int, window: int) -> int:
    """The most tokens that a request's memory ever holds; the last one drawn is never read."""
    last = prompt_length + max_new_tokens - 1
    if slides(prompt_length, max_new_tokens, window):
        return window
    return last - window_start(last, window)


def slides(prompt_length: int, max_new_tokens: int, window: int) -> bool:
    """Whether a request's window begins later before its answer ends."""
    return window_start(prompt_length + max_new_tokens - 1, window) != window_start(prompt_length, window)
