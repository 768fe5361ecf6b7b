"""The files beside a published tokenizer's vocabulary that say what its special tokens are."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from purelm.errors import UserError

CONFIG, SPECIAL_MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
TEMPLATE, TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
            "pad_token": "<pad>", "mask_token": "<mask>"}
_GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
# What a family calls its tokens where no file says it; those that a vocabulary has not are left out.
_USUAL = {
    "bert": _BERT, "distilbert": _BERT, "electra": _BERT, "roberta": _ROBERTA, "xlm-roberta": _ROBERTA,
    "bart": _ROBERTA, "gpt2": _GPT2, "gpt_neo": _GPT2, "gpt_neox": _GPT2, "llama": _LLAMA, "mistral": _LLAMA,
    "t5": _T5, "mt5": _T5, "umt5": _T5, "marian": _T5, "gemma": _GEMMA, "gemma2": _GEMMA, "gemma3_text": _GEMMA,
    "gemma3": _GEMMA, "opt": {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
    "qwen": {"eos_token": "<|endoftext|>"}, "qwen2": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "qwen3": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
}

# Far above any vocabulary's: libraries go through all ids up to the largest.
_MOST_IDS = 1 << 22


class AddedToken(NamedTuple):
    """A token that tokenizer_config.json or added_tokens.json adds to the vocabulary; `fields` are the library's."""

    id: int
    content: str
    special: bool
    fields: dict[str, Any]


class Described(NamedTuple):
    """What the files say: `config` is tokenizer_config.json ({} without one); `named` are the texts of bos_token, ...,
    of which a file has those in `told` and the others are the family's usual ones; `added` in the order of ids."""

    config: dict[str, Any]
    named: dict[str, str]
    told: frozenset[str]
    added: list[AddedToken]
    extra_special: list[str]
    chat_template: str | None


def describe(folder: pathlib.Path, model_type: str) -> Described:
    """Reads the files; UserError for one that is no JSON object, or whose special tokens are no text."""
    config, special_map = (read_json(folder / name) for name in (CONFIG, SPECIAL_MAP))
    named = dict(_USUAL[model_type]) if model_type in _USUAL else {}
    for content, name in ((special_map, SPECIAL_MAP), (config, CONFIG)):
        named |= {key: _text(content[key], folder / name, key) for key in _NAMES
                  if key in content and content[key] is not None}
        for key in _NAMES:
            if key in content and content[key] is None and name == CONFIG:
                named.pop(key, None)
    extra = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        for content, name in ((special_map, SPECIAL_MAP), (config, CONFIG)):
            if key in content and content[key]:
                values = content[key].values() if isinstance(content[key], dict) else content[key]
                if isinstance(content[key], str) or not isinstance(values, Iterable):
                    raise UserError(f"{folder / name}: {key} must be a list of tokens")
                extra += [_text(value, folder / name, key) for value in values]
    told = frozenset(key for key in _NAMES for content in (special_map, config) if key in content)
    return Described(config, named, told, _added(folder, config), list(dict.fromkeys(extra)), _template(folder, config))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The file's object, {} where there is no file; UserError for anything else."""
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({str(error)[:200]}); take it again from where it came"
                        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, not a {type(content).__name__}")
    return content


def is_id(value: Any) -> bool:
    """Whether a value of a file can be the id of a token."""
    return type(value) is int and 0 <= value < _MOST_IDS


def read_text(path: pathlib.Path) -> str:
    """The file's text, newlines as they are; UserError where it cannot be read, or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 ({error}); take it again from where it came") from error


def _text(value: Any, path: pathlib.Path, key: str) -> str:
    found = value["content"] if isinstance(value, dict) and "content" in value else value
    if not isinstance(found, str):
        raise UserError(f"{path}: {key} must be a token's text, not {json.dumps(value)[:80]}")
    return found


def _added(folder: pathlib.Path, config: Mapping[str, Any]) -> list[AddedToken]:
    found: dict[int, AddedToken] = {}
    for text, number in read_json(folder / ADDED).items():
        if not is_id(number):
            raise UserError(f"{folder / ADDED}: {text!r} must have an id, a whole number from 0")
        found[number] = AddedToken(number, text, True, {"special": True, "normalized": False})
    decoder = config.get("added_tokens_decoder", None) or {}
    if not isinstance(decoder, dict) or not all(
            number.isdecimal() and len(number) < 10 and isinstance(token, dict) for number, token in decoder.items()):
        raise UserError(f"{folder / CONFIG}: added_tokens_decoder must be an object of tokens by their ids")
    for number, token in decoder.items():
        fields = {name: bool(token[name]) for name in ("special", "normalized", "lstrip", "rstrip", "single_word")
                  if name in token}
        special = bool("special" in token and token["special"])
        found[int(number)] = AddedToken(int(number), _text(token, folder / CONFIG, "added_tokens_decoder"), special,
                                        fields)
    return [found[number] for number in sorted(found)]


def _template(folder: pathlib.Path, config: Mapping[str, Any]) -> str | None:
    """A file of its own comes before tokenizer_config.json's; of several with names, the one called default."""
    if (folder / TEMPLATE).exists():
        return read_text(folder / TEMPLATE)
    content = read_json(folder / TEMPLATE_JSON)
    found = content.get("chat_template", None)
    if found is None and "chat_template" in config:
        found = config["chat_template"]
    if found is None or isinstance(found, str):
        return found
    if not isinstance(found, list) or not all(
            isinstance(one, dict) and {"name", "template"} <= set(one)
            and isinstance(one["name"], str) and isinstance(one["template"], str) for one in found):
        raise UserError(f"{folder / CONFIG}: chat_template must be a text, or a list of names and templates")
    templates = {one["name"]: one["template"] for one in found}
    if "default" not in templates:
        raise UserError(f"{folder / CONFIG}: no chat_template is called default; there are {', '.join(templates)}")
    return templates["default"]
