"""The calls that a window is read in."""

from __future__ import annotations

import pytest

from purelm.inference.decode_loop import window_start
from purelm.inference.engine.windows import Piece, next_piece, sizes, slides, tokens_held


@pytest.mark.parametrize("chunk", [8, 16, 48, 64, 256])
def test_pieces_cover_a_window_in_sizes_that_are_compiled(chunk):
    for length in range(1, 3 * chunk + 2):
        done, pieces = 0, []
        while done < length:
            piece = next_piece(done, length, chunk)
            assert 1 <= piece.count <= piece.size and piece.size in sizes(chunk)
            done += piece.count
            pieces.append(piece)
        assert done == length
        whole = (length - 1) // chunk
        assert pieces[:whole] == [Piece(chunk, chunk)] * whole
        # Only the last is padded, and of a long rest at most a quarter.
        assert all(piece.count == piece.size for piece in pieces[:-1])
        assert pieces[-1].count >= 0.75 * pieces[-1].size or pieces[-1].size in (16, chunk) and chunk < 64 or \
            pieces[-1].size == 16


@pytest.mark.parametrize("window", [7, 8])
def test_memory_holds_what_the_longest_window_needs(window):
    """By counting over the positions drawn: the token at position p is drawn after p - window_start(p) tokens."""
    for prompt in range(1, 20):
        for new in range(1, 20):
            starts = [window_start(position, window) for position in range(prompt, prompt + new)]
            most = max(position - start for position, start in zip(range(prompt, prompt + new), starts))
            assert slides(prompt, new, window) == (len(set(starts)) > 1)
            held = tokens_held(prompt, new, window)
            assert held == most if not slides(prompt, new, window) else held >= most
