"""Published tokenizers beside the library that they come from: ids, text of ids, speed, time to open."""

from __future__ import annotations

import glob
import gzip
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from purelm.data.tokenizers.imported import ImportedTokenizer
from purelm.data.tokenizers.imported_marian import MarianTokenizer
from purelm.data.tokenizers.imported_sentencepiece import SentencePieceTokenizer
from purelm.data.tokenizers.imported_tiktoken import PATTERNS, TiktokenTokenizer
from purelm.data.tokenizers.importing import import_tokenizer
from purelm.errors import UserError

ROUNDS = 3
RANDOM = 2000


class Peer(NamedTuple):
    """The original: ids of a text and of many, and the text of ids; `encode` is the method of ours that it equals."""

    name: str
    encode: str
    encode_batch: Callable[[list[str]], Sequence[Sequence[int]]]
    decode: Callable[[list[int]], str]


def measure(folders: list[str], globs: list[str]) -> list[dict[str, object]]:
    """A row for each folder."""
    texts = read_texts(globs)
    return [_row(pathlib.Path(folder), texts, unusual_texts()) for folder in folders]


def read_texts(globs: list[str]) -> list[str]:
    """Lines of text files and every text of the objects of .jsonl files, .gz or not; UserError where there are none."""
    found = []
    for pattern in globs:
        for path in map(pathlib.Path, sorted(glob.glob(pattern))):
            content = path.read_bytes()
            lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8").split("\n")
            if ".jsonl" in path.suffixes:
                lines = [text for line in lines if line for text in json.loads(line).values() if isinstance(text, str)]
            found += lines
    if not found:
        raise UserError(f"--texts={' '.join(globs)}: no such files, or no text in them")
    return found


def unusual_texts() -> list[str]:
    """Every character of Unicode in its order, and random mixtures of white space, controls, marks, emoji, letters."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    runs = ["".join(every[start:start + 97]) for start in range(0, len(every), 97)]
    random = np.random.default_rng(0)
    some = [*" \t\r\n\x00\x1b\u00a0\u3000\u2028\u200b\ufeff\ufffd'sStT.,/aA1\u00e9\u0301\u2581_<>|[]#", "\U0001f600",
            "\U0001f468\u200d\U0001f469", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "</s>", "<unk>",
            "<|endoftext|>", *every[:0x3000]]
    weights = np.r_[np.full(len(some) - 0x3000, 1.0), np.full(0x3000, 20 / 0x3000)]
    mixed = ["".join(random.choice(some, random.integers(1, 30), p=weights / weights.sum())) for _ in range(5000)]
    return [*runs, *mixed, *(character * 2000 for character in (" ", "\n", "a", "\u4e2d", "1", "\u0301")), ""]


def _row(folder: pathlib.Path, texts: list[str], unusual: list[str]) -> dict[str, object]:
    fields = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            fields |= json.loads((folder / name).read_text(encoding="utf-8"))
    _peer(folder, _import(folder, fields))  # Imports the libraries.
    started = time.perf_counter()
    ours = _import(folder, fields)
    ours.encode("a")
    opened = time.perf_counter()
    peer = _peer(folder, ours)
    peer.encode_batch(["a"])
    peer_opened = time.perf_counter()
    compared = [*texts, *unusual]
    ids, strings = _differences(ours, peer, compared)
    rates = _rates(ours, peer, texts)
    return {"tokenizer": folder.name, "kind": ours.kind, "vocabulary": f"{ours.vocabulary_size:,}",
            "beside": peer.name, "texts": f"{len(compared):,}", "characters": f"{sum(map(len, compared)):,}",
            "ids differ": ids, "text of ids differs": strings, "tokens/s": f"{rates[0]:,.0f}",
            "theirs": f"{rates[1]:,.0f}", "opening, s": f"{opened - started:.2f}",
            "theirs, s": f"{peer_opened - opened:.2f}"}


def _import(folder: pathlib.Path, fields: dict[str, Any]) -> ImportedTokenizer:
    task = "sequence_to_sequence" if fields.get("is_encoder_decoder") else "language_modeling"
    # tiktoken's files are called after their pattern: cl100k_base.tiktoken.
    named = next((name for file in folder.glob("*.tiktoken") for name in PATTERNS if file.name.startswith(name)), None)
    found = import_tokenizer(folder, task, fields.get("model_type", ""), fields, pattern=named)
    if found is None:
        raise UserError(f"--tokenizers={folder}: has no tokenizer's files")
    return found


def _peer(folder: pathlib.Path, ours: ImportedTokenizer) -> Peer:
    """SentencePiece and tiktoken themselves for their own files, transformers for all others."""
    if isinstance(ours, SentencePieceTokenizer):
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / ours.settings.options["file"]))
        return Peer("sentencepiece", "encode", lambda texts: [model.encode(text) for text in texts], model.decode)
    if isinstance(ours, TiktokenTokenizer):
        return _tiktoken(folder, ours)
    import transformers

    named = {} if (folder / "config.json").exists() else {"tokenizer_class": "PreTrainedTokenizerFast"}
    theirs = transformers.AutoTokenizer.from_pretrained(folder, **named)
    options = {"use_source_tokenizer": False} if isinstance(ours, MarianTokenizer) else {}
    return Peer("transformers", "encode_with_specials",
                lambda texts: theirs(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"],
                lambda ids: theirs.decode(ids, **options))


def _tiktoken(folder: pathlib.Path, ours: TiktokenTokenizer) -> Peer:
    import unicodedata

    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    options = ours.settings.options
    theirs = tiktoken.Encoding("peer", pat_str=options["pattern"],
                               mergeable_ranks=load_tiktoken_bpe(str(folder / options["file"])),
                               special_tokens=dict(ours.settings.special_tokens))
    form = options["normal_form"]

    def encode(texts: list[str]) -> list[list[int]]:
        return [theirs.encode_ordinary(text if form is None else unicodedata.normalize(form, text)) for text in texts]

    return Peer("tiktoken", "encode", encode, theirs.decode)


def _differences(ours: ImportedTokenizer, peer: Peer, texts: list[str]) -> tuple[int, int]:
    """Of how many texts ids differ, and of how many the text of the peer's ids, or of random ones.

    SentencePiece alone shows no special token, the unknown one as " \u2047 ", so its ids that hold one are left out.
    """
    encode = getattr(ours, peer.encode)
    peers = [list(ids) for ids in peer.encode_batch(texts)]
    ids = sum(encode(text).tolist() != found for text, found in zip(texts, peers, strict=True))
    random = np.random.default_rng(0)
    stands = np.asarray([number for number, content in enumerate(ours.token_bytes) if content])
    peers += [random.choice(stands, 12).tolist() for _ in range(RANDOM)]
    if peer.name == "sentencepiece":
        peers = [found for found in peers if not ours.special_ids.intersection(found)]
    return ids, sum(ours.decode(found) != peer.decode(found) for found in peers)


def _rates(ours: ImportedTokenizer, peer: Peer, texts: list[str]) -> tuple[float, float]:
    """Tokens a second, medians of turns."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    tokens = 0
    for _ in range(ROUNDS):
        for name, encode in (("ours", ours.encode_batch), ("theirs", peer.encode_batch)):
            started = time.perf_counter()
            found = encode(texts)
            seconds[name].append(time.perf_counter() - started)
            tokens = sum(map(len, found))
    return tokens / statistics.median(seconds["ours"]), tokens / statistics.median(seconds["theirs"])
