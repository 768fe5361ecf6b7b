"""Writing line by line: what is typed goes on as generate would go on, settings change it, ctrl-C ends a text alone."""

from __future__ import annotations

import signal

import pytest

from purelm.errors import UserError
from purelm.inference.prompts import sample_text
from purelm.inference.sampling import Sampler
from purelm.serving import terminal
from purelm.serving.terminal import Session, Settings, changed, talk
from purelm.training.load import load_run

SETTINGS = Settings(Sampler(temperature=0.8), max_new_tokens=12, seed=3)


@pytest.fixture(scope="module")
def run(language_run):
    """Read in pieces of one size, so that there are two programs to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "_CHUNK", 16)
        yield load_run(language_run)


@pytest.fixture(scope="module")
def session(run):
    """One session, since its engine takes seconds to compile."""
    return Session(run, SETTINGS, lambda piece: None)


def said(session, *lines):
    pieces = []
    session._write = pieces.append
    for line in lines:
        session.answer(line)
    return "".join(pieces)


def test_a_line_goes_on_as_generate_does_and_again_is_the_next_sample(run, session):
    # Reddens with: another seed or index, tokens shown twice or lost between pieces.
    texts = sample_text(run.config.model, run.params, run.tokenizer, "User:", num_samples=2, max_new_tokens=12,
                        sampler=SETTINGS.sampler, seed=3)
    assert said(session, "User:") == texts[0] + "\n"
    assert said(session, "/again") == texts[1] + "\n"


def test_an_empty_line_goes_on_with_the_text(session):
    first = said(session, "User:\\nA").removesuffix("\n")
    assert first.startswith("User:\nA")
    assert session._text == first
    said(session, "")
    assert session._text.startswith(first) and len(session._text) > len(first)


def test_what_cannot_be_written_is_not_begun(session, monkeypatch):
    """Reddens when the beginning of a text stands before the error."""
    monkeypatch.setattr(session, "_settings", changed(SETTINGS, "max_new_tokens", "100000"))
    pieces = []
    monkeypatch.setattr(session, "_write", pieces.append)
    with pytest.raises(UserError, match="max_new_tokens=100000"):
        session.answer("User:")
    assert not pieces


def test_settings_are_shown_changed_and_refused(session):
    assert "  temperature 0.8\n" in said(session, "/set")
    assert changed(SETTINGS, "top_k", "5").sampler == Sampler(temperature=0.8, top_k=5)
    assert changed(SETTINGS, "temperature", "none").sampler == Sampler()
    assert changed(SETTINGS, "stop", "\\n").stop == ("\n",)
    for name, value, message in [("temprature", "1", "did you mean 'temperature'"), ("top_k", "x", "a whole number"),
                                 ("max_new_tokens", "0", "from 1"), ("top_p", "2", "top_p is 2")]:
        with pytest.raises(UserError, match=message):
            changed(SETTINGS, name, value)
    with pytest.raises(UserError, match="did you mean '/again'"):
        session.answer("/agan")


def test_ctrl_c_ends_the_text_and_then_the_talk(run, monkeypatch):
    # Reddens with a ctrl-C that is not noticed while writing, or that ends the whole talk then.
    pieces = []

    def write(piece):
        pieces.append(piece)
        if len(pieces) == 2:  # After the line itself and a first piece.
            signal.raise_signal(signal.SIGINT)

    def lines():
        yield "User:"
        pieces.append("asked again")
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the talk went on")

    before = signal.getsignal(signal.SIGINT)
    # As many tokens as the engine of a short session has room for: the same programs.
    long = Settings(Sampler(), max_new_tokens=192, seed=0)
    talk(run, long, lines(), write)
    assert "asked again" in pieces and pieces[-1] == "\n"
    assert len("".join(pieces)) < 150 and signal.getsignal(signal.SIGINT) is before
