"""Runs chat templates in a process of its own, which has little memory and is ended when it takes long.

Started by `purelm.data.chat_templates` as a script. A line of JSON comes in, {"template", "variables"}, and one goes
out, {"text"} or {"error"}. It imports nothing of purelm, so that it starts quickly.
"""

from __future__ import annotations

import datetime
import functools
import json
import resource
import sys
from typing import Any

import jinja2
from jinja2 import ext, nodes, sandbox

_MAX_COMPILED = 16


class Generation(ext.Extension):
    """{% generation %} marks the assistant's words for training; here they are written as they are."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def raise_exception(message: Any) -> None:
    """A template's way to refuse messages."""
    raise jinja2.exceptions.TemplateError(str(message))


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """Without jinja2's own escapes of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(form: str) -> str:
    """Today's date, as some system messages have it."""
    return datetime.datetime.now().strftime(form)


@functools.lru_cache(maxsize=_MAX_COMPILED)
def compiled(source: str) -> jinja2.Template:
    """The template in a sandbox that is set up as transformers has it."""
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return environment.from_string(source)


def rendered(template: str, variables: dict[str, Any], max_characters: int) -> str:
    """The template's text; ValueError for more than `max_characters`."""
    pieces, size = [], 0
    for piece in compiled(template).generate(**variables):
        size += len(piece)
        if size > max_characters:
            raise ValueError(f"it writes more than {max_characters} characters")
        pieces.append(piece)
    return "".join(pieces)


def answer(line: str, max_characters: int) -> dict[str, str]:
    """What is sent back."""
    try:
        return {"text": rendered(**json.loads(line), max_characters=max_characters)}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": f"is no valid Jinja: {error} (line {error.lineno})"}
    except jinja2.exceptions.SecurityError as error:
        return {"error": f"was stopped by its sandbox: {error}"}
    except jinja2.exceptions.UndefinedError as error:
        return {"error": f"fails on these messages: {error}"}
    except jinja2.exceptions.TemplateError as error:
        return {"error": f"refuses these messages: {error}"}
    except MemoryError:
        return {"error": "was stopped: it takes too much memory"}
    except Exception as error:  # Whatever a template's code may raise, of any kind, is the template's error.
        return {"error": f"fails on these messages: {type(error).__name__}: {error}"}


def main(max_bytes: int, max_characters: int) -> None:
    """Answers line by line, until the end of the input."""
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line, max_characters)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
