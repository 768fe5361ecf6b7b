"""Writing with a model line by line: what is typed is gone on from, token by token, until ctrl-C.

With a run whose tokenizer has a chat template, a line is a turn of a chat and what is written answers it.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from purelm.errors import UserError, did_you_mean
from purelm.evaluation.dialogue import reply_room
from purelm.inference.chat_prompts import chat_prompt, has_template
from purelm.inference.engine.engine import Engine, Ticket
from purelm.inference.engine.request import Event, Finished, Request
from purelm.inference.prompts import encode_prompt
from purelm.inference.sampling import Sampler
from purelm.serving.automata import Automata
from purelm.serving.text_stream import TextStream
from purelm.training.load import LoadedRun

HELP = r"""A line is how a text begins; \n in it is a new line. Ctrl-C stops the text, ctrl-D ends.
  (empty line)      the last text goes on
  /again            the same beginning, another text
  /set              the settings; /set temperature 0.7 changes one, /set top_k none leaves it out
  /help             this"""
CHAT_HELP = r"""A line is what you say; \n in it is a new line. Ctrl-C stops the answer, ctrl-D ends.
  /again            another answer
  /reset            forgets what was said
  /set              the settings; /set temperature 0.7 changes one, /set top_k none leaves it out
  /help             this"""

_CHUNK, _PAGE_SIZE = 64, 16
_NUMBERS = {"temperature": float, "top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float,
            "frequency_penalty": float, "presence_penalty": float}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a text is written with; `sampler`, `seed` and `stop` as of generate.py."""

    sampler: Sampler
    max_new_tokens: int
    seed: int
    stop: tuple[str, ...] = ()


def help_of(run: LoadedRun) -> str:
    """What a line means."""
    return CHAT_HELP if has_template(run.config, run.tokenizer) else HELP


class Session:
    """A run that writes in a terminal. `write` is called with pieces of text as they come."""

    def __init__(self, run: LoadedRun, settings: Settings, write: Callable[[str], None]):
        self._run, self._settings, self._write = run, settings, write
        self._automata = Automata(run.tokenizer, run.tokenizer.vocabulary_size)
        self._engine = _engine_of(run, settings.max_new_tokens)
        self._beginning, self._text, self._index = "", "", 0
        self._messages: list[dict[str, str]] = []
        self._ticket: Ticket | None = None

    def answer(self, line: str) -> None:
        """Does what one line says. Raises UserError for a line that cannot be done; the session goes on."""
        if line.startswith("/"):
            self._command(*line.split(maxsplit=2))
        elif line:
            self._begin(line.replace("\\n", "\n"))
        elif self._chats:
            raise UserError("there is nothing to answer; type what you say")
        elif self._text:
            self._go_on(self._text)
        else:
            raise UserError("there is no text to go on from yet; type how one begins")

    def stop(self) -> bool:
        """Ends the text that is being written; False where none is."""
        if self._ticket is None:
            return False
        self._engine.cancel(self._ticket)
        return True

    @property
    def _chats(self) -> bool:
        return has_template(self._run.config, self._run.tokenizer)

    def _command(self, name: str, *rest: str) -> None:
        if name == "/again" and self._messages:
            self._index += 1
            self._reply(self._messages[:-1])
        elif name == "/reset" and self._chats:
            self._messages = []
            self._write("(forgotten)\n")
        elif name == "/again" and self._beginning:
            self._index += 1
            self._go_on(self._beginning, shows=self._beginning)
        elif name == "/again":
            raise UserError("there is no text yet; type how one begins")
        elif name == "/set" and len(rest) == 2:
            self._settings = changed(self._settings, *rest)
        elif name == "/set":
            self._write("\n".join(f"  {name} {value}" for name, value in shown(self._settings).items()) + "\n")
        elif name == "/help":
            self._write(help_of(self._run) + "\n")
        else:
            names = ("/again", "/set", "/help", *(["/reset"] if self._chats else []))
            raise UserError(f"{name}: no such command{did_you_mean(name, names)}; /help lists them")

    def _begin(self, text: str) -> None:
        if self._chats:
            self._index = 0
            self._reply([*self._messages, {"role": "user", "content": text}])
            return
        encode_prompt(self._run.tokenizer, text)  # What cannot be encoded is told before the old text is forgotten.
        self._beginning, self._index = text, 0
        self._go_on(text, shows=text)

    def _go_on(self, text: str, shows: str = "") -> None:
        """Writes `shows` once the engine has taken the request, and what comes after the text."""
        self._text = text
        self._stream(encode_prompt(self._run.tokenizer, text), shows)

    def _reply(self, messages: list[dict[str, str]]) -> None:
        """Answers messages, of which the last is the user's, and remembers the answer."""
        model, tokenizer = self._run.config.model, self._run.tokenizer
        prompt_T = chat_prompt(tokenizer, messages, reply_room(model.context_length, self._settings.max_new_tokens))
        self._text = ""
        self._stream(prompt_T, "")
        self._messages = [*messages, {"role": "assistant", "content": self._text.strip()}]

    def _stream(self, prompt_T: np.ndarray, shows: str) -> None:
        """Writes `shows` once the engine has taken the request, and what comes after the prompt."""
        settings, tokenizer, reason = self._settings, self._run.tokenizer, None
        stream, events = TextStream(settings.stop), []
        self._ticket = self._engine.submit(Request(
            prompt_ids=tuple(prompt_T.tolist()), max_new_tokens=settings.max_new_tokens,
            sampler=settings.sampler, seed=settings.seed, index=self._index, stop_id=tokenizer.special.stop,
            stop=self._automata.get("stop", settings.stop) if settings.stop else None), events.append)
        self._write(shows)
        while reason is None:
            self._engine.step()
            while events:
                event: Event = events.pop(0)
                if isinstance(event, Finished):
                    reason = event.reason
                    break
                for token in event.tokens:
                    if token.id not in tokenizer.special.stop:
                        self._show(stream.push(tokenizer.separator + self._automata.token_bytes[token.id]))
        self._ticket = None
        self._show(stream.finish())
        self._write("\n")
        if reason == "error":
            raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                            "take an earlier checkpoint")

    def _show(self, piece: str) -> None:
        self._text += piece
        if piece:
            self._write(piece)


