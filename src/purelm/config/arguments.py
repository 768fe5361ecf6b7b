"""Command-line arguments `--config...` made ready for ml_collections' parser, with the user's slips caught first."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing

from purelm.config import config_file
from purelm.config.schema import Config
from purelm.errors import UserError, did_you_mean

_OVERRIDE = re.compile(r"--?(no)?config\.([A-Za-z0-9_.]+)(?:=(.*))?", re.DOTALL)
_FILE = re.compile(r"--?(config|ablation)=(.*)", re.DOTALL)
_FLAGS_OF_A_FILE = ("--config", "-config", "--ablation", "-ablation")


_EXAMPLES = {"config": "configs/lm/shakespeare_char.py", "ablation": "configs/ablations/positions.py"}


def prepare_arguments(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """(arguments for absl, fields to set to None afterwards as (section, name); section "" is the top).

    The config file is loaded through the module config_file and comes first, since the flags of its fields are known
    from then on; `=none` is taken out, and 1e6 is written out for whole numbers. --ablation=file stays too, and its
    base is the config.

    Raises:
      UserError: a config file that does not exist, or two, or none to change a field of, or a field that does not exist
        ("did you mean").
    """
    kept, to_none, files, changes = [], [], [], []
    arguments = _joined(arguments)
    for position, argument in enumerate(arguments):
        if argument == "--":
            kept += arguments[position:]
            break
        if argument in _FLAGS_OF_A_FILE:
            flag = argument.lstrip("-")
            raise UserError(f"--{flag}: names no file; give one, such as --{flag}={_EXAMPLES[flag]}")
        if match := _FILE.fullmatch(argument):
            flag, file = match.groups()
            files.append(file)
            if len(files) > 1:
                raise UserError(f"--{flag} is given twice, as {files[0]} and {files[1]}; give one")
            kept.insert(1, f"--config={config_file.__file__}:{checked_file(file, flag)}")
            if flag == "ablation":
                kept.append(argument)
        elif match := _OVERRIDE.fullmatch(argument):
            section, name, hint = _find(match[2])
            changes.append(argument)
            if match[3] is not None and match[3].lower() in ("none", "null"):
                if type(None) not in typing.get_args(hint):
                    raise UserError(f"--config.{match[2]}={match[3]}: this field cannot be none")
                to_none.append((section, name))
            else:
                kept.append(_whole_number(argument, match[3], hint))
        else:
            kept.append(argument)
    if changes and not files:
        raise UserError(f"{changes[0]}: there is no config to change; give one, such as "
                        f"--config={_EXAMPLES['config']}")
    return kept, to_none


def _joined(arguments: list[str]) -> list[str]:
    """`--config file` as `--config=file`, so that it is seen below; ml_collections wants fields with "=" already."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _FLAGS_OF_A_FILE and not argument.startswith("-"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def checked_file(value: str, flag: str = "config") -> str:
    """`file.py[:argument]` or, of a config, a JSON file, which exists."""
    path = value.split(":", 1)[0]
    if not pathlib.Path(path).is_file():
        folder = pathlib.Path(path).parent
        near = [str(p) for p in sorted(folder.glob("*.py"))] if folder.is_dir() else []
        raise UserError(f"--{flag}={value}: no file {path}{did_you_mean(path, near)}")
    if flag == "ablation" and not path.endswith(".py"):
        raise UserError(f"--ablation={value}: wants a Python file with get_ablation(), such as {_EXAMPLES[flag]}")
    if not path.endswith((".py", ".json")):
        raise UserError(f"--config={value}: wants a Python file with get_config(), or a run's config.json")
    return value


def _find(path: str) -> tuple[str, str, object]:
    section, _, name = path.rpartition(".")
    kinds = {field.name: hint for field in dataclasses.fields(Config)
             for hint in [typing.get_type_hints(Config)[field.name]]}
    top = [name for name, hint in kinds.items() if not dataclasses.is_dataclass(hint)]
    sections = [name for name in kinds if name not in top]
    if not section:
        if name in top:
            return section, name, kinds[name]
        if name in sections:
            raise UserError(f"--config.{path}: is a section; set one of its fields, such as --config.{path}."
                            f"{dataclasses.fields(kinds[name])[0].name}=...")
        raise UserError(f"--config.{path}: no such field{_suggest(name, top)}")
    if section not in sections:
        raise UserError(f"--config.{path}: no section '{section}'{did_you_mean(section, sections)}")
    hints = typing.get_type_hints(kinds[section])
    if name not in hints:
        raise UserError(f"--config.{path}: no such field{_suggest(name, hints, section)}")
    return section, name, hints[name]


def _suggest(name: str, names, section: str = "") -> str:
    """Looks in the section first, then everywhere, since a field in the wrong section is the commonest slip."""
    everywhere = [f"{f.name}.{inner}" for f in dataclasses.fields(Config)
                  if dataclasses.is_dataclass(hint := typing.get_type_hints(Config)[f.name])
                  for inner in typing.get_type_hints(hint)]
    elsewhere = [full for full in everywhere if full.rpartition(".")[2] == name]
    if elsewhere:
        return f"; did you mean '--config.{elsewhere[0]}'?"
    hint = did_you_mean(name, list(names))
    if "did you mean" not in hint:
        return "; --help_config lists them all"
    return hint


def _whole_number(argument: str, value: str | None, hint: object) -> str:
    wants_int = hint is int or int in typing.get_args(hint)
    if wants_int and value and re.fullmatch(r"[0-9.]+e\+?[0-9]+", value, re.IGNORECASE) and float(value).is_integer():
        return argument[: -len(value)] + str(int(float(value)))
    return argument
