"""What every entry point shares: absl flags parsed with one-line errors, exit codes, and a short --help."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

from absl import app, flags, logging

from purelm.config import Config, from_flag, validate
from purelm.config.arguments import prepare_arguments
from purelm.config.describe import field_lines
from purelm.errors import UserError, did_you_mean
from purelm.runtime import keep_memory

FLAGS = flags.FLAGS
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_set_to_none: list[tuple[str, str]] = []


def define_config_flag() -> None:
    """Adds --config=file.py[:argument] (or a run's config.json) and --config.SECTION.FIELD=VALUE."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file("config", None, "configs/...py[:argument], or a run's config.json; change a field "
                                    "by --config.SECTION.FIELD=VALUE (--help_config lists them)")
    flags.DEFINE_bool("help_config", False, "list every field of the config and stop")
    flags.DEFINE_bool("print_config", False, "print the config as JSON and stop")


def config_from_flags() -> Config:
    """The validated config that the flags say."""
    if FLAGS.config is None:
        raise UserError("--config is missing; give one, such as --config=configs/lm/shakespeare_char.py")
    for section, name in _set_to_none:
        (FLAGS.config[section] if section else FLAGS.config)[name] = None
    return validate(from_flag(FLAGS.config))


def run(main: Callable[[], None], usage: str) -> None:
    """Parses the flags and calls `main`; a UserError becomes one line on stderr and exit code 2.

    `usage` is what --help shows above the flags: what the program does and a command to copy.
    """
    def guarded(_: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        try:
            main()
        except UserError as error:
            fail(str(error))
        except KeyboardInterrupt:
            fail("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_USER_ERROR)

    keep_memory()
    app.run(guarded, flags_parser=lambda arguments: _parse(arguments, usage))


def fail(message: str, code: int = EXIT_USER_ERROR) -> None:
    """Prints one line and exits."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _parse(arguments: list[str], usage: str) -> list[str]:
    if any(argument in ("--help", "-help", "-h", "--helpfull", "--helpshort") for argument in arguments[1:]):
        print(_help(usage))
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
    except Exception as error:  # A config file is the user's own program: any exception of it is named, with its line.
        fail(_config_file_message(error))
    if len(remaining) > 1:
        fail(f"'{remaining[1]}' is not a flag; flags are written --name=value")
    return remaining


def _own_flags() -> dict[str, flags.Flag]:
    main_module = sys.modules["__main__"]
    shown = {flag.name: flag for flag in FLAGS.flags_by_module_dict().get(main_module.__file__ or "", [])}
    own = FLAGS.get_key_flags_for_module(sys.argv[0])
    shown.update({flag.name: flag for flag in own})
    for name in ("config", "help_config", "print_config"):
        if name in FLAGS:
            shown[name] = FLAGS[name]
    return shown


def _help(usage: str) -> str:
    lines = [usage.strip(), "", "flags:"]
    for name, flag in sorted(_own_flags().items()):
        default = "" if flag.default in (None, False) else f" (default: {flag.default})"
        lines.append(f"  --{name}: {' '.join((flag.help or '').split())}{default}")
    return "\n".join(lines)


def _flag_message(text: str) -> str:
    if "Traceback (most recent call last)" in text:  # ml_collections' way to say that the config file raised.
        (file, line), reason = re.findall(r'File "([^"]+)", line (\d+)', text)[-1], text.strip().splitlines()[-1]
        is_ours = reason.startswith(f"{UserError.__module__}.")
        return reason.partition(": ")[2] if is_ours else f"{file}:{line}: {reason}"
    match = re.match(r"flag --([\w.]+)=(.*?): (.*)", text, re.DOTALL)
    if match is None:
        return text
    name, value, reason = match.groups()
    wants = {"int()": "a whole number", "float": "a number", "boolean": "true or false"}
    kind = next((words for key, words in wants.items() if key in reason), reason.rstrip("."))
    return f"--{name}={value}: wants {kind}" if kind != reason.rstrip(".") else f"--{name}={value}: {kind}"


def _config_file_message(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame for frame in frames if frame.name in ("get_config", "<module>") and "purelm/" not in frame.filename]
    where = f"{files[-1].filename}:{files[-1].lineno}: " if files else ""
    return f"{where}{type(error).__name__}: {error}"
