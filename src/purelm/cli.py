"""What every entry point shares: absl flags parsed with one-line errors, exit codes, and a short --help."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator

from absl import app, flags, logging

from purelm.config import Config, DecodingConfig, from_flag, validate
from purelm.config.arguments import prepare_arguments
from purelm.config.describe import field_lines
from purelm.errors import UserError, did_you_mean
from purelm.runtime import keep_memory

FLAGS = flags.FLAGS
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# Flags by the names of config.decoding's fields; whether an answer is chosen or written is the run's own.
_DECODING = tuple(sorted(field.name for field in dataclasses.fields(DecodingConfig) if field.name != "candidates"))

_set_to_none: list[tuple[str, str]] = []


def define_config_flag() -> None:
    """Adds --config=file.py[:argument] (or a run's config.json) and --config.SECTION.FIELD=VALUE."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", None, "configs/...py[:argument], or a run's config.json; change a field "
                                    "by --config.SECTION.FIELD=VALUE (--help_config lists them)")
    flags.DEFINE_bool("help_config", False, "list every field of the config and stop")
    flags.DEFINE_bool("print_config", False, "print the config as JSON and stop")


def define_ablation_flag() -> None:
    """Adds --ablation=file.py[:argument], whose base is then the config (see `define_config_flag`)."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", None, "changes a field of the base, and so of every row: "
                                    "--config.SECTION.FIELD=VALUE (--help_config lists them)")
    flags.DEFINE_string("ablation", None, "configs/ablations/...py[:argument]: the table")
    flags.DEFINE_bool("help_config", False, "list every field of the config and stop")


def config_from_flags() -> Config:
    """The validated config that the flags say."""
    if FLAGS.config is None:
        raise UserError("--config is missing; give one, such as --config=configs/lm/shakespeare_char.py")
    for section, name in _set_to_none:
        (FLAGS.config[section] if section else FLAGS.config)[name] = None
    return validate(from_flag(FLAGS.config))


def define_decoding_flags() -> None:
    """Adds flags that change config.decoding for one call; `decoding_changes` reads them."""
    whole = {field.name for field in dataclasses.fields(DecodingConfig) if "int" in str(field.type)}
    for field in dataclasses.fields(DecodingConfig):
        if field.name in _DECODING:
            define = flags.DEFINE_integer if field.name in whole else flags.DEFINE_float
            define(field.name, None, "as config.decoding has it, for this call", lower_bound=field.metadata["minimum"],
                   upper_bound=field.metadata["maximum"])


def define_quantize_flag() -> None:
    """Adds --quantize, the bits that weights are kept in."""
    flags.DEFINE_enum("quantize", None, ["bfloat16", "int8", "int4"],
                      "keep the weights of a Transformer in fewer bits; as they are if not given")


def decoding_changes() -> dict[str, object]:
    """What the flags of `define_decoding_flags` say, those that were given."""
    return {name: FLAGS[name].value for name in _DECODING if FLAGS[name].value is not None}


def typed_lines() -> Iterator[str]:
    """What is typed, line by line, to the end of the input; on a terminal after a prompt, and
    with the keys of its line editor."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() uses it)
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        if not line and not sys.stdin.isatty():
            return
        yield line.rstrip("\n")


@contextlib.contextmanager
def bytes_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of bytes on a terminal, nothing elsewhere; yields what is called with (done, in all)."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                  TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def run(main: Callable[[], None], usage: str, *, keeps_memory: bool = True) -> None:
    """Parses the flags and calls `main`; a UserError becomes one line on stderr and exit code 2.

    `usage` is what --help shows above the flags: what the program does and a command to copy. keeps_memory: freed
    memory stays the process's (`runtime.keep_memory`), for what computes the same again and again.
    """
    def guarded(_: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            main()
        except UserError as error:
            fail(str(error))
        except RuntimeError as error:  # JAX's own, which is not imported here.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            fail(f"out of memory ({str(error).splitlines()[0]}); give a smaller --batch_size or --beam_size, or a "
                 "smaller config.model or config.training.batch_size")
        except KeyboardInterrupt:
            fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            _end_without_reader()
        finally:
            gc.freeze()  # Or the interpreter would search everything for garbage once more before it ends: a second.

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop_at_once)
    if keeps_memory:
        keep_memory()
    gc.set_threshold(100_000, 50, 50)  # Imports make many objects and no garbage; searching them is a tenth of a start.
    app.run(guarded, flags_parser=lambda arguments: _parse(arguments, usage))


def _end_without_reader() -> None:
    """Exits after whoever read the output has closed it, as head does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(EXIT_USER_ERROR)


def _stop_at_once(*_: object) -> None:
    """Ctrl-C outside of the training loop: a KeyboardInterrupt may be lost in a library's callback.

    Nothing is left half-written, as every file appears by a rename.
    """
    os.write(sys.stderr.fileno(), b"error: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def fail(message: str, code: int = EXIT_USER_ERROR) -> None:
    """Prints one line and exits."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _parse(arguments: list[str], usage: str) -> list[str]:
    if any(argument in ("--help", "-help", "-h", "--helpfull", "--helpshort") for argument in arguments[1:]):
        try:
            print(_help(usage), flush=True)
        except BrokenPipeError:
            _end_without_reader()
        sys.exit(0)
    if "--help_config" in arguments and "help_config" in FLAGS:
        print("\n".join(field_lines()))
        sys.exit(0)
    try:
        prepared, to_none = prepare_arguments(arguments)
        _set_to_none[:] = to_none
        remaining = FLAGS(prepared)
    except UserError as error:
        fail(str(error))
    except flags.UnrecognizedFlagError as error:
        fail(f"--{error.flagname}: no such flag{did_you_mean(error.flagname, sorted(_own_flags()))}")
    except flags.Error as error:
        fail(_flag_message(str(error)))
    if len(remaining) > 1:
        fail(f"'{remaining[1]}' is not a flag; flags are written --name=value")
    return remaining


def _own_flags() -> dict[str, flags.Flag]:
    main_module = sys.modules["__main__"]
    shown = {flag.name: flag for flag in FLAGS.flags_by_module_dict().get(main_module.__file__ or "", [])}
    own = FLAGS.get_key_flags_for_module(sys.argv[0])
    shown.update({flag.name: flag for flag in own})
    for name in ("config", "ablation", "help_config", "print_config", "quantize", *_DECODING):
        if name in FLAGS:
            shown[name] = FLAGS[name]
    return shown


def _help(usage: str) -> str:
    lines, shown = [usage.strip(), "", "flags:"], _own_flags()
    if all(name in shown for name in _DECODING):
        for name in _DECODING:
            del shown[name]
        names = ", ".join(f"--{name}" for name in _DECODING)
        lines.append(f"  {names}: in place of the run's own config.decoding, for this call (train.py --help_config "
                     "explains them)")
    for name, flag in sorted(shown.items()):
        default = "" if flag.default in (None, False) else f" (default: {flag.default})"
        lines.append(f"  --{name}: {' '.join((flag.help or '').split())}{default}")
    return "\n".join(lines)


def _flag_message(text: str) -> str:
    match = re.match(r"flag --([\w.]+)=(.*?): (.*)", text, re.DOTALL)
    if match is None:
        return text
    name, value, reason = match.groups()
    wants = {"int()": "a whole number", "float": "a number", "boolean": "true or false"}
    listed = "one of <" in reason  # Of values that may be named as a type is.
    kind = next((words for key, words in wants.items() if key in reason and not listed), reason.rstrip("."))
    return f"--{name}={value}: wants {kind}" if kind != reason.rstrip(".") else f"--{name}={value}: {kind}"
