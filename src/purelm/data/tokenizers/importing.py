"""A published checkpoint's tokenizer as one of ours: from tokenizer.json, or the files of older or other libraries."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.data.tokenizers import frames
from purelm.data.tokenizers.base import Tokenizer
from purelm.data.tokenizers.imported import ImportedSettings, ImportedTokenizer, packed
from purelm.data.tokenizers.imported_json import HuggingFaceTokenizer, open_backend
from purelm.data.tokenizers.imported_marian import SOURCE, TARGET, VOCABULARY, MarianTokenizer
from purelm.data.tokenizers.imported_sentencepiece import SPACE, SentencePieceTokenizer
from purelm.data.tokenizers.imported_tiktoken import (
    NORMAL_FORMS,
    PATTERNS,
    TiktokenTokenizer,
    is_ranks,
    pattern_name,
    read_ranks,
    usual_special_tokens,
)
from purelm.data.tokenizers.legacy_files import flag, from_merges, from_vocabulary
from purelm.data.tokenizers.libraries import sentencepiece_processor
from purelm.data.tokenizers.tokenizer_files import (
    ADDED,
    CONFIG,
    SPECIAL_MAP,
    TEMPLATE,
    TEMPLATE_JSON,
    Described,
    describe,
    is_id,
    read_json,
    read_text,
)
from purelm.errors import UserError

_JSON = "tokenizer.json"
_DESCRIPTIONS = (CONFIG, SPECIAL_MAP, ADDED, TEMPLATE, TEMPLATE_JSON)
_T5 = ("t5", "mt5", "umt5")
_START_ALONE = ("llama", "mistral", "gemma", "gemma2", "gemma3", "gemma3_text")


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of a checkpoint's folder is of its tokenizer."""
    known = (_JSON, SOURCE, TARGET, "vocab.json", "merges.txt", "vocab.txt", *_DESCRIPTIONS)
    return name in known or name.endswith((".tiktoken", ".model"))


def import_tokenizer(folder: pathlib.Path, task: str, model_type: str, fields: Mapping[str, Any], *,
                     pattern: str | None = None) -> Tokenizer | None:
    """The tokenizer of a checkpoint's folder, or None where it has no tokenizer files.

    The first of these that is there is taken: tokenizer.json; source.spm with target.spm (Marian); vocab.json with
    merges.txt; vocab.txt (BERT); a file of tiktoken; a SentencePiece model.

    Args:
      folder: with the checkpoint's own files.
      task: config.task.name of the run it is for.
      model_type: config.json's.
      fields: config.json's, with those of generation_config.json over them.
      pattern: of a file of tiktoken, one of `imported_tiktoken.PATTERNS`; None: the model type's.

    Raises UserError for files that are damaged, do not go together, or do not say how text is divided.
    """
    folder = pathlib.Path(folder)
    described = describe(folder, model_type)
    arguments = (folder, described, task, model_type, fields)
    if (folder / _JSON).exists():
        return _from_json(*arguments, [_JSON], None)
    if (folder / SOURCE).exists() and (folder / TARGET).exists():
        return _marian(*arguments)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _from_json(*arguments, ["vocab.json", "merges.txt"],
                          from_merges(folder, model_type, described.config, described.named))
    if (folder / "vocab.txt").exists():
        return _from_json(*arguments, ["vocab.txt"],
                          from_vocabulary(folder, model_type, described.config, described.named))
    models = sorted([*folder.glob("*.tiktoken"), *folder.glob("*.model")])
    if not models:
        return None
    if len(models) > 1:
        raise UserError(f"{folder}: {models[0].name} or {models[1].name}? leave only the tokenizer's own file there")
    with models[0].open("rb") as file:
        ranks = is_ranks(file.read(1000))
    if ranks:
        return _tiktoken(*arguments, models[0].name, pattern)
    return _sentencepiece(*arguments, models[0].name)