def _engine_of(run: LoadedRun, max_new_tokens: int) -> Engine:
    model = run.config.model
    pages = -(-model.context_length // _PAGE_SIZE) + _CHUNK // _PAGE_SIZE
    engine = Engine(model, run.params, vocabulary_size=run.tokenizer.vocabulary_size, slots=1, page_size=_PAGE_SIZE,
                    num_pages=2 * pages + 1, chunk=_CHUNK, max_waiting=1,
                    max_tokens=max(4 * model.context_length, model.context_length + max_new_tokens))
    engine.warm_up()
    return engine


def shown(settings: Settings) -> dict[str, Any]:
    """The settings by the names that /set takes."""
    return {**{name: getattr(settings.sampler, name) for name in _NUMBERS}, "max_new_tokens": settings.max_new_tokens,
            "seed": settings.seed, "stop": " ".join(map(repr, settings.stop)) or None}


def changed(settings: Settings, name: str, value: str) -> Settings:
    """The settings with one changed. Raises UserError for a name or a value that cannot be."""
    if name == "stop":
        stop = () if value == "none" else (value.replace("\\n", "\n"),)
        return dataclasses.replace(settings, stop=stop)
    kind = _NUMBERS.get(name, int)
    if name not in shown(settings):
        raise UserError(f"/set {name}: no such setting{did_you_mean(name, list(shown(settings)))}; /set lists them")
    try:
        number = None if value == "none" else kind(value)
    except ValueError:
        raise UserError(f"/set {name} {value}: wants {'a whole number' if kind is int else 'a number'}") from None
    if name in _NUMBERS:
        default = Sampler.__dataclass_fields__[name].default
        number = default if number is None else number
        return dataclasses.replace(settings, sampler=dataclasses.replace(settings.sampler, **{name: number}))
    if number is None or number < (1 if name == "max_new_tokens" else 0):
        raise UserError(f"/set {name} {value}: wants a whole number from {1 if name == 'max_new_tokens' else 0}")
    return dataclasses.replace(settings, **{name: number})


def talk(run: LoadedRun, settings: Settings, lines: Iterable[str], write: Callable[[str], None]) -> None:
    """Answers each line; ctrl-C ends what is being written, or where nothing is, the talk."""
    session = Session(run, settings, write)

    def interrupted(*_: object) -> None:
        if not session.stop():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        for line in lines:
            try:
                session.answer(line)
            except UserError as error:
                write(f"error: {error}\n")
    except KeyboardInterrupt:
        write("\n")
    finally:
        signal.signal(signal.SIGINT, before)
