"""Tokenizers of Hugging Face's `tokenizers` library, given by a tokenizer.json or the older files of one."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from purelm.data.tokenizers.base import check_encodable
from purelm.data.tokenizers.decoder_bytes import token_bytes_of
from purelm.data.tokenizers.imported import ImportedTokenizer
from purelm.errors import UserError

if TYPE_CHECKING:
    import tokenizers

# Stands before the name of a special token that text could spell; no text that is valid Unicode interchange has it.
_UNSPELLABLE = "\U0010fffe"


class HuggingFaceTokenizer(ImportedTokenizer):
    """Runs a tokenizer.json: the option "file" names the file that holds it, "json" has the text where older files
    were put together.

    Its padding and truncation are switched off. Special tokens in a text are ordinary text to `encode`: what the
    library calls encode_special_tokens, and beyond it those that its Unigram model would take for a piece.
    """

    kind = "huggingface"

    @cached_property
    def _backend(self) -> tokenizers.Tokenizer:
        """Takes special tokens in a text for what they are."""
        return open_backend(self._json_text(), self.settings.options["added_tokens"])

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """Takes special tokens in a text for text."""
        text = self._json_text()
        content = json.loads(text)
        changed = without_spellable_specials(content)
        backend = open_backend(text if changed is content else json.dumps(changed),
                               self.settings.options["added_tokens"])
        backend.encode_special_tokens = True
        return backend

    def _json_text(self) -> str:
        options = self.settings.options
        return options["json"] if options["file"] is None else self.file(options["file"]).decode("utf-8")

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        for text in texts:
            check_encodable(text)
        return [np.asarray(encoded.ids, np.int32)
                for encoded in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_specials(self, text: str) -> np.ndarray:
        check_encodable(text)
        return np.asarray(self._backend.encode(text, add_special_tokens=False).ids, np.int32)

    def spans(self, text: str) -> np.ndarray:
        """int64 [T, 2]: the library's offsets, in characters of `text` as it was given."""
        check_encodable(text)
        offsets = self._plain.encode(text, add_special_tokens=False).offsets
        return np.asarray(offsets, np.int64).reshape(-1, 2)

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)

    def _base_bytes(self) -> list[bytes]:
        decoder = self._backend.decoder
        steps = None if decoder is None else json.loads(decoder.__getstate__())
        return token_bytes_of(steps, [self._backend.id_to_token(number) for number in range(self.vocabulary_size)])


def open_backend(text: str, added_tokens: Sequence[dict[str, Any]],
                 folder: pathlib.Path | None = None) -> tokenizers.Tokenizer:
    """The library's tokenizer of a tokenizer.json's text, with tokens added that other files name.

    added_tokens: fields of the library's AddedToken and "id", in the order of the ids. Raises UserError, which names
    the files of `folder`, for text that is no such tokenizer, and where a token does not get its id.
    """
    import tokenizers
    where = folder or pathlib.Path()
    _check_prefix(text, where)
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # The library raises nothing narrower.
        raise UserError(f"{where / 'tokenizer.json'}: cannot be read ({str(error).splitlines()[0]})") from error
    backend.no_padding()
    backend.no_truncation()
    for token in added_tokens:
        fields = {name: value for name, value in token.items() if name not in ("id", "content")}
        backend.add_tokens([tokenizers.AddedToken(token["content"], **fields)])
        found = backend.token_to_id(token["content"])
        if found != token["id"]:
            raise UserError(f"{where / 'tokenizer_config.json'}: added_tokens_decoder has {token['content']!r} as id "
                            f"{token['id']}, but it comes out as {found}; there must be no gap before it")
    return backend


def _check_prefix(text: str, where: pathlib.Path) -> None:
    """UserError where continuing_subword_prefix is not that of the merges: the library cuts it off unseen, and ends the
    whole process where it cuts a character in two."""
    if '"continuing_subword_prefix"' not in text:
        return
    try:
        model = json.loads(text)["model"]
        prefix, merges = model["continuing_subword_prefix"] or "", model["merges"]
        right = all((merge if isinstance(merge, list) else merge.split(" "))[1].startswith(prefix) for merge in merges)
    except (ValueError, KeyError, TypeError, AttributeError, LookupError, RecursionError):
        return  # No BPE, or what the library refuses by itself.
    if not right:
        raise UserError(f"{where / 'tokenizer.json'}: continuing_subword_prefix={prefix!r} is not that of its merges")


def without_spellable_specials(content: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json's content whose model takes no text for a special token.

    A Unigram model has "</s>" among its pieces, and a word model may find "[SEP]" as a word. SentencePiece, whose
    files such tokenizers were made from, never takes text for a control piece. The ids stay.
    """
    model = content["model"]
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    if not isinstance(model["vocab"], dict):
        vocabulary = [[_UNSPELLABLE + piece if piece in special else piece, score] for piece, score in model["vocab"]]
        renamed = {piece for piece, _ in model["vocab"]} & special
    else:
        # The unknown token is found by its text, and a merge's result has to be there.
        renamed = (special & set(model["vocab"])) - {model.get("unk_token")}
        if renamed:
            renamed -= {"".join(merge if isinstance(merge, list) else merge.split(" "))
                        for merge in model.get("merges", ())}
        vocabulary = {_UNSPELLABLE + token if token in renamed else token: number
                      for token, number in model["vocab"].items()}
    if not renamed:
        return content
    added = [{**token, "content": _UNSPELLABLE + token["content"]} if token["content"] in renamed else token
             for token in content["added_tokens"]]
    # Post-processors name special tokens, and are not run where no special token is added.
    return {**content, "model": {**model, "vocab": vocabulary}, "added_tokens": added, "post_processor": None}