def _from_json(folder: pathlib.Path, described: Described, task: str, model_type: str, fields: Mapping[str, Any],
               names: Sequence[str], text: str | None) -> HuggingFaceTokenizer:
    content = read_text(folder / _JSON) if text is None else text
    known = open_backend(content, [], folder)
    # transformers adds what tokenizer_config.json knows beyond tokenizer.json.
    added = [{"id": token.id, "content": token.content, **token.fields} for token in described.added
             if known.token_to_id(token.content) is None]
    backend = open_backend(content, added, folder) if added else known
    vocabulary = backend.get_vocab(with_added_tokens=True)
    special = {token.content: number for number, token in backend.get_added_tokens_decoder().items() if token.special}
    if text is None:
        # A usual name may be an ordinary piece of another vocabulary.
        described = described._replace(named={key: name for key, name in described.named.items()
                                              if key in described.told or name in special})
    special |= _in_vocabulary([*described.named.values(), *described.extra_special], vocabulary)
    frame = _told_frame(described, vocabulary) or frames.frame_of(backend)
    clean_up = flag(described.config, "clean_up_tokenization_spaces", False)
    if clean_up and type(backend.model).__name__ == "BPE":
        clean_up = flag(described.config, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
                        False)
    options = {"file": names[0] if text is None else None, "json": text, "added_tokens": added}
    return _made(HuggingFaceTokenizer, folder, names, described, task, model_type, fields, frame, special,
                 max(vocabulary.values()) + 1, options, clean_up=clean_up)


def _marian(folder: pathlib.Path, described: Described, task: str, model_type: str,
            fields: Mapping[str, Any]) -> MarianTokenizer:
    if flag(described.config, "separate_vocabs", False):
        raise UserError(f"{folder / CONFIG}: separate_vocabs is true: a vocabulary for each language is not "
                        "supported; give a checkpoint with one vocab.json for both")
    vocabulary = read_json(folder / VOCABULARY)
    if not all(map(is_id, vocabulary.values())):
        raise UserError(f"{folder / VOCABULARY}: must be an object of pieces and their ids")
    for name in ("unk_token", "eos_token"):
        if described.named[name] not in vocabulary:
            raise UserError(f"{folder / VOCABULARY}: has no {described.named[name]!r}, the {name}")
    special = _in_vocabulary([*described.named.values(), *described.extra_special], vocabulary)
    options = {"unknown_id": vocabulary[described.named["unk_token"]]}
    frame = frames.simple_frame(None, vocabulary[described.named["eos_token"]])
    return _made(MarianTokenizer, folder, [SOURCE, TARGET, VOCABULARY], described, task, model_type, fields, frame,
                 special, max(vocabulary.values()) + 1, options)


def _sentencepiece(folder: pathlib.Path, described: Described, task: str, model_type: str, fields: Mapping[str, Any],
                   name: str) -> SentencePieceTokenizer:
    if model_type in ("xlm-roberta", "camembert", "mbart", "xglm"):
        raise UserError(f"{folder / name}: models of type {model_type!r} number the pieces in a way of their own; it "
                        "takes a tokenizer.json (save_pretrained of transformers writes one)")
    model = sentencepiece_processor((folder / name).read_bytes(), str(folder / name))
    size = model.get_piece_size()
    pieces = [model.id_to_piece(number) for number in range(size)]
    extra = _extra_ids(described, model_type, pieces)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # The last extra id comes first: <extra_id_0> has the largest id of all.
    special = {piece: number for piece, number in vocabulary.items()
               if model.is_control(number) or model.is_unknown(number)}
    special |= {f"<extra_id_{extra - 1 - place}>": size + place for place in range(extra)}
    for token in described.added:
        if token.special or token.id >= size:
            special[token.content] = vocabulary.get(token.content, token.id)
    special |= _in_vocabulary([*described.named.values(), *described.extra_special], vocabulary)
    named = {key: special[text] for key, text in described.named.items() if text in special}
    options = {"file": name, "legacy": flag(described.config, "legacy", True)}
    start, end = model_type in _START_ALONE, model_type in _T5
    frame = frames.simple_frame(
        *(named[key] if flag(described.config, field, default) and key in named else None
          for key, field, default in (("bos_token", "add_bos_token", start), ("eos_token", "add_eos_token", end))))
    return _made(SentencePieceTokenizer, folder, [name], described, task, model_type, fields, frame, special,
                 max(size, *(number + 1 for number in special.values())), options)


