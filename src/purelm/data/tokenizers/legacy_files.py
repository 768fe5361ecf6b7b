"""A tokenizer.json's content from the files that came before it: vocab.json with merges.txt, and vocab.txt."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from purelm.data.tokenizers.imported_tiktoken import PATTERNS
from purelm.data.tokenizers.tokenizer_files import is_id, read_json, read_text
from purelm.errors import UserError

# Families whose byte-level BPE divides words as GPT-2's does, and those that have Qwen's pattern.
BYTE_LEVEL = ("gpt2", "gpt_neo", "opt", "roberta", "bart")
QWEN = ("qwen2", "qwen3")
WORD_PIECE = ("bert", "distilbert", "electra")


def from_merges(folder: pathlib.Path, model_type: str, config: Mapping[str, Any], named: Mapping[str, str]) -> str:
    """Byte-level BPE (Radford et al. 2019) of vocab.json and merges.txt; RoBERTa and BART put <s> and </s> around.

    Raises UserError for files of a family whose words are divided in a way that they do not say.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if model_type not in (*BYTE_LEVEL, *QWEN):
        raise UserError(f"{folder}: vocab.json and merges.txt of model type {model_type!r} do not say how text is "
                        "divided; it takes a tokenizer.json (save_pretrained of transformers writes one)")
    vocabulary = read_json(folder / "vocab.json")
    if not all(map(is_id, vocabulary.values())):
        raise UserError(f"{folder / 'vocab.json'}: must be an object of tokens and their ids")
    merges = [tuple(line.split(" ")) for line in lines_of(folder / "merges.txt")
              if line and not line.startswith("#version")]
    try:
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # The library raises nothing narrower.
        raise UserError(f"{folder / 'merges.txt'}: does not go with vocab.json ({error})") from error
    space = flag(config, "add_prefix_space", False)
    if model_type in QWEN:
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(PATTERNS["qwen"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)])
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    _add_specials(backend, named, vocabulary, stripped_left=model_type in ("roberta", "bart"))
    if model_type in ("roberta", "bart"):
        around = [(named[name], vocabulary[named[name]]) for name in ("sep_token", "cls_token")]
        backend.post_processor = processors.RobertaProcessing(*around, trim_offsets=True, add_prefix_space=space)
    return backend.to_str()


def from_vocabulary(folder: pathlib.Path, model_type: str, config: Mapping[str, Any], named: Mapping[str, str]) -> str:
    """WordPiece as BERT's (Devlin et al. 2019) of vocab.txt; tokenizer_config.json says whether in lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if model_type not in WORD_PIECE:
        raise UserError(f"{folder}: vocab.txt of model type {model_type!r} does not say how text is divided; it takes "
                        "a tokenizer.json (save_pretrained of transformers writes one)")
    # Chinese BERT's has U+2028 for a token, which every reader but the oldest of transformers takes for white space.
    vocabulary = {line.rstrip(): number for number, line in enumerate(lines_of(folder / "vocab.txt"))}
    for name in ("unk_token", "sep_token", "cls_token"):
        if name not in named or named[name] not in vocabulary:
            raise UserError(f"{folder / 'vocab.txt'}: has no {name} (tokenizer_config.json names it)")
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=named["unk_token"]))
    strip = flag(config, "strip_accents", False) if config.get("strip_accents", None) is not None else None
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=flag(config, "tokenize_chinese_chars", True), strip_accents=strip,
        lowercase=flag(config, "do_lower_case", True))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    start, end = named["cls_token"], named["sep_token"]
    _add_specials(backend, named, vocabulary, stripped_left=False)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {end}:0", pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(text, vocabulary[text]) for text in (start, end)])
    return backend.to_str()


def flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """A field of tokenizer_config.json that transformers has `default` for; UserError where it is neither true nor
    false."""
    value = config[name] if name in config and config[name] is not None else default
    if not isinstance(value, bool):
        raise UserError(f"tokenizer_config.json: {name}={str(value)[:60]}: wants true or false")
    return value


def lines_of(path: pathlib.Path) -> list[str]:
    """The lines of a UTF-8 file, cut at newlines alone: tokens may hold what else Unicode calls an end of line."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def _add_specials(backend: Any, named: Mapping[str, str], vocabulary: Mapping[str, int], *,
                  stripped_left: bool) -> None:
    """Marks the special tokens; `stripped_left`: RoBERTa's mask takes the space before it."""
    from tokenizers import AddedToken

    for text in dict.fromkeys(named.values()):
        if text in vocabulary:
            masks = stripped_left and "mask_token" in named and text == named["mask_token"]
            backend.add_special_tokens([AddedToken(text, lstrip=masks, normalized=False)])
