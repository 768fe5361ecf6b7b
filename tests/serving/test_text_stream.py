"""Text of a stream is the text of the whole, however it is divided."""

import random

import pytest

from purelm.inference.engine.request import Finished, Token, Tokens
from purelm.serving.text_stream import TextStream
from purelm.serving.writer import Writer

TEXTS = ["数字一二三。🙂👩‍🚀 é à la fin", "plain", "", "  spaces \n around \n\n", "ab" * 20 + "🙂" * 5]


def parts(content: bytes, generator: random.Random) -> list[bytes]:
    cuts = sorted(generator.choices(range(len(content) + 1), k=generator.randrange(8)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)])]


@pytest.mark.parametrize("content", [*(text.encode() for text in TEXTS), b"\xe6\x95", b"a\xffb\xf0\x9f\x99",
                                     bytes(range(256))])
@pytest.mark.parametrize("strip", [False, True])
def test_pieces_are_the_text_of_the_whole_and_hold_no_broken_character(content, strip):
    """Reddens when a piece is decoded by itself, or what was held back is lost."""
    generator = random.Random(0)
    whole = content.decode("utf-8", errors="replace")
    for _ in range(50):
        stream = TextStream(strip=strip)
        pieces = [stream.push(part) for part in parts(content, generator)] + [stream.finish()]
        assert "".join(pieces) == (whole.strip() if strip else whole)
        assert stream.released == len(content)


@pytest.mark.parametrize("stops", [("三。",), ("bab", "aba"), ("🙂🙂🙂",), ("\n \n", "nd"), ("aab", "ab", "b")])
def test_text_ends_before_the_stop_string_that_is_complete_first(stops):
    """Reddens when a stop string is looked for in each piece alone, or its beginning is given out."""
    generator = random.Random(1)
    for text in TEXTS:
        ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
        wanted = text[:sum(min(ends))] if ends else text
        for _ in range(50):
            stream = TextStream(stops)
            given = ""
            for part in parts(text.encode(), generator):
                given += stream.push(part)
                assert wanted.startswith(given)
            assert given + stream.finish() == wanted
            assert (stream.cut is None) == (not ends)


def test_a_beginning_of_a_stop_string_waits_and_other_text_does_not():
    stream = TextStream(["END"])
    assert [stream.push(part) for part in (b"a", b"bE", b"N", b"x", b"EN", b"D more")] == ["a", "b", "", "ENx", "", ""]


def test_a_writer_says_the_same_however_the_engine_groups_tokens():
    """Reddens when log-probabilities come before their text is decided, or the end of text is shown as a token."""
    content = "数🙂, stop here".encode()
    token_bytes, generator = [bytes([value]) for value in range(256)] + [b"<|endoftext|>"], random.Random(2)
    tokens = [Token(value, -0.5) for value in content] + [Token(256, -0.1)]
    found = set()
    for _ in range(20):
        writer = Writer(token_bytes, separator=b"", stop_id=256, stops=["stop"])
        cuts = [0, *sorted(generator.sample(range(1, len(tokens)), 5)), len(tokens)]
        pieces = [writer.take(Tokens(tuple(tokens[start:end]))) for start, end in zip(cuts, cuts[1:])]
        pieces.append(writer.take(Finished("stop", 3)))
        shown = [one for piece in pieces for one in piece.shown]
        found.add(("".join(piece.text for piece in pieces), tuple(one.token.id for one in shown),
                   tuple(one.offset for one in shown), pieces[-1].reason, writer.cached_tokens))
    text = "数🙂, "
    offsets = (0, 0, 0, 1, 1, 1, 1, 2, 3)
    assert found == {(text, tuple(text.encode()), offsets, "stop", 3)}