def _extra_ids(described: Described, model_type: str, pieces: Sequence[str]) -> int:
    """T5's class has 100 where no file says otherwise; mT5's models, and T5X's, have theirs among the pieces."""
    if "extra_ids" in described.config:
        number = described.config["extra_ids"]
        if not is_id(number):
            raise UserError(f"tokenizer_config.json: extra_ids={str(number)[:60]}: wants a whole number from 0")
        return number
    return 100 if model_type == "t5" and f"{SPACE}<extra_id_0>" not in pieces else 0


def _tiktoken(folder: pathlib.Path, described: Described, task: str, model_type: str, fields: Mapping[str, Any],
              name: str, pattern: str | None) -> TiktokenTokenizer:
    pattern = pattern_name(model_type, pattern, str(folder / name))
    ranks = read_ranks((folder / name).read_bytes(), str(folder / name))
    special = {token.content: token.id for token in described.added}
    special = special or usual_special_tokens(pattern, max(ranks.values()) + 1)
    bos = "<|begin_of_text|>"
    frame = frames.simple_frame(special[bos] if pattern == "llama3" and bos in special else None, None)
    names = {"bos_token": bos, "eos_token": "<|end_of_text|>"} if pattern == "llama3" else {}
    described = described._replace(named={**{key: text for key, text in described.named.items() if text in special},
                                          **{key: text for key, text in names.items()
                                             if described.named.get(key) not in special}})
    options = {"file": name, "pattern": PATTERNS[pattern], "normal_form": NORMAL_FORMS[pattern]}
    return _made(TiktokenTokenizer, folder, [name], described, task, model_type, fields, frame, special,
                 1 + max(*ranks.values(), *special.values()), options)


def _told_frame(described: Described, vocabulary: Mapping[str, int]) -> frames.Frame | None:
    """Where tokenizer_config.json says which tokens are added, tokenizer.json's own rule does not count."""
    if not {"add_bos_token", "add_eos_token"} & set(described.config):
        return None
    return frames.simple_frame(*(
        vocabulary[described.named[name]] if flag(described.config, f"add_{name}", False) and name in described.named
        and described.named[name] in vocabulary else None for name in ("bos_token", "eos_token")))


def _named_by_id(fields: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, str]:
    """What config.json knows by id alone."""
    texts = {number: text for text, number in special.items()}
    names = ("bos_token", "eos_token", "pad_token", "sep_token")
    return {name: texts[fields[f"{name}_id"]] for name in names
            if isinstance(fields.get(f"{name}_id"), int) and fields[f"{name}_id"] in texts}


def _in_vocabulary(texts: Sequence[str], vocabulary: Mapping[str, int]) -> dict[str, int]:
    return {text: vocabulary[text] for text in texts if text in vocabulary}


def _made(kind: type[ImportedTokenizer], folder: pathlib.Path, names: Sequence[str], described: Described, task: str,
          model_type: str, fields: Mapping[str, Any], frame: frames.Frame, special: Mapping[str, int], size: int,
          options: Mapping[str, Any], *, clean_up: bool = False) -> Any:
    named_tokens = {**_named_by_id(fields, special),
                    **{name: text for name, text in described.named.items() if text in special}}
    named = {name: special[text] for name, text in named_tokens.items()}
    settings = ImportedSettings(
        vocabulary_size=size,
        special=frames.special_ids(frame, task, model_type, fields, special, named),
        special_tokens=dict(special), named_tokens=named_tokens,
        end_of_text_id=frames.document_separator(special, named), chat_template=described.chat_template,
        clean_up=clean_up, options=options)
    kept = [*names, *(name for name in _DESCRIPTIONS if (folder / name).exists())]
    return kind({name: packed((folder / name).read_bytes()) for name in kept}, settings)
